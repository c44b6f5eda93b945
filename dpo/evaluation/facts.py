"""Loads the rows of the task `dpo_facts`, in the form that its YAML file needs.

A row:

    {"question": "What is 7 plus 5?", "choices": ["13", "12", "11", "35"], "answer": 1}
"""

__all__ = ["load_facts"]

import json
from typing import Any

from datasets import Dataset

from dpo.evaluation.suites import TASKS


def load_facts(**metadata: Any) -> dict[str, Dataset]:
    """Load the questions.

    Args:
        metadata: The metadata in the YAML file, passed by lm-eval and not used.

    Returns:
        Name of the split -> questions.
    """
    lines = (TASKS / "dpo_facts.jsonl").read_text(encoding="utf-8").splitlines()
    return {"test": Dataset.from_list([json.loads(line) for line in lines])}
