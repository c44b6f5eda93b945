"""Texts and ids of every pair beside transformers' own, for a template and a tokenizer.

    python benchmarks/parity.py --datasets ultrafeedback=rows.jsonl --template model

Pairs are compared before any filter. A template other than the tokenizer's own is compared with apply_chat_template
under the tokenizer's, so that only rows on which the two should agree say something: --with_system takes those that
have a system message, which many templates write for themselves where a row has none.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dpo.data.config import DataConfig  # noqa: E402 - the checkout is found first
from dpo.data.conversion import convert_row  # noqa: E402
from dpo.data.reading.opening import open_source  # noqa: E402
from dpo.data.reading.source import parse_source  # noqa: E402
from dpo.data.rendering.encoding import EncodedPair, PairEncoder  # noqa: E402
from dpo.data.rendering.template import load_template  # noqa: E402
from dpo.data.rendering.tokenization import load_tokenizer  # noqa: E402
from dpo.flags import add_fields  # noqa: E402
from dpo.models.embedded import EMBEDDED, find_model  # noqa: E402
from dpo.records import Preference  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=EMBEDDED)
    add_fields(parser, DataConfig, "data")
    parser.set_defaults(datasets=[f"nectar={ROOT}/samples/nectar.jsonl"], template="model")
    parser.add_argument("--with_system", action="store_true", help="Only rows that have a system message.")
    options = parser.parse_args()
    model = find_model(options.model)
    config = DataConfig.from_flags({name: getattr(options, name) for name in DataConfig.model_fields})
    counts = compare(config, model, with_system=options.with_system)
    print(f"template {options.template}: {counts.pop('pairs', 0)} pairs compared")
    for what in ("text differs", "ids differ", "prompt is no prefix", "boundary_shift"):
        print(f"{what:<20}{counts.pop(what, 0):>6}")
    for what, count in counts.items():
        print(f"{what:<20}{count:>6}")


def compare(config: DataConfig, model: str, *, with_system: bool) -> Counter[str]:
    """Count where the two differ, over all pairs of the sources."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(model)
    ours = load_tokenizer(model)
    template = load_template(config.template, own=ours.chat_template, special_tokens=ours.special_tokens)
    encoder = PairEncoder(template, ours, special_tokens_in_text="keep")
    counts: Counter[str] = Counter()
    adapter_options = config.adapter_options()
    for source in map(parse_source, config.datasets):
        for _, row in open_source(source, adapter_options.columns):
            for preference in convert_row(row, source.adapter, adapter_options):
                if not isinstance(preference, Preference):
                    counts[f"dropped: {preference.reason}"] += 1
                elif not with_system or preference.prompt[0].role == "system":
                    counts.update(compare_pair(preference, encoder, theirs))
    return counts


def compare_pair(preference: Preference, encoder: PairEncoder, theirs: Any) -> Counter[str]:
    """What differs for one pair, each counted once."""
    prompt = [message.model_dump() for message in preference.prompt]
    wholes = [[*prompt, {"role": "assistant", "content": text}] for text in preference.answers]
    their_texts = (
        theirs.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True),
        *(theirs.apply_chat_template(whole, tokenize=False) for whole in wholes),
    )
    (pair,) = encoder.encode([preference])
    if not isinstance(pair, EncodedPair):
        return Counter([f"dropped: {pair.reason}"])
    their_prompt = theirs.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    # Up to the end-of-turn token: what a template writes behind it is not trained on.
    same_ids = their_prompt == pair.prompt_ids and all(
        theirs.apply_chat_template(whole, return_dict=False)[: len(pair.prompt_ids) + len(completion)]
        == pair.prompt_ids + completion
        for whole, completion in zip(wholes, filter(len, (pair.chosen_ids, pair.rejected_ids)), strict=True)
    )
    is_prefix = all(
        encoder.tokenizer.encode([text])[0][: len(pair.prompt_ids)] == pair.prompt_ids
        for text in encoder.render(preference)[1:]
    )
    findings = {
        "pairs": True,
        "text differs": their_texts != encoder.render(preference),
        "ids differ": not same_ids,
        "prompt is no prefix": not is_prefix,
        "boundary_shift": pair.boundary_shift,
    }
    return Counter(name for name, found in findings.items() if found)


if __name__ == "__main__":
    main()
