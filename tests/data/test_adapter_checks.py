"""Tests of dpo.data.adapter_checks: each breach of the adapter contract is found and named."""

import re
from pathlib import Path

import pytest

from dpo.adapters import load_adapter
from dpo.cli import main
from dpo.data.adapter_checks import check_adapter
from tests.builders import ROOT

GOOD = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[0]


def broken(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.fixture
def adapter_file(tmp_path: Path) -> Path:
    return tmp_path / "my_votes.py"


def test_the_adapter_in_the_documentation_has_no_problems(adapter_file: Path) -> None:
    adapter_file.write_text(GOOD)
    assert check_adapter(load_adapter(adapter_file)) == []


def test_an_adapter_of_instruction_rows_has_no_problems(adapter_file: Path) -> None:
    alone = broken('        rejected=read_text(row, "bad"),\n', "")
    adapter_file.write_text(alone.replace('                rejected="Oxygen.",\n', ""))
    assert check_adapter(load_adapter(adapter_file)) == []
    adapter_file.with_name("half.py").write_text(broken('        rejected=read_text(row, "bad"),\n', ""))
    (complaint,) = check_adapter(load_adapter(adapter_file.with_name("half.py")))
    assert "rejected=None" in complaint and "rejected='Oxygen.'" in complaint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (broken("A raw row:", "Some rows"), "docstring has no line 'A raw row:'"),
        (broken('"votes": [7, 2]}\n"""', '"note": [7, 2]}\n"""'), "does not show votes"),
        (broken("examples=EXAMPLES", "examples=()"), "EXAMPLES is empty"),
        (broken("examples=EXAMPLES", "examples=(({}, None),)"), r"example 0: expected \(row, \[Preference or Drop"),
        (broken("examples=EXAMPLES", "examples=({},)"), r"example 0: expected \(row, \[Preference or Drop"),
        (broken('columns=("ask", "good", "bad", "votes")', 'columns="ask"'), "columns is 'ask', expected a tuple"),
        (broken("examples=EXAMPLES", "examples=EXAMPLES[1:]"), "example 0 contains no Preference"),
        (broken('"good", "bad", "votes")', '"good", "bad", "date")'), "example 0 lacks date"),
        (broken('hub_id="org/my-votes"', 'hub_id="my-votes"'), "expected org/name"),
        (
            broken('Drop("outvoted")]', 'Drop("tie")]'),
            r"example 1: convert returned\n    Drop\('outvoted', '1 votes against 2'\)\n  but the example states\n"
            r"    Drop\('tie",
        ),
        (broken('row["votes"]\n', 'row["votes"]\n    row["votes"] = None\n'), "convert changed the row"),
        (broken("    yield Preference(", "    return Preference("), "example 0: [^-]*yield"),
        (broken("good, bad = row", "raise SystemError('gone')\n    good, bad = row"), "SystemError"),
        (
            broken('Drop("outvoted", ', 'Drop("was outvoted", ').replace('Drop("outvoted")', 'Drop("was outvoted")'),
            "'was outv",
        ),
    ],
)
def test_a_breach_of_the_contract_is_named(adapter_file: Path, text: str, expected: str) -> None:
    adapter_file.write_text(text)
    complaints = check_adapter(load_adapter(adapter_file))
    assert re.search(expected, "\n".join(complaints)), complaints


def test_an_error_that_only_malformed_rows_cause_is_found(adapter_file: Path) -> None:
    adapter_file.write_text(
        broken("    if good < bad:", "    assert isinstance(good, int), 'votes'\n    if good < bad:")
    )
    complaints = check_adapter(load_adapter(adapter_file))
    assert "convert raised AssertionError: votes" in complaints[0]


def test_the_command_exits_with_2_and_lists_the_problems(
    adapter_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter_file.write_text(broken("A raw row:", "Some rows"))
    assert main(["adapters", "--check", str(adapter_file)]) == 2
    assert "my_votes.py:\n- the module's docstring has no line" in capsys.readouterr().err


def test_the_command_prints_what_it_checked(adapter_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter_file.write_text(GOOD)
    assert main(["adapters", "--check", str(adapter_file)]) == 0
    assert capsys.readouterr().out == "my_votes: 2 examples pass, 2000 malformed rows were counted\n"
    assert main(["adapters", "--adapter", str(adapter_file)]) == 0
    assert "\nmy_votes\n  columns:  ask, good, bad, votes\n" in capsys.readouterr().out
