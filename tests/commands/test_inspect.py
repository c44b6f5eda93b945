"""`dpo inspect`."""

import json
import re
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from dpo.cli import main
from tests.builders import SAMPLES
from tests.conftest import WriteRows

ORCA = f"orca_dpo_pairs={SAMPLES / 'orca_dpo_pairs.jsonl'}"


@pytest.fixture
def inspect(chatml_folder: Path, tmp_path: Path):
    def run(*flags: str) -> tuple[int, str]:
        page = tmp_path / "out" / "report.html"
        code = main(["inspect", "--model_name_or_path", str(chatml_folder), "--output", str(page), *flags])
        return code, page.read_text(encoding="utf-8") if page.exists() else ""

    return run


def figures(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="statistics">(.*?)</script>', page, re.DOTALL)
    assert found
    content: dict[str, object] = json.loads(found.group(1))
    return content


def test_sources_and_the_folder_prepared_from_them_give_the_same_figures(
    inspect, chatml_folder: Path, tmp_path: Path, capsys
) -> None:
    flags = ["--datasets", ORCA, "--validation_split", "0.1", "--max_length", "512"]
    code, of_sources = inspect(*flags)
    assert code == 0 and re.search(r"orca_dpo_pairs\.jsonl +124 +120 ", capsys.readouterr().out)
    folder = str(tmp_path / "prepared")
    assert main(["prepare", "--model_name_or_path", str(chatml_folder), *flags, "--output", folder]) == 0
    assert figures(inspect("--prepared", folder)[1]) == figures(of_sources)


@pytest.mark.parametrize(("threshold", "code"), [("identical>2", 0), ("identical>1", 3), ("identical>1%", 3)])
def test_a_measure_above_its_threshold_gives_exit_code_3(inspect, threshold: str, code: int, capsys) -> None:
    assert inspect("--datasets", ORCA, "--fail-on", "tie>50%", threshold)[0] == code
    shown = capsys.readouterr()
    assert ("above the thresholds" in shown.err) is (code == 3)
    assert (f"within the thresholds: tie>50% {threshold}" in shown.out) is (code == 0)


@pytest.mark.parametrize("flags", [("--fail-on", "tie"), ("--fail-on", "teis>3"), ("--prepared", "nowhere"), ()])
def test_a_mistake_gives_exit_code_2(inspect, flags: tuple[str, ...], capsys) -> None:
    sources = () if "--prepared" in flags or not flags else ("--datasets", ORCA)
    assert inspect(*sources, *flags)[0] == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("output", ["page", "page.txt", "folder.html"])
def test_an_output_that_is_not_an_html_file_is_refused(inspect, tmp_path: Path, output: str, capsys) -> None:
    (tmp_path / "folder.html").mkdir()
    assert inspect("--datasets", ORCA, "--output", str(tmp_path / output))[0] == 2
    assert capsys.readouterr().err == f"error: --output {tmp_path / output}: expected a file that ends in .html\n"


def test_stage_sft_shows_no_measure_that_compares_answers(inspect, chatml_folder: Path, tmp_path: Path, capsys) -> None:
    flags = ["--datasets", ORCA, "--stage", "sft"]
    code, page = inspect(*flags, "--fail-on", "refusal>0", "special_token_in_text>0")
    shown = capsys.readouterr()
    assert code == 3 and "special_token_in_text>0: 1 of 124, 0.81%" in shown.err
    assert "answers with" in shown.out and "One answer as the model sees it" in page
    for absent in ("rejected", "longer", "scores", "length_difference"):
        assert absent not in shown.out
    for place in ("differences", "margins", "tokens_rejected"):
        assert f'id="{place}"' not in page
    assert 'id="tokens_chosen"' in page and 'id="waterfall"' in page
    folder = str(tmp_path / "prepared")
    assert main(["prepare", "--model_name_or_path", str(chatml_folder), *flags, "--output", folder]) == 0
    assert figures(inspect("--prepared", folder, "--stage", "sft")[1]) == figures(page)
    assert inspect("--prepared", folder)[0] == 2
    assert "Pass --stage sft" in capsys.readouterr().err


@pytest.mark.parametrize("measure", ["tie", "identical", "conflict", "longer_wins", "inverted", "no_rejected"])
def test_a_threshold_on_two_answers_is_refused_where_there_is_one(inspect, measure: str, capsys) -> None:
    assert inspect("--datasets", ORCA, "--stage", "sft", "--fail-on", f"{measure}>0")[0] == 2
    assert f"--fail-on {measure}>0: {measure} is about the two answers" in capsys.readouterr().err


def test_the_page_loads_nothing_and_text_of_a_row_never_becomes_markup(inspect, write_rows: WriteRows) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    row = {"prompt": evil, "chosen": f"I'm sorry, but I can't {evil}", "rejected": evil}
    _, page = inspect("--datasets", f"triplets={write_rows([row, row | {'prompt': ''}], 'a<b>.jsonl')}")
    assert evil not in page and "<img" not in page and "a<b>" not in page
    assert not re.search(r'(?:src|href)="(?!data:)', page.replace(get_plotlyjs(), ""))
