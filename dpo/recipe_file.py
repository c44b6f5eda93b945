"""Reading of recipes: YAML files whose stages train, merge, generate and evaluate, one after another.

    model_name_or_path: mistralai/Mistral-7B-v0.1      # flags of every stage that trains
    stages:
      - sft: {datasets: [ultrachat], output_dir: output/sft}
      - dpo: {datasets: [ultrafeedback], model_name_or_path: output/sft, output_dir: output/dpo}

main.py runs sft and dpo. The commands of `dpo` run merge, generate and evaluate. The flags of a training
stage override the common flags, and the commands do not read the common flags. A file without `stages` contains the
flags of one training run.
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
from dpo.flags import TRUE, FlagParser, flags_to_argv, parse_bool, read_yaml, training_program
from dpo.folders import MERGE_REPORT, RESULTS, find_output

TRAINING = ("sft", "dpo")
COMMANDS = ("merge", "generate", "evaluate")
STAGES = "stages"
MODELS = ("model_name_or_path", "model", "adapter", "reward_model", "models", "reference")
SOURCES = ("datasets", "eval_datasets", "pairs")
"""With MODELS, the flags by which a stage can read the output of another stage."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a recipe."""

    name: str
    """Name for --stage, --from and --only: the `name` among the stage's flags, or its kind."""
    kind: str
    """One of TRAINING or COMMANDS."""
    flags: Mapping[str, Any]
    """Values from the YAML file. A training stage includes the common flags."""

    @property
    def trains(self) -> bool:
        """Whether the stage trains, so that main.py runs it."""
        return self.kind in TRAINING

    @property
    def output(self) -> str | None:
        """Path of the folder or file that the stage writes."""
        output = self.flags.get(output_flag(self.kind))
        return None if output is None else str(output)

    @property
    def overwrites(self) -> bool:
        """Whether the stage's own flags allow it to replace an existing output."""
        value = self.flags.get("overwrite_output_dir" if self.trains else "overwrite")
        return str(value).lower() in TRUE

    def reads(self, other: "Stage") -> bool:
        """Return whether a model or a source of this stage is the output of another stage, or is inside it."""
        if other.output is None:
            return False
        models = [text for flag in MODELS for text in texts(self.flags.get(flag))]
        sources = [text.partition("=")[2] for flag in SOURCES for text in texts(self.flags.get(flag))]
        made = [other.output]
        return any(find_output(text, made) for text in models) or any(
            find_output(text, made, in_folder=True) for text in sources
        )


def texts(value: Any) -> list[str]:
    """Return the values of a flag as texts, whether it has one or several."""
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item is not None]


def output_flag(kind: str) -> str:
    """Return the name of the flag with the output path, for a kind of stage."""
    return "output_dir" if kind in TRAINING else "output"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The stages of a file, in order. Their names are unique."""

    file: Path
    stages: tuple[Stage, ...]
    is_one_run: bool = False
    """Whether the file contains the flags of one training run and no list of stages."""

    @property
    def training(self) -> list[Stage]:
        """The stages that main.py runs."""
        return [stage for stage in self.stages if stage.trains]

    def stage(self, name: str) -> Stage:
        """Return the stage with a name.

        Raises:
            ConfigError: if no stage has this name.
        """
        stages = {stage.name: stage for stage in self.stages}
        if name not in stages:
            raise ConfigError(f"{self.file}: {unknown_name('stage', name, stages)}")
        return stages[name]

    def where(self, stage: Stage) -> str:
        """Return the start of an error message about a stage: the file and the stage's name."""
        return str(self.file) if self.is_one_run else f"{self.file}, stage '{stage.name}'"

    @contextmanager
    def naming(self, stage: Stage) -> Iterator[None]:
        """Prefix errors raised inside the context with the file and the stage, unless they have this prefix."""
        try:
            yield
        except DPOError as error:
            where = self.where(stage)
            if str(error).startswith(where):
                raise
            raise type(error)(f"{where}: {error}") from error

    def outputs_before(self, stage: Stage) -> list[str]:
        """Return the output paths of the stages before one."""
        earlier = self.stages[: self.stages.index(stage)]
        return [other.output for other in earlier if other.output is not None]


def read_recipe(file: Path) -> Recipe:
    """Read the stages of a YAML file. A file without `stages` has a single stage.

    Raises:
        ConfigError: if the file is not a valid recipe.
    """
    return recipe_of(file, read_yaml(file))


def recipe_of(file: Path, content: Mapping[Any, Any]) -> Recipe:
    if STAGES not in content:
        kind = str(content.get("stage") or "dpo")
        if kind not in TRAINING:
            raise ConfigError(
                f"{file}: {unknown_name('stage', kind, TRAINING)}\n"
                "  A file without 'stages' is one training run of main.py. List other stages under 'stages'."
            )
        check_output_path(str(file), kind, content)
        return Recipe(file=file, stages=(Stage(name=kind, kind=kind, flags=content),), is_one_run=True)
    common = {name: value for name, value in content.items() if name != STAGES}
    check_no_stage_flag(str(file), common)
    entries = content[STAGES]
    if not isinstance(entries, list) or not entries:
        found = "an empty list" if entries == [] else type(entries).__name__
        raise ConfigError(
            f"{file}: stages: expected a list of stages, found {found}.\n"
            "  Write one stage on each line: - dpo: {output_dir: ...}"
        )
    stages = tuple(stage_of(str(file), entry, common) for entry in entries)
    names = [stage.name for stage in stages]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(
            f"{file}: two stages have the name '{repeated}'.\n"
            "  Add a unique name to the flags of one of them, such as name: merge_sft"
        )
    return Recipe(file=file, stages=stages)


