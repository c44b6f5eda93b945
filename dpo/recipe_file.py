"""Recipes: one YAML file whose stages lead from a model to the model and the figures that are wanted.

    model_name_or_path: mistralai/Mistral-7B-v0.1      # flags of every stage that trains
    stages:
      - sft: {datasets: [ultrachat], output_dir: output/sft}
      - dpo: {datasets: [ultrafeedback], model_name_or_path: output/sft, output_dir: output/dpo}

sft and dpo are done by main.py; merge, generate and evaluate by the command of `python -m dpo` of that name. A stage's
flags go before the common ones, which commands have no part in. A file without `stages` is the flags of one run.
"""

__all__ = [
    "COMMANDS",
    "TRAINING",
    "Recipe",
    "Stage",
    "asks_for_dry_run",
    "first_look",
    "main_argv",
    "read_recipe",
    "what_is_done",
    "with_config",
]

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo.errors import ConfigError, DPOError, unknown_name
from dpo.flags import TRUE, FlagParser, flags_to_argv, parse_bool, read_yaml
from dpo.folders import MERGE_REPORT, RESULTS, find_output

TRAINING = ("sft", "dpo")
COMMANDS = ("merge", "generate", "evaluate")
STAGES = "stages"
MODELS = ("model_name_or_path", "model", "adapter", "reward_model", "models", "reference")
SOURCES = ("datasets", "eval_datasets", "pairs")
"""Flags by which a stage reads what another may have left."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe."""

    name: str
    """What --stage, --from and --only call it: the kind, or the `name` among its flags."""
    kind: str
    """What is done, of TRAINING or COMMANDS."""
    flags: Mapping[str, Any]
    """As YAML has them, the common ones included where it trains."""

    @property
    def trains(self) -> bool:
        """Whether main.py does it."""
        return self.kind in TRAINING

    @property
    def output(self) -> str | None:
        """The folder or file that it leaves."""
        output = self.flags.get(output_flag(self.kind))
        return None if output is None else str(output)

    @property
    def overwrites(self) -> bool:
        """Whether its own flags ask for what it has left to be replaced."""
        value = self.flags.get("overwrite_output_dir" if self.trains else "overwrite")
        return str(value).lower() in TRUE

    def reads(self, other: "Stage") -> bool:
        """Whether its models or its rows are what another stage leaves, or lie in it."""
        if other.output is None:
            return False
        models = [text for flag in MODELS for text in texts(self.flags.get(flag))]
        sources = [text.partition("=")[2] for flag in SOURCES for text in texts(self.flags.get(flag))]
        made = [other.output]
        return any(find_output(text, made) for text in models) or any(
            find_output(text, made, in_folder=True) for text in sources
        )


def texts(value: Any) -> list[str]:
    """The texts of a flag that takes one or several."""
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]


def output_flag(kind: str) -> str:
    """What a kind of stage calls the place of its output."""
    return "output_dir" if kind in TRAINING else "output"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The stages of a file, in order, their names all different."""

    file: Path
    stages: tuple[Stage, ...]
    is_one_run: bool = False
    """Whether the file is the flags of one run, and lists no stages."""

    @property
    def training(self) -> list[Stage]:
        """The stages that main.py does."""
        return [stage for stage in self.stages if stage.trains]

    def stage(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            ConfigError: there is none.
        """
        stages = {stage.name: stage for stage in self.stages}
        if name not in stages:
            raise ConfigError(f"{self.file}: {unknown_name('stage', name, stages)}")
        return stages[name]

    def where(self, stage: Stage) -> str:
        """What an error about a stage begins with."""
        return str(self.file) if self.is_one_run else f"{self.file}, stage '{stage.name}'"

    @contextmanager
    def naming(self, stage: Stage) -> Iterator[None]:
        """Have what goes wrong within say of which stage it is, unless it does."""
        try:
            yield
        except DPOError as error:
            where = self.where(stage)
            if str(error).startswith(where):
                raise
            raise type(error)(f"{where}: {error}") from error

    def outputs_before(self, stage: Stage) -> list[str]:
        """What the stages before one leave."""
        earlier = self.stages[: self.stages.index(stage)]
        return [other.output for other in earlier if other.output is not None]


def read_recipe(file: Path) -> Recipe:
    """The stages of a YAML file, of which one without `stages` has a single one.

    Raises:
        ConfigError: the file is no recipe, with what was expected.
    """
    return recipe_of(file, read_yaml(file))


def recipe_of(file: Path, content: Mapping[Any, Any]) -> Recipe:
    if STAGES not in content:
        kind = str(content.get("stage") or "dpo")
        if kind not in TRAINING:
            raise ConfigError(
                f"{file}: {unknown_name('stage', kind, TRAINING)}\n"
                "  A file without 'stages' is one run of main.py; what commands do stands in a list of stages."
            )
        refuse_no_path(str(file), kind, content)
        return Recipe(file=file, stages=(Stage(name=kind, kind=kind, flags=content),), is_one_run=True)
    common = {name: value for name, value in content.items() if name != STAGES}
    refuse_stage_flag(str(file), common)
    entries = content[STAGES]
    if not isinstance(entries, list) or not entries:
        raise ConfigError(
            f"{file}: stages: expected a list of stages, found {type(entries).__name__}.\n"
            "  Write one a line: - dpo: {output_dir: ...}"
        )
    stages = tuple(stage_of(str(file), entry, common) for entry in entries)
    names = [stage.name for stage in stages]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(
            f"{file}: two stages are called '{repeated}'.\n"
            "  Tell them apart with a name among their flags, such as name: merge_sft"
        )
    return Recipe(file=file, stages=stages)


