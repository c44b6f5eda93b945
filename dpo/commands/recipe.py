"""python -m dpo recipe: the stages of a recipe in order, each in a process of its own."""

__all__ = ["add_to"]

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from dpo.commands.stages import STAGE_COMMANDS
from dpo.errors import ConfigError
from dpo.recipe_file import read_recipe


def add_to(commands: Any) -> None:
    parser = commands.add_parser("recipe", allow_abbrev=False, help="run the stages of a YAML file in order")
    parser.add_argument("file", type=Path, metavar="FILE", help="A recipe, such as runs/zephyr_7b.yaml.")
    parser.add_argument(
        "--launcher",
        default=shlex.quote(sys.executable),
        help="What starts main.py: 'deepspeed --num_gpus 8'. Default: this Python.",
    )
    parser.add_argument("--from", dest="first", metavar="STAGE", help="Begin with this stage.")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="Run these stages alone.")
    parser.add_argument("--overwrite", action="store_true", help="Run stages again that are finished already.")
    parser.add_argument("--dry_run", action="store_true", help="Say what each stage would do, and run none.")
    parser.add_argument("--num_devices", type=int, help="Devices that --dry_run plans for. Default: 1.")
    parser.set_defaults(command=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    environment = dict(os.environ)  # without what libraries set here on their import
    # Here, so that --help need not wait for torch.
    from dpo.recipes.running import chosen, find_finished, run_stages
    from dpo.recipes.showing import show_stages

    recipe = read_recipe(options.file)
    stages = chosen(recipe, options.first, options.only)
    if options.num_devices is not None and not options.dry_run:
        raise ConfigError("--num_devices is for --dry_run: the launcher says how many devices a run has.")
    finished = find_finished(recipe, stages, overwrite=options.overwrite)
    if options.dry_run:
        devices = [] if options.num_devices is None else ["--num_devices", str(options.num_devices)]
        show_stages(recipe, stages, STAGE_COMMANDS, flags=["--dry_run", *devices])
        return 0
    return run_stages(
        recipe,
        stages,
        STAGE_COMMANDS,
        finished=finished,
        launcher=options.launcher,
        overwrite=options.overwrite,
        environment=environment,
    )
