"""Benchmarks by EleutherAI's lm-eval, on a model that is in memory already.

names -> lm-eval's index -> tasks with their questions, before any model is loaded -> a model's measures
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
"""Tasks that an error lists, of thousands."""
SEED = 1234
"""lm-eval's own, so that its command line draws the same examples."""
CLOSE = 1e-9
"""Largest difference between a value and the mean of its items."""


@dataclass(frozen=True, kw_only=True)
class Benchmarks:
    """Tasks with their questions, ready for one model after the other."""

    requests: Sequence[TaskRequest]
    suite: str | None
    """The suite that the first requests are of, whose mean is reported too."""
    loaded: Mapping[str, Any]
    """lm-eval's tasks and groups by name."""
    tasks_of: Mapping[str, Sequence[str]]
    """The tasks of each request, by its name."""

    def run(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, *, batch_size: int, limit: int | None, uses_template: bool
    ) -> dict[str, Measure]:
        """A model's measures, by the name of their row.

        Args:
            model: In memory, on its device.
            tokenizer: The model's.
            batch_size: Requests at once.
            limit: Questions of each task, the first ones; None takes all.
            uses_template: Whether questions are asked in the tokenizer's chat template, examples as earlier turns.
        """
        from lm_eval import evaluate
        from lm_eval.models.huggingface import HFLM

        set_seed(SEED)
        for task in self.loaded["tasks"].values():  # anew, or a second model would be shown other examples
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
        """What one request gives: the group's own measures where it has some, else those of its tasks."""
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
        """Such as "hellaswag, 10-shot, acc_norm"."""
        tasks = self.tasks_of.get(name, [name])
        shots = {self.loaded["tasks"][task].get_config("num_fewshot") for task in tasks}
        told = f", {shots.pop()}-shot" if len(shots) == 1 else ""
        return f"{name}{told}, {label}"


def measures_of(
    name: str, tasks: Sequence[str], results: Mapping[str, Any], metric: str | None = None
) -> dict[str, Measure]:
    """The measures that lm-eval reports under a name, by metric.

    Args:
        name: A task or a group.
        tasks: The tasks it stands for.
        results: Of lm_eval.evaluate, with samples.
        metric: The one to read; None reads all.
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
    """The metric by task and question; empty where the value is not their mean, as a perplexity."""
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
        tasks: What to load.
        suite: A name in SUITES, whose tasks are loaded before them.
        include_path: Folder of a user's own tasks, in lm-eval's form.

    Raises:
        ConfigError: lm-eval is not installed, a task is unknown or named twice, or cannot be run here.
        SourceError: a task's questions cannot be read.
    """
    check_installed()
    requests = [*(() if suite is None else SUITES[suite]), *tasks]
    manager = find_tasks([request.name for request in requests], include_path)
    loaded: dict[str, dict[str, Any]] = {"tasks": {}, "groups": {}}
    tasks_of: dict[str, list[str]] = {}
    for request in requests:
        found = load_task(manager, request)
        if shared := sorted(loaded["tasks"].keys() & found["tasks"].keys()):
            raise ConfigError(f"--tasks {request.name}: {shared[0]} is asked for twice.\n  Leave out one of the two.")
        loaded["tasks"] |= found["tasks"]
        loaded["groups"] |= found.get("groups", {})
        tasks_of[request.name] = list(found["tasks"])
    return Benchmarks(requests=requests, suite=suite, loaded=loaded, tasks_of=tasks_of)


def check_tasks(tasks: Sequence[TaskRequest], *, include_path: Path | None = None) -> None:
    """Refuse tasks that lm-eval does not have. Their questions are not read, and a suite is taken on trust.

    Raises:
        ConfigError: lm-eval is not installed, or a task is unknown.
    """
    check_installed()
    if tasks:
        find_tasks([task.name for task in tasks], include_path)


def check_installed() -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(f"benchmarks are run by lm-eval, which is not installed.\n  pip install {REQUIREMENT}")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # warnings on each of its defaults


def find_tasks(names: Sequence[str], include_path: Path | None) -> Any:
    """lm-eval's index of tasks, in which every name stands.

    Its own tasks are thousands of files, half a minute to read, and are left out where our own and the user's will do.
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
    """The tasks and groups that a name stands for, with their questions and the examples that were asked for."""
    from datasets import disable_progress_bars

    disable_progress_bars()
    try:
        loaded = manager.load([request.name])
    except Exception as error:  # the Hub, the network and tasks' own code fail in any way
        raise SourceError(
            f"task {request.name}: cannot be loaded: {type(error).__name__}: {error}\n"
            "  Most tasks take their questions from the Hugging Face Hub: check the network and HF_HUB_OFFLINE.\n"
            f"  --tasks {FACTS} needs neither; --include_path DIR reads tasks of your own."
        ) from error
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
            raise ConfigError(
                f"task {name} runs code that a model writes, or asks about more than text, which is not done here.\n"
                "  Run it with lm_eval itself."
            )
        own = task.get_config("num_fewshot")
        if own == 0 and request.num_fewshot:
            raise ConfigError(
                f"--tasks {request.name}:{request.num_fewshot}: {name} is asked without examples, as it says itself.\n"
                f"  Write --tasks {request.name}"
            )
        wanted = request.num_fewshot
        task.set_config("num_fewshot", (own or 0) if wanted is None else wanted)
    return loaded
