"""The packed trainer: steps, reference, evaluation, and what it refuses."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconConfig,
    FalconForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

from dpo.engine.forward import PackedForward
from dpo.engine.logps import LogitTransform
from dpo.engine.packing import pack_pairs
from dpo.engine.reference_cache import ReferenceCache
from dpo.errors import ConfigError, ModelError
from dpo.training.lifecycle.same_run import NoteFacts
from dpo.training.lifecycle.soundness import EndOnNan
from dpo.training.settings.engine import why_padded
from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.base import RunTrainer
from dpo.training.trainers.packed import PackedTrainer
from dpo.training.trainers.padded import PreferenceTrainer
from dpo.training.trainers.reference import Reference
from tests.engine.test_equality import build, random_pairs


def numbered(num_pairs: int, seed: int = 1) -> Dataset:
    pairs = random_pairs(num_pairs, seed, vocabulary=250)
    return pairs.add_column("source", ["rows.jsonl"] * num_pairs).add_column("row", list(range(num_pairs)))


class Bench:
    """Builds trainers on one tiny model."""

    def __init__(self, tiny_model: Path, tmp_path: Path) -> None:
        self.tiny_model = tiny_model
        self.tmp_path = tmp_path

    def load(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.tiny_model, dtype=torch.float32)

    def config(self, **flags: Any) -> TrainingConfig:
        defaults = {
            "model_name_or_path": str(self.tiny_model),
            "output_dir": str(self.tmp_path / "out"),
            "global_batch_size": 4,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "logging_steps": 1,
            "max_steps": 3,
            "gradient_checkpointing": False,
            "save_strategy": "no",
        }
        return TrainingConfig(**defaults | flags)

    def trainer(self, pairs: Dataset, *, kind: Any = PackedTrainer, cached: bool = False, **flags: Any) -> Any:
        eval_pairs = flags.pop("eval_dataset", None)
        without_reference = flags.pop("without_reference", False)
        model = flags.pop("model", None) or self.load()
        options: dict[str, Any] = {
            "model": model,
            "args": self.config(**flags),
            "train_dataset": pairs,
            "eval_dataset": eval_pairs,
            "processing_class": AutoTokenizer.from_pretrained(self.tiny_model),
        }
        if kind is PackedTrainer:
            options["backend"] = "pairwise"
        if cached:
            options["reference"] = Reference(load=self.load, cache=ReferenceCache(self.tmp_path / "cache", {}))
        elif not hasattr(model, "peft_config") and not without_reference:
            options["ref_model"] = self.load()
        return kind(**options)


@pytest.fixture
def bench(tiny_model, tmp_path) -> Bench:
    return Bench(tiny_model, tmp_path)


def logged(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def train(trainer: Any) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    trainer.train()
    return logged(trainer, "loss"), logged(trainer, "grad_norm"), trainer.model.state_dict()


def assert_same_training(one: Any, other: Any) -> None:
    (losses, norms, weights), (other_losses, other_norms, other_weights) = one, other
    assert losses == pytest.approx(other_losses, rel=1e-4)
    assert norms == pytest.approx(other_norms, rel=1e-3)
    for name, weight in weights.items():
        torch.testing.assert_close(weight, other_weights[name], rtol=1e-3, atol=2e-4)


def test_a_changed_chosen_answer_leaves_rejected_alone(bench):
    forward = PackedForward(bench.load().eval(), "pairwise")
    pair = {"prompt_ids": [5, 6, 7], "chosen_ids": [10, 11, 12, 13], "rejected_ids": [20, 21, 22]}
    other = pair | {"chosen_ids": [30, 31, 32, 33]}
    neighbour = {"prompt_ids": [8], "chosen_ids": [9], "rejected_ids": [10, 11]}
    before = forward.logps(forward.model, pack_pairs([pair, neighbour], [0, 1]))
    after = forward.logps(forward.model, pack_pairs([other, neighbour], [0, 1]))
    assert before[0] != after[0]
    assert before[1:].tolist() == after[1:].tolist()


def test_twenty_steps_end_like_those_of_the_padded_engine(bench):
    pairs, held_out = numbered(32), numbered(10, seed=5)
    runs = {}
    for name, kind in (("packed", PackedTrainer), ("padded", PreferenceTrainer)):
        trainer = bench.trainer(
            pairs, kind=kind, eval_dataset=held_out, max_steps=20, per_device_eval_batch_size=10,
            engine=name, eval_strategy="no",
        )  # fmt: skip
        runs[name] = train(trainer), trainer.evaluate()
    (packed, packed_eval), (padded, padded_eval) = runs["packed"], runs["padded"]
    assert packed[0] == pytest.approx(padded[0], rel=1e-3)
    assert packed[0][-1] < 0.6, "the run learns something"
    for name in ("loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen"):
        assert packed_eval[f"eval_{name}"] == pytest.approx(padded_eval[f"eval_{name}"], rel=1e-3, abs=1e-3), name


@pytest.mark.parametrize(
    "flags",
    [
        {"per_device_train_batch_size": 8},
        {"per_device_train_batch_size": 2},
        {"per_device_train_batch_size": 8, "max_tokens_per_micro_batch": 60},
        {"per_device_train_batch_size": 8, "gradient_checkpointing": True},
        {"per_device_train_batch_size": 8, "cached": True},
    ],
    ids=lambda flags: ", ".join(flags),
)
def test_how_a_step_is_divided_does_not_change_it(bench, flags):
    pairs = numbered(24)
    one_by_one = bench.trainer(pairs, global_batch_size=8, per_device_train_batch_size=1)
    assert one_by_one.args.gradient_accumulation_steps == 8
    divided = bench.trainer(pairs, global_batch_size=8, **flags)
    assert_same_training(train(divided), train(one_by_one))


def test_a_step_with_fewer_pairs_than_micro_batches_counts_each_pair_once(bench):
    pairs = numbered(3)
    wide = bench.trainer(pairs, global_batch_size=8, per_device_train_batch_size=1, max_steps=2)
    one = bench.trainer(pairs, global_batch_size=8, per_device_train_batch_size=8, max_steps=2)
    assert_same_training(train(wide), train(one))
    assert wide.totals()["pairs"] == 6


def test_a_bound_on_tokens_raises_the_accumulation_and_holds(bench):
    pairs = numbered(24)
    trainer = bench.trainer(pairs, global_batch_size=8, per_device_train_batch_size=8, max_tokens_per_micro_batch=60)
    sizes = [batch["pack"].num_tokens for batch in trainer.get_train_dataloader()]
    assert trainer.args.gradient_accumulation_steps > 1
    assert max(sizes) <= 60
    assert trainer.args.accumulation_asked is None, "what is written down is what was asked for"


def test_a_pair_longer_than_the_bound_is_named(bench):
    with pytest.raises(ConfigError, match=r"rows\.jsonl, row \d+ has \d+ tokens"):
        bench.trainer(numbered(8), max_tokens_per_micro_batch=20)


def test_every_pair_of_an_epoch_is_trained_on_once(bench):
    trainer = bench.trainer(numbered(10), max_steps=-1, num_train_epochs=1)
    packs = [batch["pack"] for batch in trainer.get_train_dataloader()]
    assert sorted(row for pack in packs if not pack.is_filler for row in pack.rows) == list(range(10))
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.totals()["pairs"] == 10


def test_metrics_are_means_over_pairs_and_not_over_micro_batches(bench):
    held_out = numbered(7, seed=5)
    values = []
    for pairs_at_once in (1, 4, 7):
        trainer = bench.trainer(numbered(8), eval_dataset=held_out, per_device_eval_batch_size=pairs_at_once)
        trainer.train()
        values.append(trainer.evaluate())
    for name in ("eval_loss", "eval_rewards/margins", "eval_logps/rejected"):
        assert values[0][name] == pytest.approx(values[1][name], rel=1e-4)
        assert values[0][name] == pytest.approx(values[2][name], rel=1e-4)


def test_the_report_counts_pairs_and_tokens(bench):
    pairs = numbered(12)
    trainer = bench.trainer(pairs, max_steps=3)
    trainer.train()
    totals = trainer.totals()
    shared = sum(len(p["prompt_ids"]) + len(p["chosen_ids"]) + len(p["rejected_ids"]) for p in pairs)
    assert totals["pairs"] == 12
    assert totals["tokens"] == shared
    assert totals["tokens_unshared"] == shared + sum(len(p["prompt_ids"]) for p in pairs)
    assert totals["peak_memory_gib"] > 0.1 and totals["reference_runtime"] == 0


class TestReference:
    """The cache between runs."""

    def test_a_second_run_finds_everything_and_trains_the_same(self, bench):
        pairs = numbered(24)
        first = bench.trainer(pairs, cached=True, max_steps=6)
        assert first.reference.runtime_s > 0
        second = bench.trainer(pairs, cached=True, beta=0.2, global_batch_size=8)
        assert second.reference.runtime_s == 0
        again = bench.trainer(pairs, cached=True, max_steps=6)
        assert again.reference.runtime_s == 0
        assert_same_training(train(again), train(first))
        assert_same_training(train(bench.trainer(pairs)), train(bench.trainer(pairs, cached=True)))

    def test_a_reference_weighs_tokens_as_the_policy_does(self, bench):
        pairs = numbered(12)
        live, cached = (train(bench.trainer(pairs, cached=cached, ld_alpha=0.3)) for cached in (False, True))
        assert_same_training(live, cached)
        assert cached[0][0] == pytest.approx(0.6931, abs=1e-4), "the same model is its own reference"

    def test_a_run_of_few_steps_computes_no_more_than_it_sees(self, bench):
        bench.trainer(numbered(24), cached=True, max_steps=2)
        files = list((bench.tmp_path / "cache").glob("*/*.npy"))
        import numpy as np

        assert sum(len(np.load(file)) for file in files) == 8

    def test_new_pairs_are_computed_and_known_ones_are_not(self, bench):
        bench.trainer(numbered(12), cached=True, max_steps=3)
        trainer = bench.trainer(numbered(12, seed=8), cached=True, max_steps=3)
        assert trainer.reference.runtime_s > 0

    def test_an_interrupted_pass_goes_on_where_it_ended(self, bench, monkeypatch):
        pairs = numbered(40)
        monkeypatch.setattr("dpo.engine.reference_pass.BLOCK", 2)
        original, calls = PackedForward.logps, []

        def interrupted(self, model, pack):
            calls.append(pack.rows)
            if len(calls) == 6:
                raise KeyboardInterrupt
            return original(self, model, pack)

        flags = {"cached": True, "max_steps": 10, "per_device_eval_batch_size": 2}
        with monkeypatch.context() as patch:
            patch.setattr(PackedForward, "logps", interrupted)
            with pytest.raises(KeyboardInterrupt):
                bench.trainer(pairs, **flags)
        kept = sorted(row for rows in calls[:4] for row in rows)
        seen: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(
                PackedForward, "logps", lambda self, m, pack: (seen.append(len(pack.rows)), original(self, m, pack))[1]
            )
            bench.trainer(pairs, **flags)
        checked = 3
        assert sum(seen) - checked == 40 - len(kept), "what was kept is checked in three places and not computed again"

    def test_numbers_that_the_reference_does_not_give_are_an_error(self, bench):
        import numpy as np

        pairs = numbered(8)
        bench.trainer(pairs, cached=True, max_steps=2)
        for file in (bench.tmp_path / "cache").glob("*/*.npy"):
            entries = np.load(file)
            entries["logps"] += 1.0
            np.save(file, entries)
        with pytest.raises(ModelError, match="Delete the folder"):
            bench.trainer(pairs, cached=True, max_steps=2)

    def test_the_reference_is_let_go_before_training(self, bench):
        import gc
        import weakref

        held = []

        def load():
            model = bench.load()
            held.append(weakref.ref(model))
            return model

        bench.load_original = bench.load
        reference = Reference(load=load, cache=ReferenceCache(bench.tmp_path / "cache", {}))
        trainer = PackedTrainer(
            model=bench.load_original(), args=bench.config(), train_dataset=numbered(8), backend="pairwise",
            reference=reference, processing_class=AutoTokenizer.from_pretrained(bench.tiny_model),
        )  # fmt: skip
        del reference
        gc.collect()
        assert len(held) == 1 and held[0]() is None
        assert trainer.reference.live is None


def test_with_lora_the_reference_is_the_model_without_its_adapter(bench):
    pairs = numbered(16)

    def adapted() -> Any:
        torch.manual_seed(0)
        model = get_peft_model(bench.load(), LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(std=0.05)
        return model

    packed = bench.trainer(pairs, model=adapted())
    # TRL adds a frozen copy of an adapter that was there before; without it, the model itself is the reference.
    padded = bench.trainer(pairs, model=adapted(), kind=PreferenceTrainer, engine="padded")
    one, other = train(packed), train(padded)
    assert one[0] == pytest.approx(other[0], rel=1e-4)
    assert one[1] == pytest.approx(other[1], rel=1e-3)
    cached = bench.trainer(pairs, model=get_peft_model(bench.load(), LoraConfig(r=4)), cached=True)
    losses, _, _ = train(cached)
    assert losses[0] == pytest.approx(0.6931, abs=1e-4)
    assert losses[-1] != losses[0]


def test_bfloat16_is_near_float32(bench):
    pairs = numbered(16)
    half, whole = train(bench.trainer(pairs, bf16=True)), train(bench.trainer(pairs))
    assert half[0] == pytest.approx(whole[0], abs=0.02)
    assert half[0] != whole[0]


def test_a_model_that_does_something_unknown_to_its_logits_is_refused(bench):
    trainer = bench.trainer(numbered(8))
    trainer.policy.transform = LogitTransform(scale=1.1)
    with pytest.raises(ModelError, match="--engine padded"):
        trainer.train()


def test_generation_has_the_models_own_attention(bench):
    trainer = bench.trainer(numbered(8))
    ids = torch.tensor([[5, 6, 7]])
    with trainer.ordinary_attention():
        found = trainer.model.generate(ids, max_new_tokens=5, do_sample=False)
    assert found.tolist() == bench.load().generate(ids, max_new_tokens=5, do_sample=False).tolist()
    assert trainer.model.config._attn_implementation == "dpo_packed_pairwise"


@pytest.mark.parametrize(
    "flags",
    [{"loss": ["simpo"], "beta": 2.0}, {"loss": ["orpo"]}, {"loss": ["cpo"]}, {"reference_free": True}],
    ids=str,
)
def test_a_loss_without_a_reference_trains_without_one(bench, flags):
    pairs = numbered(12)
    trainer = bench.trainer(pairs, without_reference=True, eval_dataset=pairs, eval_on_start=True, **flags)
    assert trainer.reference.live is None
    trainer.train()
    losses = logged(trainer, "loss")
    assert len(losses) == 3
    assert logged(trainer, "rewards/chosen")[0] < 0, "log-probabilities themselves, below 0"
    after = trainer.evaluate()
    assert after["eval_loss"] < logged(trainer, "eval_loss")[0]


def test_evaluation_weighs_pairs_as_training_does(bench):
    pairs = numbered(4)
    flags = {"use_weighting": True, "ld_alpha": 0.3, "eval_dataset": pairs, "eval_on_start": True, "max_steps": 1}
    trainer = bench.trainer(pairs, **flags)
    trainer.train()
    (evaluated,), (trained,) = logged(trainer, "eval_loss"), logged(trainer, "loss")
    assert evaluated == pytest.approx(trained, rel=1e-5)
    assert trained < 0.6, "log 2, less what the policy is not sure of"


class TestWhyPadded:
    """When the engine falls back."""

    def test_an_ordinary_run_is_packed(self, bench):
        assert why_padded(bench.config(), bench.load()) is None

    def test_an_architecture_outside_the_attention_interface_falls_back(self, bench):
        config = FalconConfig(vocab_size=320, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
        assert "attention interface" in str(why_padded(bench.config(), FalconForCausalLM(config)))

    def test_layers_that_are_no_attention_fall_back(self, bench):
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
        config = Lfm2Config(vocab_size=320, num_hidden_layers=2, layer_types=["conv", "full_attention"], **sizes)
        assert "layers of type conv" in str(why_padded(bench.config(), Lfm2ForCausalLM(config)))

    @pytest.mark.parametrize(
        ("flags", "named"),
        [
            ({"sync_ref_model": True}, "--sync_ref_model"),
            ({"stage": "sft", "train_sampling_strategy": "group_by_length"}, "--train_sampling_strategy"),
            ({"neftune_noise_alpha": 5.0}, "--neftune_noise_alpha"),
        ],
        ids=str,
    )
    def test_options_of_trls_loss_fall_back(self, bench, flags, named):
        assert named in str(why_padded(bench.config(**flags), bench.load()))

    def test_a_router_with_an_auxiliary_loss_falls_back(self, bench):
        model = build("gpt_oss")
        model.config.router_aux_loss_coef = 0.1
        assert "--router_aux_loss_coef 0" in str(why_padded(bench.config(), model))
        assert why_padded(bench.config(router_aux_loss_coef=0.0), model) is None


def test_a_checkpoint_in_the_middle_of_an_epoch_goes_on_with_the_pairs_that_are_left(bench):
    pairs = numbered(24)
    flags = {"max_steps": 9, "save_strategy": "steps", "save_steps": 4}
    whole = bench.trainer(pairs, **flags)
    whole.train()
    resumed = bench.trainer(pairs, **flags | {"output_dir": str(bench.tmp_path / "again")})
    resumed.train(resume_from_checkpoint=str(bench.tmp_path / "out" / "checkpoint-4"))
    assert logged(resumed, "loss") == pytest.approx(logged(whole, "loss"), abs=1e-6)
    state = json.loads((bench.tmp_path / "again" / "checkpoint-8" / "trainer_state.json").read_text())
    assert state["global_step"] == 8


def test_a_checkpoint_of_the_last_step_takes_no_further_one(bench):
    """Without the override transformers takes one where --max_steps ends within an epoch."""
    flags = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    first = bench.trainer(numbered(24), **flags)
    first.add_callback(NoteFacts({"--stage": "dpo"}))
    first.train()
    checkpoint = bench.tmp_path / "out" / "checkpoint-2"
    flags["output_dir"] = str(bench.tmp_path / "again")
    resumed = bench.trainer(numbered(24), **flags, restore_callback_states_from_checkpoint=True)
    resumed.add_callback(NoteFacts({"--stage": "dpo"}))
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 2
    for name, weight in load_file(checkpoint / "model.safetensors").items():
        torch.testing.assert_close(resumed.model.get_parameter(name).data, weight, rtol=0, atol=0)


class Spoil(TrainerCallback):
    """Makes a weight NaN before step 3."""

    def on_step_begin(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            next(model.parameters()).data.fill_(torch.nan)


@pytest.mark.parametrize("flags", [{}, {"kind": PreferenceTrainer, "engine": "padded"}], ids=["packed", "padded"])
@pytest.mark.parametrize("logging_steps", [1, 10])
def test_a_loss_of_nan_ends_the_run_before_its_weights_are_saved(logging_steps, flags, bench):
    saving = {"save_strategy": "steps", "save_steps": 1, "logging_steps": logging_steps}
    trainer = bench.trainer(numbered(24), **flags, **saving, max_steps=6)
    trainer.add_callback(Spoil())
    with pytest.raises(ModelError) as caught:
        trainer.train()
    said = str(caught.value)
    assert re.match(r"the loss is nan at step 3; at step 2 the loss was 0\.\d+, the norm of the gradient was \d", said)
    assert "checkpoint-2 is from before" in said
    assert not (bench.tmp_path / "out" / "checkpoint-3").exists()
    for weight in load_file(bench.tmp_path / "out" / "checkpoint-2" / "model.safetensors").values():
        assert weight.isfinite().all()


def test_a_run_that_neither_logs_nor_saves_ends_on_its_last_step_of_nan(bench):
    trainer = bench.trainer(numbered(24), max_steps=4, logging_steps=10)
    trainer.add_callback(Spoil())
    with pytest.raises(ModelError, match=r"the loss is nan at step 4; at step 1 the loss was 0\.6931, "):
        trainer.train()


@pytest.mark.parametrize("skips", [False, True])
def test_a_gradient_of_nan_ends_a_run_that_takes_its_step(skips, bench):
    end = EndOnNan(skips=skips)
    state = TrainerState(global_step=7, log_history=[{"loss": 0.5, "grad_norm": 2.0, "step": 6}, {}])
    logs = {"loss": 0.5, "grad_norm": math.inf}
    if skips:
        end.on_log(bench.config(), state, TrainerControl(), logs=logs)
        return
    with pytest.raises(
        ModelError, match=r"the norm of the gradient is inf at step 7; at step 6 the loss was 0\.5, the norm"
    ):
        end.on_log(bench.config(), state, TrainerControl(), logs=logs)


def test_where_steps_of_nan_are_skipped_five_in_a_row_end_the_run(bench):
    end, state = EndOnNan(skips=True), TrainerState(global_step=7)
    for loss in (*[math.nan] * 4, 0.5, *[math.nan] * 4):
        end.on_log(bench.config(), state, TrainerControl(), logs={"loss": loss})
    end.on_log(bench.config(), state, TrainerControl(), logs={"eval_loss": 0.5})
    with pytest.raises(ModelError, match="the loss is nan at step 7"):
        end.on_log(bench.config(), state, TrainerControl(), logs={"loss": math.nan})


def test_a_run_all_of_whose_steps_were_skipped_ends_in_an_error(bench):
    end, control = EndOnNan(skips=True), TrainerControl(should_training_stop=True)
    logs = {"loss": math.nan}
    some = [{"loss": 0.5, "step": 1}, logs]
    end.on_log(bench.config(), TrainerState(global_step=2, log_history=some), control, logs=logs)
    with pytest.raises(ModelError, match=r"the loss is nan at step 2\.\n"):
        end.on_log(bench.config(), TrainerState(global_step=2, log_history=[logs]), control, logs=logs)


def test_weights_of_nan_are_not_taken_for_a_model_that_packed_does_not_know(bench):
    model = bench.load()
    next(model.parameters()).data.fill_(torch.nan)
    with pytest.raises(
        ModelError,
        match=r"own forward computes the log-probabilities .*nan.* for a pair\.\n"
        r"  The model contains NaN or infinite weights. Start",
    ):
        bench.trainer(numbered(8), model=model).train()


def test_pairs_weigh_by_their_scores(bench):
    pairs = numbered(4).add_column("score_chosen", [4.0, 8.0, 3.0, None]).add_column("score_rejected", [1.0] * 4)
    weights = [3 / 4, 7 / 4, 2 / 4, 1.0]  # margins 3, 7 and 2, whose mean is 4, and one that nobody knows
    trainer = bench.trainer(pairs, cached=True, weight_by_score=True, eval_dataset=pairs)
    batch = next(iter(trainer.get_train_dataloader()))
    rows = batch["pack"].rows
    assert batch["pack"].weights.tolist() == [weights[row] for row in rows]
    loss = trainer.compute_loss(trainer.model, batch).item()
    assert loss == pytest.approx(math.log(2) * sum(weights[row] for row in rows) / 4, rel=1e-5)
    assert trainer.weights["eval"].tolist() == weights


def test_weights_by_score_are_for_losses_that_keep_pairs_apart_and_for_packed(bench):
    with pytest.raises(ConfigError, match="--weight_by_score weighs pairs, which --loss aot does not keep apart"):
        bench.config(loss=["aot"], weight_by_score=True)
    with pytest.raises(ConfigError, match="--weight_by_score is computed by --engine packed alone"):
        bench.config(engine="padded", weight_by_score=True)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"loss": ["ipo"]}, "--loss is for pairs"),
        ({"beta": 0.3}, "--beta is for pairs"),
        ({"ld_alpha": 0.3}, "--ld_alpha is for pairs"),
        ({"label_smoothing": 0.1}, "--label_smoothing is for pairs"),
        ({"weight_by_score": True}, "--weight_by_score is for pairs"),
        ({"reference_cache": "folder"}, "no reference is read with answers"),
    ],
)
def test_what_belongs_to_pairs_is_refused_at_the_stage_sft(flags, message, bench):
    with pytest.raises(ConfigError, match=message):
        bench.config(stage="sft", **flags)


def test_a_layout_moves_to_the_devices_of_a_spread_model_once():
    layout = pack_pairs([{"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}], [0]).layout
    elsewhere = layout.to("meta", non_blocking=True)
    assert elsewhere.varlen.key_index.device.type == "meta" and layout.varlen.key_index.device.type == "cpu"
    assert layout.to(torch.device("meta")) is elsewhere
    assert layout.to("cpu") is layout


def test_the_trainer_stands_on_public_methods() -> None:
    """What transformers keeps private may change with any version; docs/internals.md lists the exceptions."""
    overridden = {
        name
        for cls in (PackedTrainer, RunTrainer)
        for name in vars(cls)
        if name.startswith("_") and not name.startswith("__") and hasattr(Trainer, name)
    }
    assert overridden == {"_save"}
