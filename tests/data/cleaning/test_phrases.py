"""Tests of dpo.data.cleaning.phrases: refusals and boilerplate."""

import pytest

from dpo.data.cleaning.phrases import find_boilerplate, find_refusal


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m very sorry, but I won’t do that.",
        "I can’t assist with that request.",
        "Sorry, I cannot assist with this request.",
        "Unfortunately, I am unable to browse the internet.",
        "I cannot provide medical advice.",
        "As an AI language model, I am not able to answer personal questions.",
        "I must decline to write that.",
    ],
)
def test_a_refusal_is_found(answer: str):
    assert find_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Neon is a noble gas.",
        "The letter opens with 'I am sorry for your loss'.",
        "Dear Tom, I'm sorry, but Friday is taken. Shall we say Sunday?",
        "I'm sorry, but Friday is taken.",
        'In English: "Unfortunately, I cannot come".',
        "I won't support either team tonight, since both play well.",
        "I can't wait to see the results! Here is the plan.",
        "Cats cannot taste sweetness.",
        "Here is a story. " + "It was a long day. " * 20 + "I'm sorry, but I can't help with that, said the clerk.",
    ],
)
def test_an_answer_that_only_resembles_a_refusal_is_not_found(answer: str):
    assert find_refusal(answer) is None


@pytest.mark.parametrize(
    ("answer", "is_boilerplate"),
    [
        ("Well, as an AI language model, I have no feelings.", True),
        ("I am an AI assistant.", True),
        ("My knowledge cutoff is 2021.", True),
        ("As an example, take neon.", False),
        ("AI is a field of study.", False),
    ],
)
def test_boilerplate_is_found_anywhere_in_an_answer(answer: str, is_boilerplate: bool):
    assert (find_boilerplate(answer) is not None) is is_boilerplate
