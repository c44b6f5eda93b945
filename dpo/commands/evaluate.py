"""python -m dpo evaluate: models in; benchmarks and preferences over held-out pairs, side by side, out."""

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
"""Flags of the data that are for training."""


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate", allow_abbrev=False, help="measure models on benchmarks and on held-out pairs, side by side"
    )
    parser.add_argument(
        "--models", nargs="+", required=True, metavar="MODEL", help="Folders or Hub ids of models or adapters."
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("evaluation.json"),
        help="The numbers, with the table beside as .md. Default: evaluation.json.",
    )
    parser.add_argument("--limit", type=above_zero, help="First questions of each task, first pairs. Default: all.")
    parser.add_argument("--batch_size", type=above_zero, default=8, help="Questions or pairs at once. Default: 8.")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="Of the weights. auto: bfloat16 on a GPU that computes in it, float32 elsewhere.",
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="For models with code of their own.")
    tasks = parser.add_argument_group("benchmarks", f"By lm-eval. --tasks {FACTS} needs no network.")
    tasks.add_argument("--suite", choices=sorted(SUITES), help="Benchmarks that go together, and their average.")
    tasks.add_argument(
        "--tasks", nargs="+", default=[], metavar="NAME[:SHOTS]", help="Tasks of lm-eval's, with so many examples."
    )
    tasks.add_argument("--include_path", type=Path, metavar="DIR", help="Folder of your own tasks, in lm-eval's form.")
    tasks.add_argument(
        "--apply_chat_template", action="store_true", help="Ask in the chat template that each tokenizer brings."
    )
    pairs = parser.add_argument_group("held-out pairs")
    pairs.add_argument(
        "--pairs", dest="datasets", nargs="+", default=(), metavar="SOURCE", help="As --datasets of main.py."
    )
    pairs.add_argument(
        "--template",
        default="model",
        help="What renders --pairs: 'model' for each model's own chat template; or, for all models, a name in "
        "templates/ or a path to a .jinja file. Default: model.",
    )
    pairs.add_argument(
        "--reference", metavar="MODEL", help="The model that training started from, for implicit rewards."
    )
    pairs.add_argument("--beta", type=float, help="Factor of the rewards. Default: 0.1.")
    add_fields(parser, DataConfig, "data", leave_out=(*LEFT_OUT, "template"))
    parser.set_defaults(command=run, parser=parser)


