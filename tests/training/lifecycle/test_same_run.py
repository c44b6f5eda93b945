"""Resuming is only allowed with the same rows, the same flags and the same sharding."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from dpo.errors import ConfigError
from dpo.training.lifecycle.same_run import check_same_run, row_facts
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.settings.resuming import flag_facts

PAIRS = {"prompt_ids": [[1, 2], [3], [4]], "chosen_ids": [[5], [6, 7], [8]], "rejected_ids": [[9], [], [10, 11]]}


def rows(**columns: Any) -> Dataset:
    return Dataset.from_dict(PAIRS | columns)


def write_checkpoint(folder: Path, facts: Any) -> None:
    folder.mkdir(exist_ok=True)
    state = {"stateful_callbacks": {"NoteFacts": {"args": {"facts": facts}, "attributes": {}}} if facts else {}}
    (folder / "trainer_state.json").write_text(json.dumps(state))


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path):
    """Build a run's flags. It resumes from a checkpoint with these facts, {} for none; None: it does not resume."""

    def build(facts: Any = None, **flags: Any) -> TrainingConfig:
        if facts is not None:
            write_checkpoint(tmp_path / "checkpoint-2", facts)
            flags["resume_from_checkpoint"] = str(tmp_path / "checkpoint-2")
        defaults = {"global_batch_size": 2, "output_dir": str(tmp_path), "model_name_or_path": str(tiny_model)}
        return TrainingConfig(**defaults | flags, use_cpu=True)

    return build


def facts_of(config: TrainingConfig, **columns: Any) -> dict[str, Any]:
    return flag_facts(config) | row_facts(rows(**columns))


def check(config: TrainingConfig, facts: dict[str, Any]) -> None:
    check_same_run(config.resume_from_checkpoint, facts)


def test_a_run_may_resume_from_its_own_checkpoint_and_from_one_without_facts(run):
    facts = facts_of(run())
    check(run(), facts)
    check(run(facts, beta=0.5, num_train_epochs=9, per_device_train_batch_size=2), facts)
    check(run({}), facts)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"stage": "sft"}, "--stage: dpo when the checkpoint was written, sft in this run"),
        ({"global_batch_size": 3}, "--global_batch_size: 2 when the checkpoint was written, 3 in this run"),
        ({"seed": 1}, "--seed: 42 when the checkpoint was written, 1 in this run"),
        ({"data_seed": 1}, "--data_seed: None when the checkpoint was written, 1 in this run"),
        (
            {"train_sampling_strategy": "sequential"},
            "--train_sampling_strategy: random when the checkpoint was written, sequential in",
        ),
        ({"dataloader_drop_last": True}, "--dataloader_drop_last: False when"),
        ({"learning_rate": 2e-6}, "--learning_rate: 1e-06 when the checkpoint was written, 2e-06 in this run"),
        ({"optim": "adafactor"}, "--optim: adamw_torch.* when the checkpoint was written, adafactor in this run"),
    ],
)
def test_other_flags_are_refused_before_rows_are_prepared(run, flags, message):
    made_with = facts_of(run())
    with pytest.raises(ConfigError, match=f"checkpoint-2: {message}") as caught:
        run(made_with, **flags)
    assert "pass the checkpoint as --model_name_or_path" in str(caught.value)


@pytest.mark.parametrize(
    "columns",
    [
        {"chosen_ids": [[5], [6, 7], [0]]},
        {"chosen_ids": [[5, 6], [7], [8]]},
        {name: ids[::-1] for name, ids in PAIRS.items()},
        {name: ids[:2] for name, ids in PAIRS.items()},
    ],
    ids=["another token", "another length", "another order", "fewer"],
)
def test_other_rows_are_refused(run, columns):
    config = run(facts_of(run()))
    with pytest.raises(
        ConfigError,
        match=r"checkpoint-2: rows: 3 of hash \w+ when the checkpoint was written, [23] of hash \w+ in this",
    ):
        check(config, row_facts(rows(**columns) if len(columns) == 1 else Dataset.from_dict(columns)))


def test_prompts_may_differ_because_a_template_may_write_the_date_into_them(run):
    check(run(facts_of(run())), row_facts(rows(prompt_ids=[[1, 3], [3], [4]])))


@pytest.mark.parametrize(
    ("before", "now", "fits"),
    [
        ((1, 1), (2, 1), True),
        ((2, 2), (1, 2), True),
        ((3, 2), (3, 2), True),
        ((0, 1), (0, 2), True),
        ((None, 1), (None, 2), True),
        ((2, 2), (2, 1), False),
        ((3, 1), (3, 2), False),
        ((2, 1), (3, 1), False),
        ((None, 1), (1, 1), False),
        ((1, 1), (None, 1), False),
    ],
    ids=str,
)
def test_a_checkpoint_must_be_sharded_like_the_run(run, monkeypatch, before, now, fits):
    def sharding(stage: int | None, devices: int) -> dict[str, Any]:
        config = run()
        # A real DeepSpeed configuration would need the environment of a launcher.
        monkeypatch.setattr(config, "deepspeed", None if stage is None else {"zero_optimization": {"stage": stage}})
        monkeypatch.setattr(TrainingConfig, "world_size", devices)
        facts = flag_facts(config)
        monkeypatch.undo()
        return facts

    config = run({})
    write_checkpoint(Path(str(config.resume_from_checkpoint)), sharding(*before))
    if fits:
        check(config, sharding(*now))
        return
    with pytest.raises(ConfigError, match="checkpoint-2: sharding: "):
        check(config, sharding(*now))


def test_fsdp_differs_from_no_sharding(run, monkeypatch):
    monkeypatch.setattr("dpo.training.settings.resuming.is_fsdp", lambda config: True)
    facts = flag_facts(run())
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="sharding: FSDP when the checkpoint was written, none in this run"):
        run(facts)
