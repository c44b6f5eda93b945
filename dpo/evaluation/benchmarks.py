"""Runs benchmarks with EleutherAI's lm-eval, on a model that is already in memory.

names -> lm-eval's index -> tasks with their questions, before any model is loaded -> measures of a model
"""

__all__ = ["Benchmarks", "check_tasks", "load_benchmarks"]

import importlib.util
import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, set_seed

from dpo.errors import ConfigError, SourceError, unknown_name
from dpo.evaluation.measures import Measure, average
from dpo.evaluation.suites import FACTS, SUITES, TASKS, TaskRequest

REQUIREMENT = "lm-eval==0.4.13"
SHOWN = (FACTS, "arc_challenge", "arc_easy", "gsm8k", "hellaswag", "mmlu", "piqa", "truthfulqa_mc2", "winogrande")
"""The tasks that an error message lists, out of thousands."""
SEED = 1234
"""lm-eval's default, so that the few-shot examples are those of its command line."""
CLOSE = 1e-9
"""Largest accepted difference between a value and the mean of its items."""


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    """Tasks with their questions, ready to measure one model after another."""

    requests: Sequence[TaskRequest]
    suite: str | None
    """Name of the suite that the first requests belong to; its mean is reported too."""
    loaded: Mapping[str, Any]
    """lm-eval's tasks and groups by name."""
    tasks_of: Mapping[str, Sequence[str]]
    """Name of a request -> its tasks."""

    def run(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, *, batch_size: int, limit: int | None, uses_template: bool
    ) -> dict[str, Measure]:
        """Measure a model.

        Args:
            model: The model, on its device.
            tokenizer: Tokenizer of the model.
            batch_size: lm-eval requests per batch.
            limit: Number of questions of each task, from the first; None takes all.
            uses_template: Whether to ask the questions in the tokenizer's chat template, with the few-shot examples as
                earlier turns.

        Returns:
            Name of a table row -> measure.
        """
        from lm_eval import evaluate
        from lm_eval.models.huggingface import HFLM

        set_seed(SEED)
        for task in self.loaded["tasks"].values():  # for each model, or the next one would get other examples
            task.set_fewshot_seed(SEED)
        results = evaluate(
            lm=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, backend="causal"),
            task_dict=self.loaded,
            limit=limit,
            apply_chat_template=uses_template,
            fewshot_as_multiturn=uses_template,
        )
        rows = [self.rows(request, results) for request in self.requests]
        measures = {name: measure for of_request in rows for name, measure in of_request.items()}
        if self.suite is not None:
            of_suite = [measure for of_request in rows[: len(SUITES[self.suite])] for measure in of_request.values()]
            measures[f"{self.suite}, average"] = average(of_suite)
        return measures

    def rows(self, request: TaskRequest, results: Mapping[str, Any]) -> dict[str, Measure]:
        """The rows of one request: the group's own measures if lm-eval reports any, otherwise those of its tasks."""
        tasks = self.tasks_of[request.name]
        if request.averages_tasks:
            of_tasks = [measures_of(task, [task], results, request.metric) for task in tasks]
            (label,) = {label for measures in of_tasks for label in measures}
            return {self.row_name(request.name, label): average([measures[label] for measures in of_tasks])}
        by_name = {request.name: measures_of(request.name, tasks, results, request.metric)}
        if not by_name[request.name]:
            by_name = {task: measures_of(task, [task], results, request.metric) for task in tasks}
        return {self.row_name(name, label): found[label] for name, found in by_name.items() for label in found}

    def row_name(self, name: str, label: str) -> str:
        """The name of a table row, such as "hellaswag, 10-shot, acc_norm"."""
        tasks = self.tasks_of.get(name, [name])
        shots = {self.loaded["tasks"][task].get_config("num_fewshot") for task in tasks}
        of_shots = f", {shots.pop()}-shot" if len(shots) == 1 else ""
        return f"{name}{of_shots}, {label}"


def measures_of(
    name: str, tasks: Sequence[str], results: Mapping[str, Any], metric: str | None = None
) -> dict[str, Measure]:
    """Read the measures that lm-eval reports under a name.

    Args:
        name: Name of a task or a group.
        tasks: The tasks of that name.
        results: Result of lm_eval.evaluate, with samples.
        metric: The metric to read; None reads all.

    Returns:
        Metric -> measure.
    """
    entries = results["results"].get(name, {})
    measures = {}
    for key, value in entries.items():
        found, comma, which_filter = key.partition(",")
        if not comma or found.endswith("_stderr") or not isinstance(value, Real) or metric not in (None, found):
            continue
        stderr = entries.get(f"{found}_stderr,{which_filter}")
        measures[found if which_filter == "none" else f"{found} ({which_filter})"] = Measure(
            value=float(value),
            stderr=float(stderr) if isinstance(stderr, Real) else None,
            num_items=entries["sample_len"],
            items=items_of(tasks, results, found, which_filter, float(value)),
        )
    return measures


