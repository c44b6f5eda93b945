"""Whether a run may go on from a checkpoint: of the same rows in the same steps, sharded alike, with steps left."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from dpo.errors import ConfigError
from dpo.folders import RESULTS
from dpo.training.config import TrainingConfig
from dpo.training.same_run import check_same_run, check_steps_left, facts_of

PAIRS = {"prompt_ids": [[1, 2], [3], [4]], "chosen_ids": [[5], [6, 7], [8]], "rejected_ids": [[9], [], [10, 11]]}


def rows(**columns: Any) -> Dataset:
    return Dataset.from_dict(PAIRS | columns)


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path):
    """A run's flags, going on from a checkpoint at that step of a run with those facts."""

    def build(step: int | None = None, facts: Any = None, **flags: Any) -> TrainingConfig:
        if step is not None:
            folder = tmp_path / f"checkpoint-{step}"
            folder.mkdir(exist_ok=True)
            noted = {} if facts is None else {"NoteFacts": {"args": facts, "attributes": {}}}
            state = {"global_step": step, "stateful_callbacks": noted}
            (folder / "trainer_state.json").write_text(json.dumps(state))
            flags["resume_from_checkpoint"] = str(folder)
        defaults = {"global_batch_size": 2, "output_dir": str(tmp_path), "model_name_or_path": str(tiny_model)}
        return TrainingConfig(**defaults | flags, use_cpu=True)

    return build


def test_a_run_may_go_on_from_its_own_checkpoint_and_from_one_without_facts(run):
    facts = facts_of(run(), rows())
    check_same_run(run(), facts)
    check_same_run(run(2, facts, learning_rate=1e-7, num_train_epochs=9), facts)
    check_same_run(run(2), facts)


@pytest.mark.parametrize(
    ("flags", "columns", "message"),
    [
        ({"stage": "sft"}, {}, "--stage: dpo when it was made, sft in this run"),
        ({"global_batch_size": 3}, {}, "--global_batch_size: 2 when it was made, 3 in this run"),
        ({"seed": 1}, {}, "order of the rows: shuffled with seed 42 when it was made, shuffled with seed 1"),
        ({"data_seed": 1}, {}, "shuffled with seed 1 in this run"),
        ({"train_sampling_strategy": "sequential"}, {}, "as they come in this run"),
        ({}, {"chosen_ids": [[5], [6, 7], [0]]}, "rows: 3 of hash .* when it was made, 3 of hash"),
        ({}, {"prompt_ids": [[1], [2, 3], [4]]}, "rows: 3 of hash"),
        ({}, {name: ids[::-1] for name, ids in PAIRS.items()}, "rows: 3 of hash"),
        ({}, {name: ids[:2] for name, ids in PAIRS.items()}, "rows: 3 of hash .* 2 of hash"),
    ],
)
def test_another_run_is_refused_by_what_differs(run, flags, columns, message):
    made_with = facts_of(run(), rows())
    now = run(2, made_with, **flags)
    with pytest.raises(ConfigError, match=f"checkpoint-2: .*{message}") as caught:
        check_same_run(now, facts_of(now, rows(**columns)))
    assert "pass it as --model_name_or_path" in str(caught.value)


@pytest.mark.parametrize(
    ("stages", "fits"),
    [
        ((1, 2), True),
        ((2, 1), True),
        ((3, 3), True),
        ((2, 3), False),
        ((3, 1), False),
        ((None, 1), False),
        ((1, None), False),
    ],
)
def test_a_checkpoint_is_read_where_it_is_sharded_alike(run, monkeypatch, stages, fits):
    def facts(config: TrainingConfig, stage: int | None) -> Any:
        # DeepSpeed itself would want a launcher's environment.
        monkeypatch.setattr(config, "deepspeed", None if stage is None else {"zero_optimization": {"stage": stage}})
        return facts_of(config, rows())

    before, now = stages
    config = run(2, facts(run(), before))
    if fits:
        check_same_run(config, facts(config, now))
        return
    with pytest.raises(ConfigError, match="checkpoint-2: sharding: "):
        check_same_run(config, facts(config, now))


@pytest.mark.parametrize(
    ("step", "flags"), [(1, {"max_steps": 3}), (3, {"num_train_epochs": 2.0}), (0, {"max_steps": 1})]
)
def test_a_run_with_steps_left_goes_on(run, capsys, step, flags):
    check_steps_left(run(step, **flags), rows())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("flags", [{"max_steps": 4}, {"num_train_epochs": 2.0}, {"num_train_epochs": 1.7}], ids=str)
def test_a_run_that_has_taken_its_last_step_saves_its_model_unless_that_is_there(run, tmp_path, capsys, flags):
    check_steps_left(run(4, **flags), rows())
    assert "checkpoint-4 is at step 4, the last of this run" in capsys.readouterr().out
    (tmp_path / RESULTS).write_text("{}")
    finished = run(4, **flags, overwrite_output_dir=True)
    with pytest.raises(ConfigError, match=f"nothing is left to train.\n  Raise --{next(iter(flags))}, now "):
        check_steps_left(finished, rows())


def test_a_checkpoint_beyond_the_end_is_refused(run):
    with pytest.raises(ConfigError, match="is at step 4, and this run ends at step 3"):
        check_steps_left(run(4, max_steps=3), rows())
