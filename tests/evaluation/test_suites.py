"""The benchmarks that a user can request exist in lm-eval."""

import json
from collections import Counter
from pathlib import Path

import lm_eval.tasks
import pytest

from dpo.evaluation.suites import FACTS, SUITES, TASKS, TaskRequest, parse_task

LM_EVAL = Path(lm_eval.tasks.__file__).parent


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("hellaswag", TaskRequest(name="hellaswag")),
        ("hellaswag:10", TaskRequest(name="hellaswag", num_fewshot=10)),
        ("group:task", TaskRequest(name="group:task")),
        (":5", TaskRequest(name=":5")),
    ],
)
def test_a_task_is_a_name_with_an_optional_number_of_examples(text: str, request_: TaskRequest) -> None:
    assert parse_task(text) == request_


def test_every_task_of_the_leaderboard_exists_in_lm_eval_with_its_metric() -> None:
    folders = [LM_EVAL / name for name in ("arc", "hellaswag", "mmlu/default", "truthfulqa")]
    index = lm_eval.tasks.TaskManager(include_path=folders, include_defaults=False).task_index
    suite = {request.name: request for request in SUITES["open_llm_leaderboard"]}
    assert {name: request.num_fewshot for name, request in suite.items()} == {
        "arc_challenge": 25,
        "hellaswag": 10,
        "mmlu": 5,
        "truthfulqa_mc2": 0,
    }
    for name, request in suite.items():
        config = index[name].cfg
        assert config is not None
        metrics = config.get("metric_list") or config["aggregate_metric_list"]
        assert request.metric in {entry["metric"] for entry in metrics}, name
    assert sum(name.startswith("mmlu_") and entry.kind.name == "TASK" for name, entry in index.items()) == 57


def test_the_facts_are_forty_questions_with_the_right_answers_evenly_over_the_four_positions() -> None:
    rows = [json.loads(line) for line in (TASKS / f"{FACTS}.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({row["question"] for row in rows}) == len(rows) == 40
    assert all(len(set(row["choices"])) == 4 for row in rows)
    assert Counter(row["answer"] for row in rows) == {0: 10, 1: 10, 2: 10, 3: 10}
    assert rows[1]["choices"][rows[1]["answer"]] == "Tokyo"