def stage_of(where: str, entry: Any, common: Mapping[str, Any]) -> Stage:
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ConfigError(
            f"{where}: stages: expected entries with one key, such as - dpo: {{output_dir: ...}}, found {entry!r:.80}"
        )
    (kind, flags), *_ = entry.items()
    if kind not in (*TRAINING, *COMMANDS):
        raise ConfigError(f"{where}: {unknown_name('stage', str(kind), (*TRAINING, *COMMANDS))}")
    if not isinstance(flags, dict):
        raise ConfigError(f"{where}, stage '{kind}': expected 'name: value' flags, found {type(flags).__name__}")
    name = str(flags.get("name") or kind)
    check_no_stage_flag(f"{where}, stage '{name}'", flags)
    own = {flag: value for flag, value in flags.items() if flag != "name"}
    all_flags = {**common, **own} if kind in TRAINING else own
    check_output_path(f"{where}, stage '{name}'", kind, all_flags)
    return Stage(name=name, kind=kind, flags=all_flags)


def check_output_path(where: str, kind: str, flags: Mapping[str, Any]) -> None:
    output = flags.get(output_flag(kind))
    if isinstance(output, list | dict):
        raise ConfigError(f"{where}: {output_flag(kind)}: expected one path, found {output!r:.80}")


def check_no_stage_flag(where: str, flags: Mapping[str, Any]) -> None:
    if "stage" in flags:
        raise ConfigError(
            f"{where}: the key 'stage' is not allowed in a file with 'stages', because each entry names its stage.\n"
            "  Leave it out."
        )


def with_config(argv: Sequence[str], known: Collection[str], *, shown: Collection[str] | None = None) -> list[str]:
    """Put the flags of main.py's --config file in front of its command line, whose own flags override them.

    Args:
        argv: The words after main.py. If --config is a recipe, --stage names the stage to run. It may be left out if
            the recipe has only one training stage.
        known: Names of main.py's flags.
        shown: The names to list in an error, if all of them are too many to read. Default: all.

    Raises:
        ConfigError: if the file or the stage cannot be used.
    """
    options, others = first_look(argv)
    if options.config is None:
        return list(argv)
    file = options.config
    content = read_yaml(file)
    if content.get("dry_run"):
        raise ConfigError(
            f"{file}: dry_run is not allowed in a file.\n"
            f"  Pass it on the command line: {training_program()} --config {file} --dry_run"
        )
    recipe = recipe_of(file, content)
    if recipe.is_one_run:
        return [*flags_to_argv(content, known, where=str(file), shown=shown), *argv]
    stage = chosen_stage(recipe, options.stage)
    flags = flags_to_argv(stage.flags, known, where=recipe.where(stage), shown=shown)
    return [f"--stage={stage.kind}", *flags, *others]


def first_look(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return --config and --stage of main.py's command line, and the remaining words."""
    parser = FlagParser(prog=training_program(), add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--stage")
    return parser.parse_known_args(argv)


def chosen_stage(recipe: Recipe, name: str | None) -> Stage:
    """Return the stage that main.py runs: the named one, or the only one that trains."""
    training = recipe.training
    if name is None and len(training) == 1:
        return training[0]
    if name is None:
        names = ", ".join(stage.name for stage in training)
        problem = (
            f"the file contains the training stages {names}.\n  Choose one with --stage"
            if names
            else "the file does not contain a training stage, which main.py needs"
        )
        raise ConfigError(f"{recipe.file}: {problem}.\n  Run all stages in order: dpo recipe {recipe.file}")
    stage = recipe.stage(name)
    if not stage.trains:
        raise ConfigError(
            f"--stage {name}: this stage is run by dpo {stage.kind}, not by main.py.\n"
            f"  Run it with: dpo recipe {recipe.file} --only {name}"
        )
    return stage


def asks_for_dry_run(argv: Sequence[str]) -> bool:
    """Return whether main.py's command line contains --dry_run."""
    parser = FlagParser(prog=training_program(), add_help=False, allow_abbrev=False)
    parser.add_argument("--dry_run", "--dry-run", nargs="?", const=True, default=False, type=parse_bool)
    return bool(parser.parse_known_args(argv)[0].dry_run)


def main_argv(recipe: Recipe, stage: Stage) -> list[str]:
    """Return main.py's command line for a stage."""
    return ["--config", str(recipe.file), *([] if recipe.is_one_run else ["--stage", stage.name])]


def what_is_done(stage: Stage) -> Path | None:
    """Return the file that shows that a stage is finished, or None if there is no such file.

    generate and evaluate have none, so they are always started. generate then resumes from its existing rows.
    """
    mark = RESULTS if stage.trains else MERGE_REPORT if stage.kind == "merge" else None
    if mark is None or stage.output is None:
        return None
    file = Path(stage.output).expanduser() / mark
    return file if file.is_file() else None