def items_of(
    tasks: Sequence[str], results: Mapping[str, Any], metric: str, which_filter: str, value: float
) -> dict[Hashable, float]:
    """The metric of each (task, question); empty if the value is not their mean, as for a perplexity."""
    items = {
        (task, sample["doc_id"]): sample[metric]
        for task in tasks
        for sample in results["samples"][task]
        if sample["filter"] == which_filter and metric in sample
    }
    if not items or not all(isinstance(item, Real) for item in items.values()):
        return {}
    values: dict[Hashable, float] = {item: float(found) for item, found in items.items()}
    return values if abs(sum(values.values()) / len(values) - value) <= CLOSE else {}


def load_benchmarks(
    tasks: Sequence[TaskRequest], *, suite: str | None = None, include_path: Path | None = None
) -> Benchmarks:
    """Find tasks and read their questions.

    Args:
        tasks: The tasks to load.
        suite: A name in SUITES, whose tasks are loaded before the others.
        include_path: Folder of the user's own tasks, in lm-eval's format.

    Raises:
        ConfigError: if lm-eval is not installed, or a task is unknown, listed twice or not supported.
        SourceError: if a task's questions cannot be read.
    """
    check_installed()
    requests = [*(() if suite is None else SUITES[suite]), *tasks]
    manager = find_tasks([request.name for request in requests], include_path)
    loaded: dict[str, dict[str, Any]] = {"tasks": {}, "groups": {}}
    tasks_of: dict[str, list[str]] = {}
    for request in requests:
        found = load_task(manager, request)
        if shared := sorted(loaded["tasks"].keys() & found["tasks"].keys()):
            raise ConfigError(
                f"--tasks {request.name}: the task {shared[0]} is requested twice.\n  Leave one of the two out."
            )
        loaded["tasks"] |= found["tasks"]
        loaded["groups"] |= found.get("groups", {})
        tasks_of[request.name] = list(found["tasks"])
    return Benchmarks(requests=requests, suite=suite, loaded=loaded, tasks_of=tasks_of)


def check_tasks(tasks: Sequence[TaskRequest], *, include_path: Path | None = None) -> None:
    """Refuse tasks that lm-eval does not have. Questions are not read, and the tasks of a suite are not checked.

    Raises:
        ConfigError: if lm-eval is not installed, or a task is unknown.
    """
    check_installed()
    if tasks:
        find_tasks([task.name for task in tasks], include_path)


def check_installed() -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(f"benchmarks need lm-eval, which is not installed.\n  Install it: pip install {REQUIREMENT}")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns about each of its own defaults


def find_tasks(names: Sequence[str], include_path: Path | None) -> Any:
    """Load lm-eval's index of tasks, and check that it contains every name.

    lm-eval's own tasks are thousands of files, which take half a minute to read. They are skipped if the package's and
    the user's tasks contain every name.
    """
    from lm_eval.tasks import TaskManager

    folders = [TASKS, *([] if include_path is None else [include_path])]
    manager = TaskManager(include_path=folders, include_defaults=False)
    if not set(names) <= set(manager.all_subtasks):
        manager = TaskManager(include_path=folders)
    for name in names:
        if name not in manager.all_tasks:
            raise ConfigError(f"--tasks: {unknown_name('task', name, manager.all_tasks, shown=SHOWN)}")
    return manager


def load_task(manager: Any, request: TaskRequest) -> Any:
    """Load the tasks and groups of a name, with their questions and the requested number of few-shot examples."""
    from datasets import disable_progress_bars

    disable_progress_bars()
    try:
        loaded = manager.load([request.name])
    except Exception as error:  # the Hub, the network and a task's own code can raise anything
        raise SourceError(
            f"task {request.name}: cannot be loaded: {type(error).__name__}: {error}\n"
            "  Most tasks download their questions from the Hugging Face Hub: check the network and HF_HUB_OFFLINE.\n"
            f"  --tasks {FACTS} needs no network. --include_path DIR reads your own tasks."
        ) from error
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            raise ConfigError(
                f"task {name} runs code that a model writes, or needs more than text. Such tasks are not supported.\n"
                "  Run it with lm_eval directly."
            )
        own = task.get_config("num_fewshot")
        if own == 0 and request.num_fewshot:
            raise ConfigError(
                f"--tasks {request.name}:{request.num_fewshot}: the task {name} allows no few-shot examples.\n"
                f"  Write --tasks {request.name}"
            )
        wanted = request.num_fewshot
        task.set_config("num_fewshot", (own or 0) if wanted is None else wanted)
    return loaded
