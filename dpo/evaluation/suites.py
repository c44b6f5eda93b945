"""The benchmarks that a user can request. Imports neither torch nor lm-eval, because the command line uses it."""

__all__ = ["FACTS", "SUITES", "TASKS", "TaskRequest", "parse_task"]

from dataclasses import dataclass
from pathlib import Path

TASKS = Path(__file__).parent / "tasks"
"""The package's own tasks, in lm-eval's format, available without --include_path."""
FACTS = "dpo_facts"
"""One of them: forty plain facts, for a quick test without a network."""


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """A request for a task, group or tag of lm-eval."""

    name: str
    num_fewshot: int | None = None
    """Number of solved examples before each question; None takes the task's own."""
    metric: str | None = None
    """The only metric to report; None reports all."""
    averages_tasks: bool = False
    """Whether the value of a group is the plain mean over its tasks, instead of lm-eval's own value."""


SUITES = {
    # Four benchmarks of the leaderboard's first version, with the settings of Intel's table for neural-chat-7b-v3-1.
    # MMLU is the plain mean over its 57 subjects there, while lm-eval weights each subject by its number of questions.
    "open_llm_leaderboard": (
        TaskRequest(name="arc_challenge", num_fewshot=25, metric="acc_norm"),
        TaskRequest(name="hellaswag", num_fewshot=10, metric="acc_norm"),
        TaskRequest(name="mmlu", num_fewshot=5, metric="acc", averages_tasks=True),
        TaskRequest(name="truthfulqa_mc2", num_fewshot=0, metric="acc"),
    ),
}
"""Benchmarks that are reported together, with their mean."""


def parse_task(text: str) -> TaskRequest:
    """Parse NAME or NAME:SHOTS. "hellaswag:10" requests ten solved examples before each question."""
    name, _, shots = text.rpartition(":")
    if name and shots.isdecimal():
        return TaskRequest(name=name, num_fewshot=int(shots))
    return TaskRequest(name=text)
