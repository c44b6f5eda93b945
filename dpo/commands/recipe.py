"""`dpo recipe`: run the stages of a recipe in order, each in its own process."""

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
        help="The command that starts main.py, such as 'deepspeed --num_gpus 8'. Default: this Python.",
    )
    parser.add_argument("--from", dest="first", metavar="STAGE", help="Start with this stage.")
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="Run only these stages.")
    parser.add_argument("--overwrite", action="store_true", help="Run finished stages again.")
    parser.add_argument("--dry_run", action="store_true", help="Print what each stage would do, and run nothing.")
    parser.add_argument("--num_devices", type=int, help="Number of devices that --dry_run plans for. Default: 1.")
    parser.set_defaults(command=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    environment = dict(os.environ)  # copied before the imports below, which set variables
    # Late imports, since torch would slow --help down.
    from dpo.recipes.running import chosen, find_finished, run_stages
    from dpo.recipes.showing import show_stages

    recipe = read_recipe(options.file)
    stages = chosen(recipe, options.first, options.only)
    if options.num_devices is not None and not options.dry_run:
        raise ConfigError(
            "--num_devices has no effect without --dry_run: the launcher sets the number of devices of a run.\n"
            "  Leave it out, or pass --dry_run."
        )
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
