"""Compares the text and the token ids of every pair with those of transformers, for a template and a tokenizer.

    python benchmarks/parity.py --datasets ultrafeedback=rows.jsonl --template model

Pairs are compared before any filter. apply_chat_template always uses the tokenizer's own template. So with another
template, only rows on which both templates should agree are meaningful. Many templates add a system message to a row
without one, and --with_system leaves out these rows.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dpo.data.config import DataConfig  # noqa: E402 - imported after sys.path names the checkout
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
    parser.add_argument("--with_system", action="store_true", help="Compare only rows that have a system message.")
    options = parser.parse_args()
    model = find_model(options.model)
    config = DataConfig.from_flags({name: getattr(options, name) for name in DataConfig.model_fields})
    counts = compare(config, model, with_system=options.with_system)
    print(f"template {options.template}: {counts.pop('pairs', 0)} pairs compared")
    for finding in ("text differs", "ids differ", "prompt not a prefix", "boundary_shift"):
        print(f"{finding:<20}{counts.pop(finding, 0):>6}")
    for finding, count in counts.items():
        print(f"{finding:<20}{count:>6}")


def compare(config: DataConfig, model: str, *, with_system: bool) -> Counter[str]:
    """Count the differences over all pairs of the sources."""
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
    """Return the differences of one pair, each counted once."""
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
    # Compare up to the end-of-turn token. Text that a template writes after it is not trained on.
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
        "prompt not a prefix": not is_prefix,
        "boundary_shift": pair.boundary_shift,
    }
    return Counter(name for name, found in findings.items() if found)


if __name__ == "__main__":
    main()
