"""Tests of dpo.data.cleaning.near_duplicates, some of them against an exact comparison of all pairs."""

import random

import pytest

from dpo.data.cleaning.near_duplicates import (
    SIMILARITY,
    are_texts_alike,
    find_near_duplicates,
    parts_of,
    signature,
    similarity,
)
from dpo.records import Preference
from tests.builders import instruction, pair

WORDS = [f"word{i}" for i in range(500)]


def text(seed: int, length: int = 60) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=length))


def with_changes(original: str, number: int) -> str:
    changed = original.split()
    for i in range(number):
        changed[-1 - i] = f"other{i}"
    return " ".join(changed)


def found(pairs: list[Preference]) -> list[tuple[int, int]]:
    return list(find_near_duplicates([signature(p) for p in pairs], pairs.__getitem__))


def test_a_pair_with_small_changes_in_every_part_is_a_near_duplicate():
    first = pair(text(1), text(2), text(3))
    second = pair(*(with_changes(text(seed), 2) for seed in (1, 2, 3)))
    assert found([pair(text(4), text(5), text(6)), first, second, second]) == [(2, 1), (3, 1)]


@pytest.mark.parametrize("part", ["prompt", "chosen", "rejected"])
def test_a_pair_with_one_different_part_is_not_a_near_duplicate(part: str):
    parts = {"prompt": text(1), "chosen": text(2), "rejected": text(3)}
    assert found([pair(**parts), pair(**parts | {part: text(9)})]) == []


def test_instruction_rows_are_compared_by_prompt_and_answer():
    first, alike = instruction(text(1), text(2)), instruction(with_changes(text(1), 2), with_changes(text(2), 2))
    assert found([first, alike, instruction(text(1), text(3)), instruction(text(3), text(2))]) == [(1, 0)]


def test_case_and_spaces_are_ignored():
    assert found([pair("Name a gas!", "Neon.", "Iron."), pair("name a  GAS!", "neon.", "iron.")]) == [(1, 0)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("Good or bad?", "\U0001f44d", "\U0001f44e"), ("Good or bad?", "\U0001f44e", "\U0001f44d")),
        (("Solve x+5=0", "x = -5", "x = 5"), ("Solve x+5=0", "x = 5", "x = -5")),
        (("Fix", "a = b", "a == b"), ("Fix", "a != b", "a <= b")),
        (("Name a gas.", "Neon.", "Iron."), ("Name a gas.", "Argon.", "Iron.")),
    ],
)
def test_short_texts_that_differ_in_a_symbol_or_a_word_are_different(first: tuple[str, ...], second: tuple[str, ...]):
    assert found([pair(*first), pair(*second)]) == []


def test_texts_without_spaces_are_compared_by_characters():
    chosen, other = "氖是一种稀有气体，无色无味，常用于霓虹灯。" * 2, "铁是一种常见的金属，广泛用于建筑和机械制造。" * 2
    assert found(
        [pair("气体？", chosen, other), pair("气体？", chosen + "。", other), pair("气体？", other, chosen)]
    ) == [(1, 0)]


def test_minhash_finds_the_same_pairs_as_a_comparison_of_all_pairs():
    """Many of the 300 pairs are near the threshold: 4 changed words of 40 leave 32 of 40 runs in common."""
    draw = random.Random(0)
    pairs = []
    for group in range(100):
        originals = [text(1000 + 3 * group + i, 40) for i in range(3)]
        pairs += [pair(*(with_changes(t, draw.choice([0, 3, 4, 5])) for t in originals)) for _ in range(3)]
    parts = [parts_of(p) for p in pairs]
    expected, kept = [], []
    for i in range(len(pairs)):
        alike = [
            j for j in kept if all(similarity(a, b) >= SIMILARITY for a, b in zip(parts[i], parts[j], strict=True))
        ]
        if alike:
            expected.append((i, alike[0]))
        else:
            kept.append(i)
    assert 40 < len(expected) < 160
    assert found(pairs) == expected


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        ("Neon.", "neon .", True),
        ("Neon.", "Argon.", False),
        ("", "", True),
        # 26 runs of five words each: 25 of 27 in common, then 21 of 31.
        (" ".join(WORDS[:30]), " ".join([*WORDS[:29], "other"]), True),
        (" ".join(WORDS[:30]), " ".join([*WORDS[:15], "other", *WORDS[16:30]]), False),
    ],
)
def test_two_texts_are_compared_like_parts_of_pairs(first: str, second: str, alike: bool):
    assert are_texts_alike(first, second) is alike