def stage_of(where: str, entry: Any, common: Mapping[str, Any]) -> Stage:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ConfigError(
            f"{where}: stages: expected entries of one key, such as - dpo: {{output_dir: ...}}, found {entry!r:.80}"
        )
    (kind, flags), *_ = entry.items()
    if kind not in (*TRAINING, *COMMANDS):
        raise ConfigError(f"{where}: {unknown_name('stage', str(kind), (*TRAINING, *COMMANDS))}")
    if not isinstance(flags, dict):
        raise ConfigError(f"{where}, stage '{kind}': expected 'name: value' flags, found {type(flags).__name__}")
    name = str(flags.get("name") or kind)
    refuse_stage_flag(f"{where}, stage '{name}'", flags)
    own = {flag: value for flag, value in flags.items() if flag != "name"}
    all_flags = {**common, **own} if kind in TRAINING else own
    refuse_no_path(f"{where}, stage '{name}'", kind, all_flags)
    return Stage(name=name, kind=kind, flags=all_flags)


def refuse_no_path(where: str, kind: str, flags: Mapping[str, Any]) -> None:
    output = flags.get(output_flag(kind))
    if isinstance(output, list | dict):
        raise ConfigError(f"{where}: {output_flag(kind)}: expected one path, found {output!r:.80}")


def refuse_stage_flag(where: str, flags: Mapping[str, Any]) -> None:
    if "stage" in flags:
        raise ConfigError(f"{where}: the key 'stage' has no place beside 'stages', whose entries say it: leave it out.")


def with_config(argv: Sequence[str], known: Collection[str], *, shown: Collection[str] | None = None) -> list[str]:
    """main.py's command line, with the flags that --config writes down in front, which so give way to its own.

    Args:
        argv: The words behind main.py. Where --config is a recipe, --stage names the stage of it that is to run, and
            may be left out where only one trains.
        known: The flags that main.py has.
        shown: Those an error lists, where all would be too many to read. Default: all.

    Raises:
        ConfigError: the file or the stage cannot be used.
    """
    options, others = first_look(argv)
    if options.config is None:
        return list(argv)
    file = options.config
    content = read_yaml(file)
    if content.get("dry_run"):
        raise ConfigError(f"{file}: dry_run is asked for by hand: main.py --config {file} --dry_run")
    recipe = recipe_of(file, content)
    if recipe.is_one_run:
        return [*flags_to_argv(content, known, where=str(file), shown=shown), *argv]
    stage = chosen_stage(recipe, options.stage)
    flags = flags_to_argv(stage.flags, known, where=recipe.where(stage), shown=shown)
    return [f"--stage={stage.kind}", *flags, *others]


def first_look(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """--config and --stage of main.py's command line, and the words that are left."""
    parser = FlagParser(prog="main.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--stage")
    return parser.parse_known_args(argv)


def chosen_stage(recipe: Recipe, name: str | None) -> Stage:
    """The stage that main.py is to run."""
    training = recipe.training
    if name is None and len(training) == 1:
        return training[0]
    if name is None:
        names = ", ".join(stage.name for stage in training)
        listed = f"holds the stages {names}: name one with --stage" if names else "holds no stage that main.py runs"
        raise ConfigError(f"{recipe.file} {listed}.\n  All in order: python -m dpo recipe {recipe.file}")
    stage = recipe.stage(name)
    if not stage.trains:
        raise ConfigError(
            f"--stage {name}: python -m dpo {stage.kind} does it, and not main.py.\n"
            f"  python -m dpo recipe {recipe.file} --only {name}"
        )
    return stage


def asks_for_dry_run(argv: Sequence[str]) -> bool:
    """Whether main.py is asked what it would do."""
    parser = FlagParser(prog="main.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--dry_run", "--dry-run", nargs="?", const=True, default=False, type=parse_bool)
    return bool(parser.parse_known_args(argv)[0].dry_run)


def main_argv(recipe: Recipe, stage: Stage) -> list[str]:
    """main.py's command line for a stage."""
    return ["--config", str(recipe.file), *([] if recipe.is_one_run else ["--stage", stage.name])]


def what_is_done(stage: Stage) -> Path | None:
    """What shows that a stage is finished; None where nothing does. generate and evaluate go on by themselves."""
    mark = RESULTS if stage.trains else MERGE_REPORT if stage.kind == "merge" else None
    if mark is None or stage.output is None:
        return None
    file = Path(stage.output).expanduser() / mark
    return file if file.is_file() else None
