"""The command line of a run: the data's flags, ours, TRL's and transformers' in one parser, or in one YAML file."""

__all__ = ["parse_flags", "resolved_flags"]

import dataclasses
import json
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from dpo.data.config import DataConfig
from dpo.errors import ConfigError
from dpo.flags import FlagParser, add_fields, check_flags, flag_names, parse_bool
from dpo.recipe_file import with_config
from dpo.training.settings.checks import REFUSED
from dpo.training.settings.fields import TrainingFields
from dpo.training.settings.resolving import TrainingConfig

OWN_FLAGS = [
    *DataConfig.model_fields,
    *(f.name for f in dataclasses.fields(TrainingConfig) if f.init and f.name in TrainingFields.__annotations__),
    *("output_dir", "learning_rate", "beta", "save_steps"),
]
"""What an error lists. TRL's and transformers' other flags are known as well, too many to read."""


class MainParser(FlagParser, HfArgumentParser):
    """The flags of TrainingConfig, with errors as ConfigErrors."""


def make_parser() -> MainParser:
    # DPOConfig has a seed as well; DataConfig's comes later and wins, for both.
    parser = MainParser(  # type: ignore[misc]
        TrainingConfig,  # type: ignore[arg-type]
        prog="main.py",
        usage="main.py [--config FILE] --datasets SOURCE ... --model_name_or_path M --output_dir DIR [--FLAG VALUE]",
        description="Preference tuning with DPO: raw preference rows in, an aligned model out.",
        allow_abbrev=False,
        conflict_handler="resolve",
    )
    for f in dataclasses.fields(TrainingConfig):
        if f.type == (bool | None) and f.init:  # a bare --bf16 is true, where the parser would want a value
            parser.add_argument(
                f"--{f.name}", nargs="?", const=True, default=f.default, type=parse_bool, help=f.metadata["help"]
            )
    parser.add_argument(
        "--no-reference_cache",
        "--no_reference_cache",
        dest="reference_cache",
        action="store_const",
        const="none",
        default="auto",
        help="--reference_cache none",
    )
    parser.add_argument("--config", type=Path, help="YAML file of flags; the command line goes before it.")
    add_fields(parser, DataConfig, "data")
    lead_with(parser, OWN_FLAGS, "run")
    return parser


def lead_with(parser: MainParser, names: list[str], title: str) -> None:
    """Show these flags in a group of their own at the top of --help, the libraries' at its end."""
    libraries, *own_groups = parser._action_groups[1:]
    group = parser.add_argument_group(title)
    for action in [action for action in libraries._group_actions if action.dest in {*names, "config"}]:
        libraries._group_actions.remove(action)
        group._group_actions.append(action)
    libraries.title = "of TRL and transformers"
    parser._action_groups = [group, *own_groups, libraries]


def parse_flags(argv: list[str]) -> tuple[DataConfig, dict[str, Any]]:
    """Read a command line, and the YAML file it names.

    Returns:
        The data's part, checked, and the keyword arguments of TrainingConfig, which starts devices when built.

    Raises:
        ConfigError: a flag is unknown, or a value is wrong.
    """
    parser = make_parser()
    first_look = FlagParser(prog="main.py", add_help=False, allow_abbrev=False)
    first_look.add_argument("--loss", nargs="+")
    first_look.add_argument("--loss_type", "--loss-type", nargs="+")
    first_look.add_argument("--loss_weights", "--loss-weights", nargs="+", type=float)
    by_hand = vars(first_look.parse_known_args(argv)[0])
    positive = [name for name in flag_names(parser) if not name.startswith("no_")]
    namespace, unknown = parser.parse_known_args(with_config(argv, positive, shown=OWN_FLAGS))
    check_flags(parser, unknown, shown=OWN_FLAGS)
    values = vars(namespace)
    if any(by_hand.values()):  # what the file says by another name of the same must not stand beside it
        values |= by_hand
    data = DataConfig.from_flags({name: values[name] for name in DataConfig.model_fields})
    training = {f.name: values[f.name] for f in dataclasses.fields(TrainingConfig) if f.init}
    return data, training | evaluation_flags(training, holds_out=data.holds_out)


def evaluation_flags(flags: dict[str, Any], *, holds_out: bool) -> dict[str, Any]:
    """When to evaluate: as the user said, else before the first step and four times on the way.

    Raises:
        ConfigError: evaluation was asked for and nothing is held out.
    """
    strategy, steps, on_start = flags["eval_strategy"], flags["eval_steps"], flags["eval_on_start"]
    if not holds_out:
        if strategy not in (None, "no") or on_start or (steps is not None and strategy is None):
            raise ConfigError(
                "evaluation is asked for, but nothing is held out.\n"
                "  Pass --validation_split 0.05 or --eval_datasets ADAPTER=SOURCE, here or to `dpo prepare`."
            )
        return {}
    return {
        "eval_strategy": strategy or "steps",
        "eval_steps": 0.25 if steps is None else steps,
        "eval_on_start": True if on_start is None else on_start,
    }


def resolved_flags(data: DataConfig, training: TrainingConfig) -> dict[str, Any]:
    """Every flag with the value the run used, to be written down and passed as --config again."""
    flags = json.loads(training.to_json_string())
    flags |= {"deepspeed": training.deepspeed_file, "local_rank": None, "hub_token": None}
    flags["gradient_accumulation_steps"] = training.accumulation_asked
    flags |= {"loss_type": None, "loss_weights": None}  # loss says it, where there are several to choose from
    if training.stage == "sft":
        flags["loss"] = None
    flags["report_to"] = flags["report_to"] or "none"
    known = {f.name for f in dataclasses.fields(TrainingConfig) if f.init} - REFUSED.keys()
    # What a preparation has decided stands in its manifest.
    of_data = data.model_dump(mode="json", include=None if data.prepared is None else {"prepared", "seed", "stage"})
    return {name: value for name, value in flags.items() if name in known} | of_data