def above_zero(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found '{text}'")
    return int(text)


def run(options: argparse.Namespace) -> None:
    check_flags(options)
    from dpo.training.distributed import set_up  # here and below: torch, which --help need not wait for

    set_up(deepspeed=False)
    evaluation = build(options)
    outcomes: dict[str, Outcome] = {}

    def keep(model: str, outcome: "Outcome") -> None:
        outcomes[model] = outcome
        write(options, outcomes, dtype=str(evaluation.dtype).removeprefix("torch."))
        print(f"{model}: {outcome.runtime_s:.0f} s, kept in {options.output}", file=sys.stderr)

    evaluation.run(keep)
    print(f"{options.output.with_suffix('.md').read_text(encoding='utf-8')}\n{options.output}: the same as JSON")


def check(options: argparse.Namespace, *, coming: Collection[str] = ()) -> None:
    """Refuse what can be seen to be wrong without weights, questions and what is yet to be made.

    run meets the same when it builds what this only looks at, and need not read lm-eval's long index twice.

    Args:
        options: The command's.
        coming: Files and folders that are made before the command runs.

    Raises:
        DPOError: naming the flag, the model, the source or the task.
    """
    check_flags(options)
    for model in (*options.models, *([] if options.reference is None else [options.reference])):
        if find_output(model, coming) is None:
            check_model_name(model)
    if options.datasets or options.prepared:
        from dpo.data.reading.source import check_sources

        data = data_config(options)
        check_sources(data.datasets, tuple(map(Path, data.adapter)), coming)
    if options.suite or options.tasks:
        from dpo.evaluation.benchmarks import check_tasks

        check_tasks([parse_task(task) for task in options.tasks], include_path=options.include_path)


def check_flags(options: argparse.Namespace) -> None:
    """Refuse what contradicts itself, or would do nothing.

    Raises:
        ConfigError: naming the flag.
    """
    check_folder("output", options.output.parent)
    if options.output.is_dir() or options.output.suffix != ".json":
        raise ConfigError(f"--output {options.output}: expected a file that ends in .json")
    if repeated := sorted({model for model in options.models if options.models.count(model) > 1}):
        raise ConfigError(f"--models: {repeated[0]} is named twice")
    if options.include_path is not None and not options.include_path.is_dir():
        raise ConfigError(f"--include_path {options.include_path}: there is no such folder")
    has_tasks, has_pairs = bool(options.suite or options.tasks), bool(options.datasets or options.prepared)
    if not has_tasks and not has_pairs:
        raise ConfigError(
            f"nothing to measure.\n  Pass --suite {min(SUITES)}, --tasks {FACTS} or --pairs ADAPTER=SOURCE."
        )
    if options.datasets and options.prepared:
        raise ConfigError("--pairs and --prepared both say which pairs.\n  Pass one of the two.")
    default = options.parser.get_default
    of_tasks = [] if has_tasks else ["include_path", "apply_chat_template"]
    of_pairs = [] if has_pairs else ["reference", "beta", *DataConfig.model_fields.keys() - set(LEFT_OUT)]
    for names, needed in ((of_tasks, "--suite or --tasks"), (of_pairs, "--pairs or --prepared")):
        for name in sorted(names):
            if getattr(options, name) != default(name):
                raise ConfigError(f"--{name} is read with {needed} alone")
    if options.beta is not None and options.reference is None:
        raise ConfigError(
            f"--beta {options.beta:g} is the factor of implicit rewards, and --reference, which they are against, is "
            "missing.\n  Pass --reference MODEL, the one that training started from, or leave --beta out."
        )
    if options.beta is not None and not 0 < options.beta < math.inf:
        raise ConfigError(f"--beta {options.beta:g}: expected a number above 0")


def build(options: argparse.Namespace) -> "Evaluation":
    """What to measure, with every benchmark's questions.

    Raises:
        DPOError: there is no such model or task, or a flag of the data is wrong.
    """
    from dpo.evaluation.benchmarks import load_benchmarks
    from dpo.evaluation.run import Evaluation
    from dpo.models.device import choose_device, resolve_dtype

    data = pairs_config(options)
    for model in (*options.models, *([] if options.reference is None else [options.reference])):
        locate(model)  # a misspelled one shows before questions are fetched
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
        progress=True,  # into a log file too: it may take hours
    )


def pairs_config(options: argparse.Namespace) -> DataConfig | None:
    """Where the pairs come from; None: none are asked for.

    Raises:
        ConfigError: the data's flags contradict themselves.
    """
    if options.prepared and options.template == options.parser.get_default("template"):
        # Rendered already, to which a default that nobody asked for is no contradiction.
        values = {name: value for name, value in vars(options).items() if name != "template"}
        return data_config(argparse.Namespace(**values))
    return data_config(options) if options.datasets or options.prepared else None


def write(options: argparse.Namespace, outcomes: "Mapping[str, Outcome]", *, dtype: str) -> None:
    """Write what is known so far: the numbers, and the table beside. A file is whole or the one before."""
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
        table += f"\n\nThe first {options.limit} {' and '.join(parts)}: for a look only."
    options.output.parent.mkdir(parents=True, exist_ok=True)
    replace(options.output.with_suffix(".md"), table + "\n")
    replace(options.output, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def replace(file: Path, text: str) -> None:
    work = file.with_name(f".{file.name}")
    work.write_text(text, encoding="utf-8")
    work.rename(file)
