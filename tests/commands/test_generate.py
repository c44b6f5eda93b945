"""`dpo generate` refuses wrong flags before it reads anything."""

from pathlib import Path

import pytest

from dpo.cli import main
from tests.builders import SAMPLES

NECTAR = f"nectar={SAMPLES / 'nectar.jsonl'}"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--backend", "llama.cpp"), "invalid choice: 'llama.cpp'"),
        (("--output", "rows.txt"), "expected a file whose name ends in .jsonl"),
        (("--output", "folder.jsonl"), "expected a file whose name ends in .jsonl"),
        (("--output", "file/rows.jsonl"), "is a file, expected a folder"),
        (("--top_p", "1.5"), "--top_p: Input should be less than or equal to 1"),
        (("--pick", "longest"), "--pick longest chooses among several candidates"),
        (("--num_candiates", "3"), "Did you mean --num_candidates"),
        (("--max_length", "100"), "unknown flag '--max_length'"),
        (("--datasets",), "no training data: expected --datasets"),
    ],
)
def test_a_mistake_gives_a_message_and_exit_code_2(
    flags: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.jsonl").mkdir()
    Path("file").touch()
    needed = ("--model", "nowhere", "--datasets", NECTAR, "--output", "rows.jsonl")
    assert main(["generate", *needed, *flags]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.out == ""
    assert not Path("rows.jsonl").exists()


def test_help_lists_only_the_flags_that_are_read(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    words = capsys.readouterr().out.split()
    assert {"--model", "--datasets", "--template", "--num_candidates", "--column_chosen"} <= set(words)
    assert not {"--max_length", "--validation_split", "--pairing", "--keep_ties"} & set(words)
