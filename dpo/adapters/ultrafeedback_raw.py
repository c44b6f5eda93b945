"""openbmb/UltraFeedback: prompts with four answers, each rated by GPT-4 on four aspects.

A raw row:

    {"source": "sharegpt", "instruction": "Name a noble gas.", "models": ["gpt-4", "llama-2-7b-chat"],
     "completions": [{"model": "gpt-4", "response": "Neon.", "overall_score": 9.0, "fine-grained_score": 4.75},
                     {"model": "llama-2-7b-chat", "response": "Oxygen.", "overall_score": 10.0,
                      "fine-grained_score": 1.5}],
     "correct_answers": ["None"], "incorrect_answers": ["None"]}

Answers are ranked by `fine-grained_score`, the mean of the four ratings. `overall_score` is not read: in the published
rows, some answers with low ratings have an overall score of 10 that was meant to be 1.0.
"""

from dpo.adapters.base import Adapter, AdapterOptions, Row, pair_ranked, read_list, read_number, read_text
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> list[Preference]:
    instruction = Message(role="user", content=read_text(row, "instruction"))
    answers = [
        (read_text(completion, "response"), read_number(completion, "fine-grained_score"))
        for completion in read_list(row, "completions")
    ]
    return pair_ranked((instruction,), answers, options)


def _completion(response: str, score: float) -> dict[str, object]:
    return {"model": "a", "response": response, "overall_score": 9.0, "fine-grained_score": score}


EXAMPLES = (
    (
        {
            "source": "sharegpt",
            "instruction": "Name a noble gas.",
            "models": ["a", "b", "c"],
            "completions": [_completion("Oxygen.", 2.0), _completion("Neon.", 4.75), _completion("Water.", 1.5)],
            "correct_answers": ["None"],
            "incorrect_answers": ["None"],
        },
        [
            Preference(
                prompt=(Message(role="user", content="Name a noble gas."),),
                chosen="Neon.",
                rejected="Water.",
                score_chosen=4.75,
                score_rejected=1.5,
            )
        ],
    ),
    ({"instruction": "Name a noble gas.", "completions": []}, [Drop("too_few_answers")]),
)

ADAPTER = Adapter(
    name="ultrafeedback_raw",
    hub_id="openbmb/UltraFeedback",
    split="train",
    columns=("instruction", "completions"),
    convert=convert,
    examples=EXAMPLES,
)
