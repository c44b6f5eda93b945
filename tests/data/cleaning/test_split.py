"""Tests of dpo.data.cleaning.split: the split by prompt."""

import random

import pytest

from dpo.data.cleaning.split import opening_key, prompt_key, split_by_prompt
from dpo.records import Preference
from tests.builders import assistant, pair, system, user


def keys(*counts: int) -> list[bytes]:
    """Return keys in which each prompt occurs so many times: 2, 1 gives two equal keys and a different one."""
    return [f"prompt-{number:011}".encode() for number, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize(
    ("num_prompts", "fraction", "num_held_out"),
    [
        (10, 0.2, 2),
        (10, 0.0, 0),
        (100, 0.13, 13),
        (10, 0.04, 0),
        (10, 0.06, 1),
        (10, 0.99, 10),
        (3, 0.5, 2),
        (0, 0.5, 0),
    ],
)
def test_the_held_out_share_is_the_fraction_rounded_to_a_pair(
    num_prompts: int, fraction: float, num_held_out: int
) -> None:
    train, held_out = split_by_prompt(keys(*[1] * num_prompts), fraction, seed=42)
    assert (len(train), len(held_out)) == (num_prompts - num_held_out, num_held_out)


def test_every_index_is_on_one_side_in_ascending_order() -> None:
    train, held_out = split_by_prompt(keys(*[3] * 40), 0.25, seed=42)
    assert train == sorted(train)
    assert held_out == sorted(held_out)
    assert sorted(train + held_out) == list(range(120))


@pytest.mark.parametrize("seed", range(20))
def test_no_prompt_is_on_both_sides(seed: int) -> None:
    all_keys = keys(*[1, 2, 3, 4, 5] * 8)
    random.Random(seed).shuffle(all_keys)
    train, held_out = split_by_prompt(all_keys, 0.3, seed)
    assert {all_keys[i] for i in train}.isdisjoint(all_keys[i] for i in held_out)
    assert 36 <= len(held_out) <= 36 + 4  # 0.3 of 120 pairs, plus at most the remaining pairs of one prompt


def test_the_seed_decides_which_pairs_are_held_out() -> None:
    all_keys = keys(*[1] * 100)
    assert split_by_prompt(all_keys, 0.2, seed=1) == split_by_prompt(all_keys, 0.2, seed=1)
    assert split_by_prompt(all_keys, 0.2, seed=1) != split_by_prompt(all_keys, 0.2, seed=2)
    assert len(split_by_prompt(all_keys, 0.2, seed=-1)[1]) == 20


def test_the_order_of_the_pairs_does_not_matter() -> None:
    all_keys = keys(*[1, 2] * 30)
    shuffled = random.Random(0).sample(all_keys, len(all_keys))
    held_out = {all_keys[i] for i in split_by_prompt(all_keys, 0.2, seed=42)[1]}
    assert {shuffled[i] for i in split_by_prompt(shuffled, 0.2, seed=42)[1]} == held_out


def test_a_larger_fraction_holds_out_the_same_prompts_and_more() -> None:
    all_keys = keys(*[1] * 100)
    small, large = (set(split_by_prompt(all_keys, fraction, seed=42)[1]) for fraction in (0.1, 0.3))
    assert small < large


def test_all_pairs_of_a_held_out_prompt_are_held_out() -> None:
    train, held_out = split_by_prompt(keys(10), 0.1, seed=42)
    assert (train, held_out) == ([], list(range(10)))


def test_the_key_depends_only_on_the_prompt() -> None:
    key = prompt_key(pair("Hi!", "a", "b"))
    assert prompt_key(pair("Hi!", "c", "d", source="s", row=3, score_chosen=1.0)) == key
    assert prompt_key(pair("Hi! ", "a", "b")) != key
    assert len(key) == 16


def test_the_key_depends_on_roles_and_turns() -> None:
    prompts = [
        (user("a"), user("b")),
        (system("a"), user("b")),
        (user("a"), assistant("b"), user("")),
        (user("a user b"),),
        (user("b"),),
    ]
    assert len({prompt_key(Preference(prompt=prompt, chosen="x", rejected="y")) for prompt in prompts}) == 5


def test_prompts_of_one_conversation_have_one_opening_key() -> None:
    first = Preference(prompt=(system("Be brief."), user("Hi!")), chosen="Hello.")
    later = Preference(prompt=(*first.prompt, assistant("Hello."), user("2 + 2?")), chosen="4")
    assert opening_key(first) == opening_key(later) == prompt_key(first) != prompt_key(later)
    greeted = Preference(prompt=(assistant("Hello."), user("Hi!")), chosen="How are you?")
    other = Preference(prompt=(assistant("Hello."), user("2 + 2?")), chosen="4")
    assert len({opening_key(row) for row in (first, greeted, other)}) == 3
