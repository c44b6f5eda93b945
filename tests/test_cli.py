"""The command line `dpo`: commands, help, exit codes and signals."""

import dataclasses
import os
import signal
import subprocess
import sys

import pytest

from dpo.adapters import find_adapters
from dpo.cli import main
from dpo.commands.adapters import describe
from dpo.commands.train import PATIENCE_S
from dpo.errors import ConfigError
from dpo.records import Drop
from main import main as train


def test_adapters_shows_name_columns_source_and_a_rendered_example_of_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["adapters"]) == 0
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line and not line.startswith(" ")] == list(find_adapters())
    assert "  columns:  system, question, chosen, rejected\n" in shown
    assert "  source:   Intel/orca_dpo_pairs, split train\n" in shown
    assert "  source:   no default: pass columns=SOURCE\n" in shown
    assert (
        "  prompt:\n"
        "    <|im_start|>system\n"
        "    Be brief.<|im_end|>\n"
        "    <|im_start|>user\n"
        "    Capital of Peru?<|im_end|>\n"
        "    <|im_start|>assistant\n"
        "  chosen:\n"
        "    Lima.<|im_end|>\n"
        "  rejected:\n"
        "    Cusco.<|im_end|>\n"
    ) in shown


def test_an_instruction_adapter_shows_its_answer_and_no_rejected_one() -> None:
    assert describe(find_adapters()["open_orca"]).splitlines()[-8:] == [
        "  prompt:",
        "    <|im_start|>system",
        "    Be brief.<|im_end|>",
        "    <|im_start|>user",
        "    Name a noble gas.<|im_end|>",
        "    <|im_start|>assistant",
        "  chosen:",
        "    Neon.<|im_end|>",
    ]


def test_an_adapter_without_a_pair_among_its_examples_is_shown_without_one() -> None:
    adapter = find_adapters()["triplets"]
    dropped = dataclasses.replace(adapter, examples=(({"prompt": ""}, [Drop("empty_prompt")]),))
    assert describe(dropped).splitlines()[-1] == "  row:      no example gives a pair"
    second = dataclasses.replace(adapter, examples=(*dropped.examples, *adapter.examples))
    assert describe(second) == describe(adapter)


def test_an_unknown_command_exits_with_2_and_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adaptrs"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert "'adaptrs'" in output.err
    assert "'adapters'" in output.err
    assert "Traceback" not in output.err


@pytest.mark.parametrize("argv", [[], ["adapters", "--loud"], ["adapters", "stray"]])
def test_a_missing_command_and_unknown_arguments_exit_with_2(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_help_names_the_commands_and_the_launchers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("usage: dpo [-h] COMMAND ...")
    assert "adapters list the adapters" in shown
    assert "train train a model; the same as main.py in a checkout" in shown
    for launcher in ("deepspeed --module dpo train", "torchrun -m dpo train", "accelerate launch -m dpo train"):
        assert launcher in shown


@pytest.mark.parametrize("before", [[], ["--local_rank=1"], ["--local-rank=0"]])
def test_train_gets_every_word_untouched_and_gives_its_exit_code(
    before: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr("dpo.commands.train.run", given.append)
    words = ["--config", "run.yaml", "--", "--help", "train", "--beta=0.1", ""]
    assert main([*before, "train", *words]) == 0
    assert given == [[*before, *words]]
    monkeypatch.setattr("dpo.commands.train.run", interrupt)
    assert main([*before, "train"]) == 130


def test_train_without_an_argument_list_reads_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr("dpo.commands.train.run", given.append)
    monkeypatch.setattr("sys.argv", ["dpo", "train", "--beta", "0.2"])
    assert main() == 0
    assert given == [["--beta", "0.2"]]


def test_the_error_of_another_rank_is_printed_late_with_its_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: list[str]) -> None:
        raise ConfigError("no data")

    waited: list[float] = []
    monkeypatch.setattr("dpo.commands.train.run", fail)
    monkeypatch.setattr("time.sleep", waited.append)
    for rank, message in (("0", "error: no data\n"), ("1", "error on rank 1: no data\n")):
        monkeypatch.setenv("RANK", rank)
        assert main(["train"]) == 2
        assert capsys.readouterr().err == message
    assert waited == [PATIENCE_S]


@pytest.mark.parametrize("words", [["--loud", "train"], ["--local_rank=x", "train"], ["--local_rank=0", "adapters"]])
def test_other_flags_before_a_command_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert f"unknown flag '{words[0]}'" in capsys.readouterr().err


def test_the_help_of_train_calls_the_program_as_it_was_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for started, call, program in (
        ("dpo", main, "dpo train"),
        ("/x/main.py", lambda words: train(words[1:]), "main.py"),
    ):
        monkeypatch.setattr("sys.argv", [started])
        with pytest.raises(SystemExit) as left:
            call(["train", "--help"])
        assert left.value.code == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: {program} [--config FILE] --datasets SOURCE") and "--loss" in shown


def test_a_closed_output_gives_a_signal_s_exit_code_and_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run([sys.executable, "-m", "dpo", "adapters"], stdout=closed, stderr=subprocess.PIPE)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""


def interrupt(*args: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_command_prints_interrupted_and_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dpo.commands.adapters.describe", interrupt)
    assert main(["adapters"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interrupted_run_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dpo.training.run.run", interrupt)
    assert train([]) == 130
    assert "--resume_from_checkpoint latest" in capsys.readouterr().err
