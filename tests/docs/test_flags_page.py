"""docs/reference/flags.md is what tools/generate_flags.py writes."""

import runpy

from tests.builders import ROOT


def test_the_page_of_flags_is_up_to_date() -> None:
    generator = runpy.run_path(str(ROOT / "tools" / "generate_flags.py"))
    written = generator["PAGE"].read_text(encoding="utf-8")
    assert written == generator["page"](), "run `python tools/generate_flags.py`, and commit docs/reference/flags.md"


def test_every_flag_and_no_value_of_this_machine_is_on_the_page() -> None:
    generator = runpy.run_path(str(ROOT / "tools" / "generate_flags.py"))
    text = generator["page"]()
    for row in (
        "| `--max_length` | `2048` |",
        "| `--fail-on` |",
        "| `--adam_beta2` | `0.999` |",
        "| `--padding_free` |",
    ):
        assert text.count(row) == 1, row
    assert "/home/" not in text and "/root" not in text and str(ROOT) not in text and "python3" not in text


def test_help_texts_become_cells_of_a_table() -> None:
    generator = runpy.run_path(str(ROOT / "tools" / "generate_flags.py"))
    assert generator["escape"]("[WPO](https://host/x) as --loss a|b, [N], 2 * `c*d`") == (
        "WPO as `--loss` a\\|b, \\[N\\], 2 \\* `c*d`"
    )
    assert generator["split_default"]("Longest. Default: 0.5, for dpo. More.") == ("Longest. More.", "0.5, for dpo")
    assert generator["split_default"]("Longest.") == ("Longest.", "")
