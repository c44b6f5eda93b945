"""Tests of dpo.flags: flags from pydantic fields, and flags from YAML files."""

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from dpo.errors import ConfigError
from dpo.flags import FlagParser, add_fields, check_flags, flag_names, flags_to_argv, read_yaml


class Settings(BaseModel):
    """Settings of the tests."""

    names: tuple[str, ...] = Field(default=(), description="Several words.")
    rate: float = Field(default=0.5, description="50% at first.")
    count: int | None = None
    mode: Literal["fast", "exact"] = "fast"
    loud: bool = False
    title: str = "plain"


@pytest.fixture
def parser() -> FlagParser:
    parser = FlagParser(prog="program", allow_abbrev=False)
    add_fields(parser, Settings, "settings")
    return parser


def parse(parser: FlagParser, *argv: str) -> dict[str, Any]:
    return vars(parser.parse_args(argv))


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def yaml_to_argv(file: Path, known: list[str]) -> list[str]:
    return flags_to_argv(read_yaml(file), known, where=str(file))


def from_yaml(parser: FlagParser, tmp_path: Path, text: str, *argv: str) -> dict[str, Any]:
    return parse(parser, *yaml_to_argv(write(tmp_path, text), flag_names(parser)), *argv)


def test_every_field_is_a_flag_with_its_default(parser: FlagParser) -> None:
    assert parse(parser) == {
        "names": (),
        "rate": 0.5,
        "count": None,
        "mode": "fast",
        "loud": False,
        "title": "plain",
    }


