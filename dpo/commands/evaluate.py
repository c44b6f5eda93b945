"""`dpo evaluate`: measure models on benchmarks and on held-out pairs, and show the results side by side."""

__all__ = ["add_to", "check"]

import argparse
import json
import math
import sys
from collections.abc import Collection
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo import __version__
from dpo.commands.common import data_config
from dpo.data.config import DataConfig
from dpo.errors import ConfigError
from dpo.evaluation.suites import FACTS, SUITES, parse_task
from dpo.flags import add_fields
from dpo.folders import check_folder, find_output
from dpo.hub import check_model_name
from dpo.models.locating import locate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dpo.evaluation.run import Evaluation, Outcome

LEFT_OUT = (
    *("stage", "turns", "datasets", "eval_datasets", "validation_split", "weights", "drop_leaked_prompts"),
    "add_control_tokens",
)
"""Data flags that only training uses."""


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate", allow_abbrev=False, help="measure models on benchmarks and on held-out pairs, side by side"
    )
    parser.add_argument(
        "--models",
        nargs="+",
        required=True,
        metavar="MODEL",
        help="Folders or Hub ids of models or adapters, or 'embedded'.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("evaluation.json"),
        help="JSON file for the numbers. The table is written next to it as .md. Default: evaluation.json.",
    )
    parser.add_argument(
        "--limit", type=above_zero, help="Use the first N questions of each task and the first N pairs. Default: all."
    )
    parser.add_argument("--batch_size", type=above_zero, default=8, help="Questions or pairs per batch. Default: 8.")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="Data type of the weights. auto: bfloat16 on a GPU that computes in it, float32 elsewhere.",
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="Run code that comes with a model.")
    tasks = parser.add_argument_group("benchmarks", f"Run by lm-eval. --tasks {FACTS} needs no network.")
    tasks.add_argument(
        "--suite", choices=sorted(SUITES), help="A fixed set of benchmarks, reported with their average."
    )
    tasks.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        metavar="NAME[:SHOTS]",
        help="lm-eval tasks. SHOTS is the number of solved examples before each question. Default: the task's own.",
    )
    tasks.add_argument(
        "--include_path", type=Path, metavar="DIR", help="Folder of your own tasks, in lm-eval's format."
    )
    tasks.add_argument(
        "--apply_chat_template", action="store_true", help="Ask the questions in each tokenizer's chat template."
    )
    pairs = parser.add_argument_group("held-out pairs")
    pairs.add_argument(
        "--pairs",
        dest="datasets",
        nargs="+",
        default=(),
        metavar="SOURCE",
        help="Sources of the pairs, in the form of main.py's --datasets.",
    )
    pairs.add_argument(
        "--template",
        default="model",
        help="Template for --pairs: 'model' for each model's own chat template, or one for all models: a name in "
        "templates/ or a path to a .jinja file. Default: model.",
    )
    pairs.add_argument(
        "--reference", metavar="MODEL", help="The model that training started from. Implicit rewards need it."
    )
    pairs.add_argument("--beta", type=float, help="Scale factor of the implicit rewards. Default: 0.1.")
    add_fields(parser, DataConfig, "data", leave_out=(*LEFT_OUT, "template"))
    parser.set_defaults(command=run, parser=parser)


