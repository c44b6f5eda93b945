"""Which benchmarks a user may ask for, and how. No torch and no lm-eval here: a command line is read with it."""

__all__ = ["FACTS", "SUITES", "TASKS", "TaskRequest", "parse_task"]

from dataclasses import dataclass
from pathlib import Path

TASKS = Path(__file__).parent / "tasks"
"""Tasks of our own, in lm-eval's form, known without --include_path."""
FACTS = "dpo_facts"
"""One of them: forty plain facts, for a first look without a network."""


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """A task, group or tag of lm-eval's."""

    name: str
    num_fewshot: int | None = None
    """Solved examples before each question; None leaves it to the task."""
    metric: str | None = None
    """The one metric to report; None reports each."""
    averages_tasks: bool = False
    """Whether a group's value is the plain mean over its tasks, in place of lm-eval's own."""


SUITES = {
    # Four benchmarks of the leaderboard's first version, as Intel's table for neural-chat-7b-v3-1 has them. MMLU there
    # is the plain mean over its 57 subjects, where lm-eval weighs each by its questions.
    "open_llm_leaderboard": (
        TaskRequest(name="arc_challenge", num_fewshot=25, metric="acc_norm"),
        TaskRequest(name="hellaswag", num_fewshot=10, metric="acc_norm"),
        TaskRequest(name="mmlu", num_fewshot=5, metric="acc", averages_tasks=True),
        TaskRequest(name="truthfulqa_mc2", num_fewshot=0, metric="acc"),
    ),
}
"""Benchmarks that are reported together, with their mean."""


def parse_task(text: str) -> TaskRequest:
    """Read NAME or NAME:SHOTS. "hellaswag:10" asks for ten solved examples before each question."""
    name, _, shots = text.rpartition(":")
    if name and shots.isdecimal():
        return TaskRequest(name=name, num_fewshot=int(shots))
    return TaskRequest(name=text)
