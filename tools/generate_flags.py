"""Writes docs/reference/flags.md: every flag of main.py and of the commands, from the parsers themselves.

    python tools/generate_flags.py

A flag of main.py that is ours, and not TRL's or transformers', needs a place in GROUPS. This script is not in docs/,
because mkdocs publishes every file there.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dpo import cli  # noqa: E402
from dpo.data.config import DataConfig  # noqa: E402
from dpo.training.settings.checks import REFUSED, REFUSED_BY_PACKED  # noqa: E402
from dpo.training.settings.flags import OWN_FLAGS, make_parser  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "flags.md"

GROUPS = {
    "Run": "config output_dir overwrite_output_dir resume_from_checkpoint save_steps report_to dry_run num_devices",
    "Model and devices": "model_name_or_path model_revision attn_implementation bf16 use_cpu deepspeed device_map",
    "Loss": "loss loss_type loss_weights beta label_smoothing logp_reduction simpo_gamma reference_free "
    "weight_by_score",
    "LoRA": "lora_rank lora_alpha lora_dropout lora_target_modules lora_all_linear use_dora use_rslora load_in_4bit",
    "Batches and learning rate": "global_batch_size per_device_train_batch_size gradient_accumulation_steps "
    "num_train_epochs learning_rate warmup_steps logging_first_step",
    "Engine, memory and reference": "engine max_tokens_per_micro_batch reference_cache no-reference_cache",
    "Evaluation": "eval_strategy eval_steps eval_on_start per_device_eval_batch_size sample_prompts "
    "sample_max_new_tokens",
    "Data: sources": "datasets adapter eval_datasets validation_split prepared stage pairing turns min_score_ratio "
    "column_prompt column_chosen column_rejected column_system column_score_chosen column_score_rejected",
    "Data: template and lengths": "template max_length max_prompt_length max_target_length special_tokens_in_text "
    "add_control_tokens",
    "Data: cleaning": "keep_ties keep_identical min_score_margin drop_refusals drop_duplicates drop_conflicts "
    "drop_leaked_prompts decontaminate balance_length strict",
    "Data: mixing and preparing": "weights max_pairs_per_prompt max_pairs_per_source seed num_proc",
}
"""The flags of main.py that are ours, in the order of the page."""

MOST_EXCEPTIONS = 5
"""Of a command that takes more of main.py's data flags, the missing ones are named instead."""

INTRODUCTION = """\
# Flags

This page lists every flag of `main.py` and of the `dpo` commands, with its default. `python tools/generate_flags.py`
writes it from the program.

An empty default means that the flag is not set. A flag that is true or false needs no value: `--dry_run` means
`--dry_run true`. A flag whose default is "off" takes no value. A YAML file can set every flag of `main.py`, for example
with the line `max_length: 1024`, and `--config` names that file.
"""

LIBRARIES = """
### Flags of TRL and transformers

These flags of TRL's `DPOConfig` and transformers' `TrainingArguments` work too. Each is described by the first sentence
of its library's help. A flag with the default `true` also has a form that turns it off: `--no_NAME`.
"""

REFUSED_TEXT = """
### Refused flags

These flags are not offered. A run that sets one stops with an error:
"""

REFUSED_BY_PACKED_TEXT = """
`--engine packed`, the default, also refuses these. They work with `--engine padded`:
"""


def page() -> str:
    """The whole page, as Markdown."""
    return "".join([INTRODUCTION, *main_sections(), *command_sections()])


def main_sections() -> Iterator[str]:
    """The flags of main.py: ours by group, the libraries', and the refused ones."""
    flags = main_flags()
    yield "\n## main.py\n"
    for title, names in GROUPS.items():
        yield f"\n### {title}\n\n" + table(flags[name] for name in names.split())
    own = {name for names in GROUPS.values() for name in names.split()}
    yield LIBRARIES + "\n"
    yield table((flags[name] for name in sorted(flags.keys() - own - REFUSED.keys())), first_sentence=True)
    for text, refused in ((REFUSED_TEXT, REFUSED), (REFUSED_BY_PACKED_TEXT, REFUSED_BY_PACKED)):
        rows = [f"| `--{name}` | {escape(reason)} |\n" for name, reason in sorted(refused.items())]
        yield f"{text}\n| flag | reason |\n| --- | --- |\n{''.join(rows)}"


def main_flags() -> dict[str, argparse.Action]:
    """The flags of main.py by name, without --help, --no_NAME and the second form of a flag that is defined twice.

    Raises:
        SystemExit: GROUPS does not name exactly our flags.
    """
    flags = flags_of(make_parser())
    grouped = [name for names in GROUPS.values() for name in names.split()]
    own = {*OWN_FLAGS, "config", "no-reference_cache"}
    if wrong := sorted({*own} ^ {*grouped}) + sorted({name for name in grouped if grouped.count(name) > 1}):
        sys.exit(f"GROUPS in {__file__} must name each of our flags once. Missing, unknown or repeated: {wrong}")
    return flags


