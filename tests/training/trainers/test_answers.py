"""SFT on packs against trl.SFTTrainer: the same loss, gradients and training, in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.answers import AnswerTrainer, sequences
from dpo.training.trainers.packed import PackedTrainer
from tests.engine.test_equality import ARCHITECTURES, GRADIENT_TOLERANCE, LOGPS_TOLERANCE, build, random_pairs


def random_answers(num_answers: int = 6, seed: int = 1, vocabulary: int = 320) -> Dataset:
    """Answers of random tokens, as the preparation leaves them: no rejected token."""
    pairs = random_pairs(num_answers, seed, vocabulary)
    pairs = pairs.map(lambda pair: {"rejected_ids": []}, features=pairs.features)
    return pairs.add_column("source", ["rows.jsonl"] * num_answers).add_column("row", list(range(num_answers)))


class Bench:
    """Builds trainers of both engines on the same weights."""

    def __init__(self, tiny_model: Path, tmp_path: Path) -> None:
        self.tiny_model = tiny_model
        self.tmp_path = tmp_path

    def trainer(self, engine: str, answers: Dataset, model: Any = None, **flags: Any) -> Any:
        defaults = {
            "model_name_or_path": str(self.tiny_model),
            "output_dir": str(self.tmp_path / engine),
            "stage": "sft",
            "engine": engine,
            "global_batch_size": len(answers),
            "per_device_train_batch_size": len(answers),
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "logging_steps": 1,
            "gradient_checkpointing": False,
            "save_strategy": "no",
        }
        options: dict[str, Any] = {
            "model": model or AutoModelForCausalLM.from_pretrained(self.tiny_model, dtype=torch.float32),
            "args": TrainingConfig(**defaults | flags),
            "train_dataset": answers,
            "eval_dataset": flags.get("eval_strategy") and answers,
            "processing_class": AutoTokenizer.from_pretrained(self.tiny_model),
        }
        return PackedTrainer(backend="pairwise", **options) if engine == "packed" else AnswerTrainer(**options)


@pytest.fixture
def bench(tiny_model, tmp_path) -> Bench:
    return Bench(tiny_model, tmp_path)


def one_step(trainer: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the first step, as the trainer works them out."""
    trainer.model.train()
    samples, num_items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, trainer.args.device)
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(samples[0]), num_items_in_batch=num_items)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma2", "gpt2", "gpt_oss"])
def test_loss_and_gradients_are_those_of_sfttrainer(architecture, bench):
    assert architecture in ARCHITECTURES
    answers = random_answers()
    loss, gradients = one_step(bench.trainer("packed", answers, build(architecture)))
    expected_loss, expected = one_step(bench.trainer("padded", answers, build(architecture)))
    assert loss == pytest.approx(expected_loss, rel=LOGPS_TOLERANCE)
    assert gradients.keys() == expected.keys()
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        difference = (gradients[name] - gradient).norm()
        assert difference <= GRADIENT_TOLERANCE * gradient.norm() + 1e-6 * largest, name


@torch.no_grad()
def answer_logps(model: Any, answer: dict[str, list[int]]) -> torch.Tensor:
    """Of each token of an answer, from the model's own forward, nats."""
    ids = torch.tensor([answer["prompt_ids"] + answer["chosen_ids"]])
    logps = model(ids).logits[0, :-1].log_softmax(dim=1).gather(1, ids[0, 1:, None])[:, 0]
    return logps[len(answer["prompt_ids"]) - 1 :]


def test_the_loss_is_a_mean_over_answer_tokens_of_the_step(bench):
    answers = random_answers()
    model = build("llama").eval()
    nats = -sum(answer_logps(model, answer).sum().item() for answer in answers)
    tokens = sum(len(answer["chosen_ids"]) for answer in answers)
    loss, _ = one_step(bench.trainer("packed", answers, model))
    assert loss == pytest.approx(nats / tokens, rel=1e-5)


def logged(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def train(trainer: Any) -> Any:
    trainer.train()
    return trainer


def test_both_engines_train_alike_and_evaluate_alike(bench):
    # All answers at once for the padded engine: its evaluation averages over micro-batches, packed's over tokens.
    answers = random_answers(8, vocabulary=250)
    flags = {"global_batch_size": 4, "per_device_train_batch_size": 2, "num_train_epochs": 2, "eval_strategy": "epoch"}
    packed = train(bench.trainer("packed", answers, per_device_eval_batch_size=3, **flags))
    padded = train(bench.trainer("padded", answers, per_device_eval_batch_size=8, **flags))
    assert logged(packed, "loss") == pytest.approx(logged(padded, "loss"), rel=1e-3)
    assert logged(packed, "grad_norm") == pytest.approx(logged(padded, "grad_norm"), rel=1e-3)
    assert logged(packed, "eval_loss") == pytest.approx(logged(padded, "eval_loss"), rel=1e-3)
    assert packed.totals()["answers"] == 16


@pytest.mark.parametrize("at_once", [1, 3])
def test_packed_evaluates_over_tokens_and_padded_over_micro_batches(at_once, bench):
    answers = random_answers(8, vocabulary=250)
    model = build("llama").eval()
    nats = [-answer_logps(model, answer).sum().item() for answer in answers]
    tokens = [len(answer["chosen_ids"]) for answer in answers]
    flags = {"eval_strategy": "epoch", "per_device_eval_batch_size": at_once}
    packed = bench.trainer("packed", answers, build("llama"), **flags).evaluate()["eval_loss"]
    assert packed == pytest.approx(sum(nats) / sum(tokens), rel=1e-4)
    padded = bench.trainer("padded", answers, build("llama"), **flags).evaluate()["eval_loss"]
    means = [
        (sum(nats[start : start + at_once]) / sum(tokens[start : start + at_once]), len(nats[start : start + at_once]))
        for start in range(0, len(answers), at_once)
    ]
    assert padded == pytest.approx(sum(mean * rows for mean, rows in means) / len(answers), rel=1e-4)


def test_the_loss_does_not_depend_on_the_micro_batches(bench):
    answers = random_answers(8, vocabulary=250)
    whole = train(bench.trainer("packed", answers, max_steps=2))
    cut = train(bench.trainer("packed", answers, max_steps=2, per_device_train_batch_size=1))
    assert logged(cut, "loss") == pytest.approx(logged(whole, "loss"), rel=1e-5)
    assert logged(cut, "grad_norm") == pytest.approx(logged(whole, "grad_norm"), rel=1e-4)


def test_prompts_are_labelled_as_not_trained_on():
    rows = {"prompt_ids": [[1, 2]], "chosen_ids": [[3, 4, 5]]}
    assert sequences(rows) == {"input_ids": [[1, 2, 3, 4, 5]], "labels": [[-100, -100, 3, 4, 5]]}
