"""Benchmarks on a tiny model: lm-eval's answers are those of the model's own forward pass."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo.errors import ConfigError, SourceError
from dpo.evaluation import benchmarks
from dpo.evaluation.benchmarks import Benchmarks, load_benchmarks
from dpo.evaluation.measures import Measure, average
from dpo.evaluation.suites import FACTS, TASKS, TaskRequest

QUESTIONS = [json.loads(line) for line in (TASKS / f"{FACTS}.jsonl").read_text(encoding="utf-8").splitlines()]
REQUEST = TaskRequest(name=FACTS)


@pytest.fixture(scope="module")
def model(tiny_llamas: tuple[Path, Path]) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llamas[0], dtype=torch.float32)


@pytest.fixture
def measure(model: Any, tiny_llamas: tuple[Path, Path]):
    def run(loaded: Benchmarks, *, limit: int | None = None, uses_template: bool = False) -> dict[str, Measure]:
        tokenizer = AutoTokenizer.from_pretrained(tiny_llamas[0])
        tokenizer.chat_template = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}assistant:"
        return loaded.run(model, tokenizer, batch_size=3, limit=limit, uses_template=uses_template)

    return run


@pytest.fixture
def own_tasks(tmp_path: Path) -> Path:
    """A folder of a user's own tasks.

    `small` has two questions and `smaller` has one. `both` is their group. `shown` has solved examples. The data of
    `far` are on the Hub.
    """
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{key: row[key] for key in ("question", "choices", "answer")} for row in QUESTIONS[:8]]
    for name, part in (("small", rows[:2]), ("smaller", rows[2:3]), ("examples", rows[3:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    write_task(folder, "small")
    write_task(folder, "smaller")
    write_task(folder, "shown", questions="small", fewshot_split="examples")
    write_task(folder, "far", dataset_path="nobody/nothing", dataset_kwargs={})
    group = {"group": "both", "task": ["small", "smaller"], "aggregate_metric_list": [{"metric": "acc"}]}
    (folder / "both.yaml").write_text(json.dumps(group))
    return folder


def write_task(folder: Path, name: str, *, questions: str | None = None, **more: Any) -> None:
    files = {"test": str(folder / f"{questions or name}.jsonl"), "examples": str(folder / "examples.jsonl")}
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}],
    }
    (folder / f"{name}.yaml").write_text(json.dumps(task | more))  # JSON is YAML


def by_hand(model: Any, folder: Path, rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Compute acc and acc_norm of each question: is the answer with the best score, summed or per letter, right?"""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found: tuple[list[float], list[float]] = ([], [])
    for row in rows:
        context = f"Question: {row['question']}\nAnswer:"
        logps = []
        for choice in row["choices"]:
            ids = tokenizer.encode(f"{context} {choice}")
            num_context = len(tokenizer.encode(context))
            with torch.no_grad():
                of_tokens = model(torch.tensor([ids])).logits[0].log_softmax(dim=1)
            logps.append(sum(of_tokens[i - 1, ids[i]].item() for i in range(num_context, len(ids))))
        by_letter = [logp / len(choice) for logp, choice in zip(logps, row["choices"], strict=True)]
        for values, scores in zip(found, (logps, by_letter), strict=True):
            values.append(float(scores.index(max(scores)) == row["answer"]))
    return found


def test_the_answers_to_the_facts_are_those_of_the_model_s_own_forward_pass(model, measure, tiny_llamas) -> None:
    measures = measure(load_benchmarks([REQUEST]), limit=12)
    assert list(measures) == ["dpo_facts, 0-shot, acc", "dpo_facts, 0-shot, acc_norm"]
    expected = by_hand(model, tiny_llamas[0], QUESTIONS[:12])
    assert 0 < sum(expected[0]) < 12, "some answers are right and some are wrong"
    for found, values in zip(measures.values(), expected, strict=True):
        assert list(found.items.values()) == values
        assert (found.value, found.num_items) == (pytest.approx(sum(values) / 12), 12)
        assert found.stderr == pytest.approx((found.value * (1 - found.value) / 11) ** 0.5)


def test_all_forty_facts_are_asked_without_a_limit(measure) -> None:
    assert {found.num_items for found in measure(load_benchmarks([REQUEST])).values()} == {40}


