"""Parses a run's command line and YAML file: the flags of the data, of this project, of TRL and of transformers."""

__all__ = ["parse_flags", "resolved_flags"]

import dataclasses
import json
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from dpo.data.config import DataConfig
from dpo.errors import ConfigError
from dpo.flags import FlagParser, add_fields, check_flags, flag_names, parse_bool, training_program
from dpo.recipe_file import with_config
from dpo.training.settings.checks import REFUSED
from dpo.training.settings.fields import TrainingFields
from dpo.training.settings.resolving import TrainingConfig

OWN_FLAGS = [
    *DataConfig.model_fields,
    *(f.name for f in dataclasses.fields(TrainingConfig) if f.init and f.name in TrainingFields.__annotations__),
    *("output_dir", "learning_rate", "beta", "save_steps"),
]
"""Flags that an error message lists. The other flags of TRL and transformers work too, but are too many to list."""


class MainParser(FlagParser, HfArgumentParser):
    """Parser for the flags of TrainingConfig. It raises ConfigError instead of exiting."""


def make_parser() -> MainParser:
    # DPOConfig and DataConfig both have a seed. DataConfig's is added later, replaces the other and sets both.
    parser = MainParser(  # type: ignore[misc]
        TrainingConfig,  # type: ignore[arg-type]
        prog=training_program(),
        usage="%(prog)s [--config FILE] --datasets SOURCE ... --model_name_or_path M --output_dir DIR [--FLAG VALUE]",
        description="Preference tuning with DPO: raw preference rows in, an aligned model out.",
        allow_abbrev=False,
        conflict_handler="resolve",
    )
    for f in dataclasses.fields(TrainingConfig):
        if f.type == (bool | None) and f.init:  # HfArgumentParser would require a value; a bare --bf16 means true
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
        help="Same as --reference_cache none.",
    )
    parser.add_argument("--config", type=Path, help="YAML file of flags. Flags on the command line override it.")
    add_fields(parser, DataConfig, "data")
    move_to_top(parser, OWN_FLAGS, "run")
    return parser


def move_to_top(parser: MainParser, names: list[str], title: str) -> None:
    """Show these flags in a separate group at the top of --help, and the libraries' flags at its end."""
    libraries, *own_groups = parser._action_groups[1:]
    group = parser.add_argument_group(title)
    for action in [action for action in libraries._group_actions if action.dest in {*names, "config"}]:
        libraries._group_actions.remove(action)
        group._group_actions.append(action)
    libraries.title = "flags of TRL and transformers"
    parser._action_groups = [group, *own_groups, libraries]


def parse_flags(argv: list[str]) -> tuple[DataConfig, dict[str, Any]]:
    """Read a command line, and the YAML file that it names with --config.

    Args:
        argv: The command line without the program's name.

    Returns:
        The flags of the data, checked, and the keyword arguments of TrainingConfig. They are not a TrainingConfig yet,
        because building one starts devices.

    Raises:
        ConfigError: if a flag is unknown, or a value is wrong.
    """
    parser = make_parser()
    loss_parser = FlagParser(prog=training_program(), add_help=False, allow_abbrev=False)
    loss_parser.add_argument("--loss", nargs="+")
    loss_parser.add_argument("--loss_type", "--loss-type", nargs="+")
    loss_parser.add_argument("--loss_weights", "--loss-weights", nargs="+", type=float)
    on_command_line = vars(loss_parser.parse_known_args(argv)[0])
    positive = [name for name in flag_names(parser) if not name.startswith("no_")]
    namespace, unknown = parser.parse_known_args(with_config(argv, positive, shown=OWN_FLAGS))
    check_flags(parser, unknown, shown=OWN_FLAGS)
    values = vars(namespace)
    if any(on_command_line.values()):  # drop the file's losses, even if the file uses the other name for them
        values |= on_command_line
    data = DataConfig.from_flags({name: values[name] for name in DataConfig.model_fields})
    training = {f.name: values[f.name] for f in dataclasses.fields(TrainingConfig) if f.init}
    return data, training | evaluation_flags(training, holds_out=data.holds_out)


def evaluation_flags(flags: dict[str, Any], *, holds_out: bool) -> dict[str, Any]:
    """Fill in the evaluation flags. Defaults: evaluate before the first step and four times during training.

    Args:
        flags: The flags as the user gave them.
        holds_out: Whether there are held-out pairs.

    Raises:
        ConfigError: if a flag requests evaluation, but nothing is held out.
    """
    strategy, steps, on_start = flags["eval_strategy"], flags["eval_steps"], flags["eval_on_start"]
    if not holds_out:
        if strategy not in (None, "no") or on_start or (steps is not None and strategy is None):
            raise ConfigError(
                "--eval_strategy, --eval_steps and --eval_on_start need held-out pairs, but nothing is held out.\n"
                "  Pass --validation_split 0.05 or --eval_datasets ADAPTER=SOURCE, here or to `dpo prepare`."
            )
        return {}
    return {
        "eval_strategy": strategy or "steps",
        "eval_steps": 0.25 if steps is None else steps,
        "eval_on_start": True if on_start is None else on_start,
    }


def resolved_flags(data: DataConfig, training: TrainingConfig) -> dict[str, Any]:
    """Every flag with the value that the run used, in a form that --config can read again."""
    flags = json.loads(training.to_json_string())
    flags |= {"deepspeed": training.deepspeed_file, "local_rank": None, "hub_token": None}
    flags["gradient_accumulation_steps"] = training.accumulation_asked
    flags |= {"loss_type": None, "loss_weights": None}  # --loss has the same content
    if training.stage == "sft":
        flags["loss"] = None
    flags["report_to"] = flags["report_to"] or "none"
    known = {f.name for f in dataclasses.fields(TrainingConfig) if f.init} - REFUSED.keys()
    # With --prepared, the flags that decided the preparation are in its manifest.
    of_data = data.model_dump(mode="json", include=None if data.prepared is None else {"prepared", "seed", "stage"})
    return {name: value for name, value in flags.items() if name in known} | of_data