def above_zero(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found '{text}'")
    return int(text)


def run(options: argparse.Namespace) -> None:
    check_flags(options)
    from dpo.training.distributed import set_up  # late imports here and below, since torch would slow --help down

    set_up(deepspeed=False)
    evaluation = build(options)
    outcomes: dict[str, Outcome] = {}

    def save(model: str, outcome: "Outcome") -> None:
        outcomes[model] = outcome
        write(options, outcomes, dtype=str(evaluation.dtype).removeprefix("torch."))
        print(f"{model}: {outcome.runtime_s:.0f} s, saved to {options.output}", file=sys.stderr)

    evaluation.run(save)
    table = options.output.with_suffix(".md").read_text(encoding="utf-8")
    print(f"{table}\n{options.output}: the same numbers as JSON")


def check(options: argparse.Namespace, *, planned_outputs: Collection[str] = ()) -> None:
    """Check the command as far as possible without weights, questions and the outputs of earlier stages.

    run() does not call this function. build() finds the same mistakes, and lm-eval's long index is read only once.

    Args:
        options: The flags of the command.
        planned_outputs: Files and folders that earlier stages will make.

    Raises:
        DPOError: if a flag, a model, a source or a task is wrong. The message names it.
    """
    check_flags(options)
    for model in (*options.models, *([] if options.reference is None else [options.reference])):
        if find_output(model, planned_outputs) is None:
            check_model_name(model)
    if options.datasets or options.prepared:
        from dpo.data.reading.source import check_sources

        data = data_config(options)
        check_sources(data.datasets, tuple(map(Path, data.adapter)), planned_outputs)
    if options.suite or options.tasks:
        from dpo.evaluation.benchmarks import check_tasks

        check_tasks([parse_task(task) for task in options.tasks], include_path=options.include_path)


def check_flags(options: argparse.Namespace) -> None:
    """Refuse flags that contradict each other or have no effect.

    Raises:
        ConfigError: if there is such a flag. The message names it.
    """
    check_folder("output", options.output.parent)
    if options.output.is_dir() or options.output.suffix != ".json":
        raise ConfigError(f"--output {options.output}: expected a file that ends in .json")
    if repeated := sorted({model for model in options.models if options.models.count(model) > 1}):
        raise ConfigError(f"--models: {repeated[0]} is listed twice.\n  List each model once.")
    if options.include_path is not None and not options.include_path.is_dir():
        raise ConfigError(f"--include_path {options.include_path}: there is no such folder")
    has_tasks, has_pairs = bool(options.suite or options.tasks), bool(options.datasets or options.prepared)
    if not has_tasks and not has_pairs:
        raise ConfigError(
            f"nothing to measure.\n  Pass --suite {min(SUITES)}, --tasks {FACTS} or --pairs ADAPTER=SOURCE."
        )
    if options.datasets and options.prepared:
        raise ConfigError("--pairs and --prepared both select the pairs.\n  Pass only one of them.")
    default = options.parser.get_default
    of_tasks = [] if has_tasks else ["include_path", "apply_chat_template"]
    of_pairs = [] if has_pairs else ["reference", "beta", *DataConfig.model_fields.keys() - set(LEFT_OUT)]
    for names, needed in ((of_tasks, "--suite or --tasks"), (of_pairs, "--pairs or --prepared")):
        for name in sorted(names):
            if getattr(options, name) != default(name):
                raise ConfigError(f"--{name} has no effect without {needed}.\n  Leave --{name} out, or pass {needed}.")
    if options.beta is not None and options.reference is None:
        raise ConfigError(
            f"--beta {options.beta:g} scales implicit rewards, which need a reference model.\n"
            "  Pass --reference MODEL, the model that training started from, or leave --beta out."
        )
    if options.beta is not None and not 0 < options.beta < math.inf:
        raise ConfigError(f"--beta {options.beta:g}: expected a number above 0")


def build(options: argparse.Namespace) -> "Evaluation":
    """Build the evaluation, and read the questions of every benchmark.

    Raises:
        DPOError: if a model or task does not exist, or a data flag is wrong.
    """
    from dpo.evaluation.benchmarks import load_benchmarks
    from dpo.evaluation.run import Evaluation
    from dpo.models.device import choose_device, resolve_dtype

    data = pairs_config(options)
    for model in (*options.models, *([] if options.reference is None else [options.reference])):
        locate(model)  # reports a misspelled name before the questions are downloaded
    benchmarks = None
    if options.suite or options.tasks:
        tasks = [parse_task(task) for task in options.tasks]
        benchmarks = load_benchmarks(tasks, suite=options.suite, include_path=options.include_path)
    return Evaluation(
        models=options.models,
        benchmarks=benchmarks,
        data=data,
        reference=options.reference,
        beta=0.1 if options.beta is None else options.beta,
        dtype=resolve_dtype(options.dtype, choose_device()),
        batch_size=options.batch_size,
        limit=options.limit,
        uses_template=options.apply_chat_template,
        trust_remote_code=options.trust_remote_code,
        progress=True,  # in a log file too, since an evaluation may take hours
    )


def pairs_config(options: argparse.Namespace) -> DataConfig | None:
    """Read the data flags of the pairs; None if the flags request no pairs.

    Raises:
        ConfigError: if the data flags contradict each other.
    """
    if options.prepared and options.template == options.parser.get_default("template"):
        # The pairs are rendered already. Leave the default of --template out, or it would count as a contradiction.
        values = {name: value for name, value in vars(options).items() if name != "template"}
        return data_config(argparse.Namespace(**values))
    return data_config(options) if options.datasets or options.prepared else None


def write(options: argparse.Namespace, outcomes: "Mapping[str, Outcome]", *, dtype: str) -> None:
    """Write the results so far: the numbers as JSON and the table as Markdown.

    Each file is replaced in one step, so a reader finds either the old file or the new one.
    """
    from dpo.evaluation.tables import as_json, as_markdown

    results = {model: outcome.measures for model, outcome in outcomes.items()}
    content = as_json(results)
    for model, outcome in outcomes.items():
        content["models"][model]["runtime_s"] = round(outcome.runtime_s, 1)
        if outcome.report is not None:
            content["models"][model]["rows"] = outcome.report.total().counts()
    given = {name: value for name, value in vars(options).items() if value != options.parser.get_default(name)}
    content["flags"] = {"pairs" if name == "datasets" else name: value for name, value in given.items()}
    content["flags"]["dtype"] = dtype
    if options.datasets:
        content["flags"]["template"] = options.template
    content["versions"] = {
        name: version(name) for name in ("lm_eval", "torch", "transformers") if find_spec(name) is not None
    } | {"dpo": __version__}
    table = as_markdown(results)
    if options.limit is not None:
        parts = ["questions of each task"] if options.suite or options.tasks else []
        parts += ["pairs"] if options.datasets or options.prepared else []
        table += f"\n\nMeasured on the first {options.limit} {' and '.join(parts)} only: a quick look, not a result."
    options.output.parent.mkdir(parents=True, exist_ok=True)
    replace(options.output.with_suffix(".md"), table + "\n")
    replace(options.output, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def replace(file: Path, text: str) -> None:
    work = file.with_name(f".{file.name}")
    work.write_text(text, encoding="utf-8")
    work.rename(file)