def test_the_average_of_a_suite_is_over_its_own_tasks_only(measure, own_tasks, monkeypatch) -> None:
    suite = (TaskRequest(name="small", metric="acc"), TaskRequest(name="smaller", num_fewshot=0, metric="acc"))
    monkeypatch.setitem(benchmarks.SUITES, "two", suite)
    measures = measure(load_benchmarks([REQUEST], suite="two", include_path=own_tasks), limit=2)
    first, second, _, _, both = measures.values()
    assert list(measures) == [
        *("small, 0-shot, acc", "smaller, 0-shot, acc"),
        *("dpo_facts, 0-shot, acc", "dpo_facts, 0-shot, acc_norm"),
        "two, average",
    ]
    assert both == average([first, second])


def test_a_group_averages_over_questions_or_on_request_over_tasks(measure, own_tasks, monkeypatch) -> None:
    without_defaults(monkeypatch)
    loaded = load_benchmarks([TaskRequest(name="both")], include_path=own_tasks)
    (of_questions,) = measure(loaded).values()
    assert len(of_questions.items) == of_questions.num_items == 3
    assert of_questions.value == pytest.approx(sum(of_questions.items.values()) / 3)
    request = TaskRequest(name="both", metric="acc", averages_tasks=True)
    measures = measure(load_benchmarks([request], include_path=own_tasks))
    (of_tasks,) = measures.values()
    small, smaller = of_tasks.parts
    assert list(measures) == ["both, 0-shot, acc"]
    assert (small.num_items, smaller.num_items) == (2, 1)
    assert of_tasks.value == (small.value + smaller.value) / 2


def test_every_model_is_shown_the_same_examples(measure, own_tasks) -> None:
    loaded = load_benchmarks([TaskRequest(name="shown", num_fewshot=2)], include_path=own_tasks)

    def prompts() -> list[str]:
        measures = measure(loaded)
        assert list(measures) == ["shown, 2-shot, acc"]
        return [instance.args[0] for instance in loaded.loaded["tasks"]["shown"].instances]

    first = prompts()
    assert first[0].count("Answer:") == 3
    assert prompts() == first


def test_questions_are_asked_in_the_chat_template_on_request(measure) -> None:
    loaded = load_benchmarks([REQUEST])
    measure(loaded, limit=1, uses_template=True)
    (prompt,) = {instance.args[0] for instance in loaded.loaded["tasks"][FACTS].instances}
    assert prompt == "user:Question: What is the capital of France?\nAnswer:\nassistant:"


@pytest.mark.parametrize(("kind", "metric"), [("_rolling", "byte_perplexity"), ("", "perplexity")])
def test_a_perplexity_has_no_items_to_compare(measure, own_tasks, kind: str, metric: str) -> None:
    fields = {"doc_to_text": "", "doc_to_target": "{{question}}", "metric_list": [{"metric": metric}]}
    write_task(own_tasks, "text", questions="small", output_type=f"loglikelihood{kind}", **fields)
    measures = measure(load_benchmarks([TaskRequest(name="text")], include_path=own_tasks))
    assert list(measures) == [f"text, 0-shot, {metric}"]
    (found,) = measures.values()
    assert found.value > 1 and found.num_items == 2
    assert not found.items


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([TaskRequest(name="dpo_fact")], "unknown task 'dpo_fact'. Did you mean dpo_facts?"),
        ([TaskRequest(name=FACTS, num_fewshot=3)], "Write --tasks dpo_facts"),
        ([TaskRequest(name="small"), TaskRequest(name="both")], "--tasks both: the task small is requested twice"),
    ],
)
def test_a_mistake_is_reported(requests, message, own_tasks, monkeypatch) -> None:
    without_defaults(monkeypatch)
    with pytest.raises(ConfigError, match=message.replace("?", r"\?").replace(".", r"\.")):
        load_benchmarks(requests, include_path=own_tasks)


def without_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Always leave lm-eval's own tasks out, because reading them takes half a minute."""
    import lm_eval.tasks

    manager = lm_eval.tasks.TaskManager
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", lambda include_path, **_: manager(None, include_path, False))


def test_data_that_cannot_be_downloaded_give_an_error_with_advice(own_tasks) -> None:
    with pytest.raises(SourceError, match=r"task far: cannot be loaded: [\s\S]*--tasks dpo_facts needs no network"):
        load_benchmarks([TaskRequest(name="far")], include_path=own_tasks)


def test_a_task_that_runs_a_model_s_code_is_refused(own_tasks) -> None:
    write_task(own_tasks, "code", questions="small", unsafe_code=True)
    with pytest.raises(ConfigError, match="task code runs code that a model writes"):
        load_benchmarks([TaskRequest(name="code")], include_path=own_tasks)


def test_a_missing_lm_eval_names_the_command_that_installs_it(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install lm-eval==0\.4\.13"):
        load_benchmarks([REQUEST])