def flags_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    # transformers' parser adds --no_NAME to each --NAME, and our --bf16 leaves its form with dashes behind.
    by_option = {option: action for action in parser._actions for option in action.option_strings}
    flags = {}
    for action in parser._actions:
        option = action.option_strings[0] if action.option_strings else str(action.metavar)
        replaced = by_option.get(f"--{action.dest}", action) is not action and action.nargs != 0
        if action.dest != "help" and not replaced and not isinstance(action, argparse._StoreFalseAction):
            flags[option.removeprefix("--")] = action
    return flags


def command_sections() -> Iterator[str]:
    """The flags of each command of dpo; those that are main.py's data flags are named without a description."""
    of_data = {name: flag for name, flag in main_flags().items() if name in DataConfig.model_fields}
    (commands,) = [action for action in cli.make_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    summaries = {choice.dest: choice.help for choice in commands._choices_actions}
    for command, parser in sorted(commands.choices.items()):
        summary = str(summaries[command])
        yield f"\n## dpo {command}\n\n{escape(sentence(summary[:1].upper() + summary[1:]))}\n"
        flags = flags_of(parser)
        shared = [name for name, flag in flags.items() if name in of_data and is_same(flag, of_data[name])]
        if not flags:
            yield "\nIts flags are those of `main.py`.\n"
        if own := [flag for name, flag in flags.items() if name not in shared]:
            yield "\n" + table(own)
        if shared:
            yield f"\nIt also takes {listed(shared, all_names=of_data)}.\n"


def listed(names: list[str], *, all_names: Iterable[str]) -> str:
    """Some data flags in words: by name, or all except a few."""
    missing = [name for name in all_names if name not in names]
    if len(missing) <= MOST_EXCEPTIONS:
        exceptions = f", except {codes(missing)}" if missing else ""
        return f"all data flags of `main.py`{exceptions}"
    return f"these data flags of `main.py`: {codes(names)}"


def codes(names: Iterable[str]) -> str:
    return ", ".join(f"`--{name}`" for name in names)


def is_same(flag: argparse.Action, other: argparse.Action) -> bool:
    return (flag.help, flag.default, flag.required) == (other.help, other.default, other.required)


def table(flags: Iterable[argparse.Action], *, first_sentence: bool = False) -> str:
    """One row a flag."""
    rows = [row(flag, first_sentence=first_sentence) for flag in flags]
    return "".join(["| flag | default | meaning |\n", "| --- | --- | --- |\n", *rows])


def row(flag: argparse.Action, *, first_sentence: bool) -> str:
    text = re.sub(r"\s+", " ", (flag.help or "").replace("%%", "%")).strip()
    if first_sentence:
        meaning = re.split(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.) (?=[A-Z`])", text, maxsplit=1)[0]
        default = default_of(flag)
    else:
        meaning, said = split_default(text)
        default = escape(said) if said and said != str(flag.default) else default_of(flag)
        if flag.choices:
            meaning = f"{sentence(meaning)} Values: {', '.join(f'`{choice}`' for choice in flag.choices)}."
    name = flag.option_strings[0] if flag.option_strings else str(flag.metavar)
    return f"| `{name}` | {default} | {escape(sentence(meaning))} |\n"


def split_default(text: str) -> tuple[str, str]:
    """A help text without its sentence 'Default: ...', and what that sentence says."""
    meaning, _, rest = text.partition("Default: ")
    said, _, more = rest.partition(". ")
    return f"{meaning}{more}".strip(), said.removesuffix(".")


def default_of(flag: argparse.Action) -> str:
    value: Any = flag.default
    if flag.required or not flag.option_strings:
        return "required"
    if isinstance(flag, argparse._StoreTrueAction | argparse._StoreConstAction):
        return "off"
    if value in (None, "", argparse.SUPPRESS) or value == () or value == []:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def sentence(text: str) -> str:
    """A text that ends with a period, unless it is empty."""
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def escape(text: str) -> str:
    """Plain text as Markdown in a cell, with flags as code; links become their text."""
    text = re.sub(r"\[([^\]]+)\]\(http[^)]+\)", r"\1", text)
    text = re.sub(r"(?<![\w`-])(--[a-z][\w-]+)", r"`\1`", text)
    parts = text.split("`")  # code is at the odd places
    parts[::2] = [re.sub(r"([\[\]*])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
