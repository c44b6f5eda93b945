"""The checks and the preparation of output_dir before the first step."""

from pathlib import Path

import pytest
from transformers import TrainerState

from dpo.errors import ConfigError
from dpo.folders import RESULTS
from dpo.training.lifecycle.starting import StartOutput
from dpo.training.settings.resolving import TrainingConfig


@pytest.fixture
def begin(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Begin a run that resumes at a step of a number of steps. Returns ["started"] if output_dir was prepared."""

    def run(step: int, steps: int, **flags: float) -> list[str]:
        config = TrainingConfig(
            output_dir=str(tmp_path),
            model_name_or_path=str(tiny_model),
            overwrite_output_dir=True,
            use_cpu=True,
            **flags,
        )
        config.resume_from_checkpoint = f"{tmp_path}/checkpoint-{step}"
        made: list[str] = []
        monkeypatch.setattr(
            "dpo.training.lifecycle.starting.start_output", lambda *args, **options: made.append("started")
        )
        state = TrainerState(global_step=step, max_steps=steps)
        StartOutput(config, prepared=None, overwrite=True).on_train_begin(config, state, None)  # type: ignore[arg-type]
        return made

    return run


def test_a_run_with_steps_left_continues(begin, capsys):
    assert begin(3, 4, max_steps=4) == ["started"]
    assert capsys.readouterr().out == ""


def test_a_run_that_was_interrupted_after_its_last_step_saves_its_model(begin, capsys):
    assert begin(4, 4, max_steps=4) == ["started"]
    assert (
        "checkpoint-4 is at step 4, the last step of this run: the model is saved without further training"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("flags", "named"),
    [({"max_steps": 4}, "--max_steps 4"), ({"num_train_epochs": 1.5}, "--num_train_epochs 1.5")],
)
def test_a_finished_run_is_not_changed(begin, tmp_path, flags, named):
    (tmp_path / RESULTS).write_text("{}")
    with pytest.raises(ConfigError, match=f"is at step 4, and with {named} this run ends at step 4: nothing is left"):
        begin(4, 4, **flags)


def test_a_checkpoint_beyond_the_end_is_refused(begin):
    with pytest.raises(ConfigError, match="is at step 4, and with --max_steps 3 this run ends at step 3"):
        begin(4, 3, max_steps=3)
