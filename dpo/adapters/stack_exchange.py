"""HuggingFaceH4/stack-exchange-preferences: questions with their answers and votes, in HTML.

A raw row:

    {"qid": 7, "question": "<p>How do I print in <b>Python</b>?</p>",
     "answers": [{"answer_id": 8, "author": "a", "pm_score": 4, "selected": true,
                  "text": "<p>Call:</p><pre><code>print('hi')</code></pre>"},
                 {"answer_id": 9, "author": "b", "pm_score": 0, "selected": false, "text": "<p>Google it.</p>"}],
     "date": "2015/01/02", "metadata": ["https://stackoverflow.com"]}

`pm_score` is round(log2(1 + votes)), plus 1 for the accepted answer, and -1 for a negative number of votes (Askell et
al. 2021, arXiv:2112.00861). HTML is converted to Markdown.
"""

import re

from dpo.adapters.base import Adapter, AdapterOptions, Row, pair_ranked, read_list, read_number, read_text
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> list[Preference]:
    question = Message(role="user", content=html_to_markdown(read_text(row, "question")))
    answers = [
        (html_to_markdown(read_text(answer, "text")), read_number(answer, "pm_score"))
        for answer in read_list(row, "answers")
    ]
    return pair_ranked((question,), answers, options)


def html_to_markdown(html: str) -> str:
    from markdownify import markdownify  # takes 0.1 s, and only this adapter needs it

    text = markdownify(html, heading_style="ATX", escape_asterisks=False, escape_underscores=False, escape_misc=False)
    # Shorten runs of blank lines between paragraphs, which come from the markup, but not those inside fenced code.
    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else re.sub(r"\n{3,}", "\n\n", part) for part in parts).strip()


def _answer(text: str, pm_score: int) -> dict[str, object]:
    return {"answer_id": 8, "author": "a", "pm_score": pm_score, "selected": False, "text": text}


_QUESTION = "<p>How do I print in <b>Python</b>?</p>"

EXAMPLES = (
    (
        {
            "qid": 7,
            "question": _QUESTION,
            "answers": [
                _answer("<p>Google it.</p>", 0),
                _answer("<p>Call:</p><pre><code>print('hi')\n</code></pre>", 4),
            ],
            "date": "2015/01/02",
            "metadata": ["https://stackoverflow.com"],
        },
        [
            Preference(
                prompt=(Message(role="user", content="How do I print in **Python**?"),),
                chosen="Call:\n\n```\nprint('hi')\n```",
                rejected="Google it.",
                score_chosen=4,
                score_rejected=0,
            )
        ],
    ),
    ({"question": _QUESTION, "answers": [_answer("<p>Google it.</p>", 0)]}, [Drop("too_few_answers")]),
)

ADAPTER = Adapter(
    name="stack_exchange",
    hub_id="HuggingFaceH4/stack-exchange-preferences",
    split="train",
    columns=("question", "answers"),
    convert=convert,
    examples=EXAMPLES,
)