def test_values_have_the_types_of_their_fields(parser: FlagParser) -> None:
    argv = ["--names", "a", "b", "--rate", "1e-6", "--count", "3", "--mode", "exact", "--title", "7"]
    assert parse(parser, *argv) == {
        "names": ["a", "b"],
        "rate": 0.000001,
        "count": 3,
        "mode": "exact",
        "loud": False,
        "title": "7",
    }


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--loud"], True),
        (["--loud", "true"], True),
        (["--loud", "Yes"], True),
        (["--loud", "1"], True),
        (["--loud", "on"], True),
        (["--loud", "False"], False),
        (["--loud", "no"], False),
        (["--loud", "0"], False),
        (["--loud", "off"], False),
        (["--loud", "--loud", "false"], False),
    ],
)
def test_a_boolean_is_a_bare_flag_or_a_word(parser: FlagParser, words: list[str], value: bool) -> None:
    assert parse(parser, *words)["loud"] is value


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--loud", "perhaps"], "expected true or false, found 'perhaps'"),
        (["--count", "many"], "argument --count: invalid int value: 'many'"),
        (["--mode", "slow"], "argument --mode: invalid choice: 'slow'"),
        (["--rate"], "argument --rate: expected one argument"),
    ],
)
def test_a_wrong_value_is_a_config_error_of_two_lines(parser: FlagParser, argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parser.parse_args(argv)
    first, second = str(caught.value).split("\n")
    assert message in first
    assert second == "  program --help lists every flag."


def test_help_shows_descriptions_and_defaults(parser: FlagParser) -> None:
    text = " ".join(parser.format_help().split())
    assert "50% at first. Default: 0.5." in text
    assert "Several words." in text
    assert "Default: None" not in text
    assert "Settings of the tests." in text


def test_an_unknown_flag_is_reported_with_similar_and_available_flags(parser: FlagParser) -> None:
    _, unknown = parser.parse_known_args(["--cuont", "3"])
    with pytest.raises(ConfigError) as caught:
        check_flags(parser, unknown)
    message = str(caught.value)
    assert "unknown flag '--cuont'. Did you mean --count" in message
    assert "Available: --count, --help, --loud, --mode, --names, --rate, --title" in message


def test_a_word_that_follows_no_flag_is_refused(parser: FlagParser) -> None:
    _, unknown = parser.parse_known_args(["stray"])
    with pytest.raises(ConfigError, match="unexpected word 'stray'"):
        check_flags(parser, unknown)


def test_known_flags_raise_no_error(parser: FlagParser) -> None:
    _, unknown = parser.parse_known_args(["--count", "3"])
    check_flags(parser, unknown)
    assert unknown == []


def test_a_yaml_file_sets_its_flags(parser: FlagParser, tmp_path: Path) -> None:
    text = "names: [a, b]\nrate: 0.25\ncount: null\nmode: exact\nloud: true\ntitle: ''\n"
    assert from_yaml(parser, tmp_path, text) == {
        "names": ["a", "b"],
        "rate": 0.25,
        "count": None,
        "mode": "exact",
        "loud": True,
        "title": "",
    }


@pytest.mark.parametrize("number", ["1e-6", "1.0e-6", "0.000001", "'1e-6'", "1E-6"])
def test_scientific_notation_is_a_number_however_yaml_reads_it(parser: FlagParser, tmp_path: Path, number: str) -> None:
    assert from_yaml(parser, tmp_path, f"rate: {number}")["rate"] == 0.000001


@pytest.mark.parametrize("number", ["-1", "-0.5", "-1e-6"])
def test_a_negative_number_in_yaml_reaches_its_field(parser: FlagParser, tmp_path: Path, number: str) -> None:
    assert from_yaml(parser, tmp_path, f"rate: {number}")["rate"] == float(number)


@pytest.mark.parametrize("text", ["-draft-", "--title", "- - -"])
def test_text_in_yaml_that_looks_like_a_flag_is_still_text(parser: FlagParser, tmp_path: Path, text: str) -> None:
    assert from_yaml(parser, tmp_path, f"title: '{text}'")["title"] == text


@pytest.mark.parametrize(("word", "value"), [("true", True), ("yes", True), ("false", False), ("'off'", False)])
def test_booleans_of_yaml_are_booleans(parser: FlagParser, tmp_path: Path, word: str, value: bool) -> None:
    assert from_yaml(parser, tmp_path, f"loud: {word}")["loud"] is value


def test_an_empty_list_and_null_leave_a_flag_out(parser: FlagParser, tmp_path: Path) -> None:
    values = from_yaml(parser, tmp_path, "names: []\ncount: null\ntitle:\n")
    assert list(values["names"]) == []
    assert values["count"] is None
    assert values["title"] == "plain"


def test_the_command_line_overrides_the_file(parser: FlagParser, tmp_path: Path) -> None:
    values = from_yaml(parser, tmp_path, "names: [a, b]\nrate: 0.25\n", "--rate", "0.75", "--names", "c")
    assert (values["rate"], values["names"]) == (0.75, ["c"])


def test_a_mapping_in_yaml_is_written_as_json(parser: FlagParser, tmp_path: Path) -> None:
    assert from_yaml(parser, tmp_path, "title:\n  a: 1\n  b: [x]\n")["title"] == '{"a": 1, "b": ["x"]}'


def test_an_unknown_key_is_reported_with_the_available_keys(tmp_path: Path) -> None:
    file = write(tmp_path, "cuont: 3")
    with pytest.raises(ConfigError) as caught:
        yaml_to_argv(file, ["rate", "count"])
    assert str(caught.value) == (f"{file}: unknown key 'cuont'. Did you mean count?\n  Available: count, rate")


def test_a_key_that_is_not_text_is_unknown_rather_than_a_crash(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown key 'True'"):
        yaml_to_argv(write(tmp_path, "on: 3"), ["rate"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- rate\n- 1\n", "expected 'name: value' lines, found list"),
        ("rate", "expected 'name: value' lines, found str"),
        ("", "expected 'name: value' lines, found NoneType"),
        ("rate: [1", "not valid YAML"),
        ("rate: 1\n\tcount: 2", "not valid YAML"),
        ("rate: 1\ncount: 2\nrate: 3", "the key 'rate' is repeated, in lines 1 and 3"),
    ],
)
def test_a_file_without_a_mapping_is_a_config_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        yaml_to_argv(write(tmp_path, text), ["rate", "count"])


def test_a_file_that_is_missing_or_not_text_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        yaml_to_argv(tmp_path / "none.yaml", [])
    with pytest.raises(ConfigError, match="cannot be read"):
        yaml_to_argv(tmp_path, [])
    (tmp_path / "binary.yaml").write_bytes(b"rate: \xff\xfe")
    with pytest.raises(ConfigError, match="not valid YAML"):
        yaml_to_argv(tmp_path / "binary.yaml", ["rate"])
