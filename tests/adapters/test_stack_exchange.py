"""Tests of the stack_exchange adapter: HTML, and answers with scores."""

import pytest

from dpo.adapters.stack_exchange import html_to_markdown
from tests.adapters.rows import convert, reasons


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>One.</p>\n\n<p>Two.</p>", "One.\n\nTwo."),
        ("<p>Use <code>a_b * c</code>.</p>", "Use `a_b * c`."),
        ("<pre><code>if a &lt; b:\n    print(a_b)\n</code></pre>", "```\nif a < b:\n    print(a_b)\n```"),
        ("<p>a</p>\n\n\n<pre><code>f()\n\n\n\ng()\n</code></pre>\n\n\n<p>b</p>", "a\n\n```\nf()\n\n\n\ng()\n```\n\nb"),
        ("<ul><li>one</li><li>two</li></ul>", "* one\n* two"),
        ('<a href="https://example.org">here</a>', "[here](https://example.org)"),
        ("a_b * c # no tags", "a_b * c # no tags"),
        ("<p>broken <b>tags", "broken **tags**"),
    ],
)
def test_html_becomes_markdown(html: str, expected: str) -> None:
    assert html_to_markdown(html) == expected


def test_answers_are_ranked_by_their_score() -> None:
    answers = [{"text": f"<p>{text}</p>", "pm_score": score} for text, score in (("b", 1), ("a", 5), ("c", -1))]
    pairs = convert("stack_exchange", {"question": "<p>q</p>", "answers": answers}, pairing="adjacent")
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("a", "b"), ("b", "c")]  # type: ignore[union-attr]


def test_an_answer_without_a_score_is_a_malformed_row() -> None:
    answers = [{"text": "a", "pm_score": 1}, {"text": "b"}]
    assert reasons("stack_exchange", {"question": "q", "answers": answers}) == ["malformed_row"]
