"""`dpo evaluate`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dpo.cli import main
from dpo.errors import ModelError
from dpo.evaluation import run as evaluation_run
from tests.builders import SAMPLES

NECTAR = f"nectar={SAMPLES / 'nectar.jsonl'}"
CHATML = ("--template", "chatml")
"""For the tiny models, which have no chat template."""


@pytest.fixture
def evaluate(tiny_llamas: tuple[Path, Path], tmp_path: Path):
    """Runs the command on both tiny models, and returns its exit code and what it wrote."""

    def run(*flags: str) -> tuple[int, dict[str, Any], str]:
        output = tmp_path / "out" / "numbers.json"
        code = main(["evaluate", "--models", *map(str, tiny_llamas), "--output", str(output), *flags])
        table = output.with_suffix(".md")
        written = json.loads(output.read_text()) if output.exists() else {}
        return code, written, table.read_text() if table.exists() else ""

    return run


def test_two_models_are_compared_on_tasks_and_pairs(evaluate, tiny_llamas, capsys) -> None:
    first, second = map(str, tiny_llamas)
    flags = ("--tasks", "dpo_facts", "--pairs", NECTAR, *CHATML, "--reference", first, "--limit", "5")
    code, numbers, table = evaluate(*flags)
    assert code == 0
    assert table in capsys.readouterr().out
    heading, _, *lines = table.splitlines()
    assert [cell.strip() for cell in heading.strip("|").split("|")] == [
        *("measure", "n", first, second),
        f"{second} - {first}",
    ]
    rows = [line.strip("|").split("|")[0].strip() for line in lines if line.startswith("|")]
    assert rows[:3] == ["dpo_facts, 0-shot, acc", "dpo_facts, 0-shot, acc_norm", "pairs, reward accuracy"]
    assert rows == list(numbers["models"][first]["measures"]) == list(numbers["differences"][second])
    assert all(found["is_paired"] for found in numbers["differences"][second].values())
    assert numbers["models"][first]["measures"]["pairs, reward margin"] == {"value": 0, "stderr": 0, "num_items": 5}
    assert numbers["models"][second]["rows"]["kept"] == 91
    assert numbers["flags"]["limit"] == 5 and numbers["flags"]["models"] == [first, second]
    assert (numbers["flags"]["pairs"], numbers["flags"]["dtype"]) == ([NECTAR], "float32")
    assert numbers["flags"]["template"] == "chatml"
    assert "parser" not in numbers["flags"]
    assert table.endswith(
        "\nMeasured on the first 5 questions of each task and pairs only: a quick look, not a result.\n"
    )


def test_a_crash_in_the_second_model_leaves_the_first_ones_numbers(evaluate, tiny_llamas, monkeypatch, capsys) -> None:
    load = evaluation_run.load_causal_lm

    def fail_at_second(located: Any, **options: Any) -> Any:
        if located.base == str(tiny_llamas[1]):
            raise ModelError("model: cannot be loaded")
        return load(located, **options)

    monkeypatch.setattr(evaluation_run, "load_causal_lm", fail_at_second)
    code, numbers, table = evaluate("--pairs", NECTAR, *CHATML, "--limit", "3")
    assert code == 2
    assert capsys.readouterr().err.endswith("error: model: cannot be loaded\n")
    assert list(numbers["models"]) == [str(tiny_llamas[0])]
    assert "| pairs, accuracy by summed log p, no reference " in table
    assert table.endswith("\nMeasured on the first 3 pairs only: a quick look, not a result.\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "nothing to measure"),
        (("--tasks", "dpo_facts", "--reference", "x"), "--reference has no effect without --pairs or --prepared"),
        (("--tasks", "dpo_facts", *CHATML), "--template has no effect without --pairs or --prepared"),
        (("--tasks", "dpo_facts", "--max_length", "7"), "--max_length has no effect without --pairs or --prepared"),
        (
            ("--pairs", NECTAR, "--apply_chat_template"),
            "--apply_chat_template has no effect without --suite or --tasks",
        ),
        (("--pairs", NECTAR, "--prepared", "x"), "--pairs and --prepared both select the pairs"),
        (("--pairs", NECTAR, "--beta", "0.2"), "which need a reference model.\n  Pass --reference"),
        (("--pairs", NECTAR, "--reference", "x", "--beta", "0"), "--beta 0: expected a number above 0\n"),
        (("--pairs", NECTAR, "--reference", "x", "--beta", "inf"), "--beta inf: expected a number above 0\n"),
        (("--pairs", "nectarine", *CHATML), "Did you mean nectar?"),
        (("--tasks", "no_such_task", "--models", "./none"), "model ./none: there is no such folder"),
        (("--pairs", NECTAR, "--limit", "0"), "expected a whole number above 0, found '0'"),
        (("--pairs", NECTAR, "--models", "a", "b", "a"), "--models: a is listed twice"),
        (("--pairs", NECTAR, "--output", "numbers.csv"), "expected a file that ends in .json"),
        (("--tasks", "dpo_facts", "--include_path", "nowhere"), "--include_path nowhere: there is no such folder"),
        (("--suite", "open_llm"), "invalid choice: 'open_llm'"),
        (("--pairs", NECTAR, "--validation_split", "0.1"), "unknown flag '--validation_split'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_reported_and_exits_with_2(evaluate, flags: tuple[str, ...], message: str, capsys) -> None:
    code, numbers, _ = evaluate(*flags)
    output = capsys.readouterr().err
    assert (code, numbers) == (2, {})
    assert output.startswith("error: ") and message in output and "Traceback" not in output


def test_the_error_about_a_template_without_control_tokens_names_no_training_flag(
    evaluate, tiny_llamas, capsys
) -> None:
    assert evaluate("--pairs", NECTAR, "--template", "llama3")[0] == 2
    output = capsys.readouterr().err
    assert output.startswith(f"error: --template llama3: the tokenizer of {tiny_llamas[0]} lacks <|start_header_id|>")
    assert "add_control_tokens" not in output


def test_pairs_are_rendered_as_the_model_was_trained_unless_a_template_is_named(
    evaluate, tiny_llamas, tmp_path
) -> None:
    trained = shutil.copytree(tiny_llamas[0], tmp_path / "trained")
    template = trained / "chat_template.jinja"
    template.write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )

    def margin(*flags: str) -> tuple[float, str]:
        flags = ("--models", str(trained), "--reference", str(tiny_llamas[1]), "--limit", "2", *flags)
        code, numbers, _ = evaluate("--pairs", NECTAR, *flags)
        assert code == 0
        measures = numbers["models"][str(trained)]["measures"]
        return measures["pairs, reward margin"]["value"], numbers["flags"]["template"]

    own, chatml = margin(), margin(*CHATML)
    assert own == (margin("--template", str(template))[0], "model")
    assert own[0] != chatml[0] and chatml[1] == "chatml"


def test_a_model_without_a_template_needs_the_template_flag(evaluate, tiny_llamas, capsys) -> None:
    assert evaluate("--pairs", NECTAR)[0] == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"error: --template model, the default: the tokenizer of {tiny_llamas[0]} has no chat template.\n"
        "  Pass --template with the template that the model was trained with: chatml, "
    )


def test_a_prepared_folder_has_its_template_already(evaluate, tiny_llamas, tmp_path, capsys) -> None:
    folder = str(tmp_path / "prepared")
    flags = ("--datasets", NECTAR, "--validation_split", "0.1", "--output", folder)
    assert main(["prepare", "--model_name_or_path", str(tiny_llamas[0]), *flags]) == 0
    assert evaluate("--prepared", folder, "--limit", "2")[0] == 0
    assert evaluate("--prepared", folder, "--template", "zephyr")[0] == 2
    assert "--template cannot be combined with --prepared" in capsys.readouterr().err
