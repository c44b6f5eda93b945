r"""berkeley-nest/Nectar: prompts with up to seven answers, ranked by GPT-4. Rank 1 is the best.

A raw row:

    {"prompt": "\n\nHuman: Name a noble gas.\n\nAssistant: ",
     "answers": [{"answer": "Neon.", "model": "gpt-4", "rank": 1.0},
                 {"answer": "Oxygen.", "model": "llama-2-7b-chat", "rank": 2.0}],
     "turns": 1, "num_responses": 2, "source": ["sharegpt"], "good_natured": true}

Prompts can have several turns. Some rows repeat an answer, and a model can appear at two ranks. Pairs of equal text or
equal rank are dropped and counted by the filters that apply to every data set.
"""

from dpo.adapters.base import Adapter, AdapterOptions, Row, pair_ranked, read_list, read_number, read_text, split_turns
from dpo.records import Drop, Message, Preference


def convert(row: Row, options: AdapterOptions) -> list[Preference]:
    answers = [(read_text(answer, "answer"), -read_number(answer, "rank")) for answer in read_list(row, "answers")]
    return pair_ranked(read_prompt(row), answers, options)


def read_prompt(row: Row) -> list[Message]:
    """Read the turns of a prompt, which must end in an empty assistant turn.

    Raises:
        Drop: malformed_prompt, if it does not.
    """
    *turns, last = split_turns(read_text(row, "prompt"))
    if last != Message(role="assistant", content=""):
        raise Drop("malformed_prompt", f"expected '\\n\\nAssistant:' at the end, found {row['prompt'][-40:]!r}")
    return turns


EXAMPLES = (
    (
        {
            "prompt": "\n\nHuman: Name a noble gas.\n\nAssistant: ",
            "answers": [
                {"answer": "Oxygen.", "model": "b", "rank": 2.0},
                {"answer": "Neon.", "model": "a", "rank": 1.0},
                {"answer": "Water.", "model": "c", "rank": 3.0},
            ],
            "turns": 1,
            "num_responses": 3,
            "source": ["sharegpt"],
            "good_natured": True,
        },
        [
            Preference(
                prompt=(Message(role="user", content="Name a noble gas."),),
                chosen="Neon.",
                rejected="Water.",
                score_chosen=-1.0,
                score_rejected=-3.0,
            )
        ],
    ),
    (
        {
            "prompt": "\n\nHuman: Hi!\n\nAssistant: Hello.\n\nHuman: 2 + 2?\n\nAssistant: ",
            "answers": [{"answer": "4", "model": "a", "rank": 1.0}, {"answer": "5", "model": "b", "rank": 2.0}],
            "turns": 2,
            "num_responses": 2,
            "source": ["sharegpt"],
            "good_natured": True,
        },
        [
            Preference(
                prompt=(
                    Message(role="user", content="Hi!"),
                    Message(role="assistant", content="Hello."),
                    Message(role="user", content="2 + 2?"),
                ),
                chosen="4",
                rejected="5",
                score_chosen=-1.0,
                score_rejected=-2.0,
            )
        ],
    ),
    ({"prompt": "no turns here", "answers": []}, [Drop("malformed_prompt")]),
    (
        {"prompt": "\n\nHuman: Hi!\n\nAssistant: ", "answers": [{"answer": "Hello.", "rank": 1.0}]},
        [Drop("too_few_answers")],
    ),
)

ADAPTER = Adapter(
    name="nectar",
    hub_id="berkeley-nest/Nectar",
    split="train",
    columns=("prompt", "answers"),
    convert=convert,
    examples=EXAMPLES,
)
