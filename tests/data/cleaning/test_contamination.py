"""Tests of dpo.data.cleaning.contamination: prompts that training must not contain."""

import json
from pathlib import Path

import pytest

from dpo.data.cleaning.contamination import Contamination
from dpo.errors import ConfigError, SourceError
from tests.builders import assistant, pair, user

LONG = "A train leaves at noon and travels sixty miles an hour for three hours; how far does it go?"


@pytest.mark.parametrize(
    ("prompt", "contaminated"),
    [
        (LONG, True),
        (f"Please answer this: {LONG.upper()} Thank you!", True),
        ("A train leaves at noon and travels sixty miles an hour for two days.", False),
        ("Name a gas.", True),
        ("NAME a gas", True),
        ("Name a gas. Name a metal.", False),
        ("", False),
        (
            "请根据以下文章的内容回答下列问题：谁写了红楼梦？",
            False,
        ),
    ],
)
def test_a_run_of_thirteen_words_or_a_whole_turn_counts(prompt: str, contaminated: bool):
    chinese = "请根据以下文章的内容回答下列问题：中国的首都在哪里？"
    drop = Contamination([LONG, "Name a gas.", chinese]).check(pair(prompt))
    assert (drop is not None) is contaminated
    assert drop is None or drop.reason == "contaminated"


def test_earlier_user_turns_count_and_assistant_turns_do_not():
    check = Contamination(["Name a gas."]).check
    turns = (user("Name a gas."), assistant("Neon."), user("Another?"))
    assert check(pair().model_copy(update={"prompt": turns}))
    assert not check(pair().model_copy(update={"prompt": (user("Hi"), assistant("Name a gas."), user("No."))}))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\nName a gas.\nName a metal.\n"),
        ("a.jsonl", '{"prompt": "Name a gas."}\n{"prompt": "Name a metal."}'),
        ("a.json", json.dumps([{"prompt": [{"role": "user", "content": "Name a gas."}]}, "Name a metal."])),
        ("a.csv", "prompt,answer\nName a gas.,Neon\nName a metal.,Iron\n"),
    ],
)
def test_prompts_are_read_from_files(name: str, content: str, tmp_path: Path):
    file = tmp_path / name
    file.write_text(content)
    check = Contamination.read([str(file)]).check
    assert check(pair("name a gas")) and check(pair("name a metal")) and not check(pair("name a planet"))


@pytest.mark.parametrize(("name", "content"), [("a.md", "Name a gas."), (".", ""), ("missing.txt", None)])
def test_a_missing_file_or_unknown_format_is_an_error(name: str, content: str | None, tmp_path: Path):
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match="--decontaminate"):
        Contamination.read([str(tmp_path / name)])


@pytest.mark.parametrize("content", ['{"question": "Name a gas."}', "{}"])
def test_a_file_without_prompts_is_an_error(content: str, tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(SourceError, match="column 'prompt'"):
        Contamination.read([str(tmp_path / "a.jsonl")])
