"""Several models: their results, and that only one is in memory at a time."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from dpo.data.config import DataConfig
from dpo.errors import ModelError, TokenizerError
from dpo.evaluation import run as evaluation_run
from dpo.evaluation.benchmarks import load_benchmarks
from dpo.evaluation.run import Evaluation, Outcome
from dpo.evaluation.suites import FACTS, TaskRequest
from tests.builders import SAMPLES

PAIRS = DataConfig(datasets=(f"nectar={SAMPLES / 'nectar.jsonl'}",))


def outcomes_of(evaluation: Evaluation) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    evaluation.run(lambda model, outcome: found.update({model: outcome}))
    return found


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The loaded models, in order. Fails if a model is loaded while another one is still in memory."""
    load = evaluation_run.load_causal_lm
    alive: list[weakref.ref[PreTrainedModel]] = []
    loaded = []

    def watched(located: Any, **options: Any) -> PreTrainedModel:
        assert all(model() is None for model in alive), "another model is in memory"
        model = load(located, **options)
        alive.append(weakref.ref(model))
        loaded.append(Path(located.base))
        return model

    monkeypatch.setattr(evaluation_run, "load_causal_lm", watched)
    return loaded


def test_one_model_is_in_memory_at_a_time_and_the_reference_is_loaded_once(tiny_llamas, loads) -> None:
    first, second = tiny_llamas
    benchmarks = load_benchmarks([TaskRequest(name=FACTS)])
    found = outcomes_of(
        Evaluation(models=[str(second), str(first)], benchmarks=benchmarks, data=PAIRS, reference=str(first), limit=4)
    )
    assert loads == [second, first, first]  # a model, the reference, and then the other model
    assert list(found) == [str(second), str(first)]
    assert [outcome.report.total().kept for outcome in found.values() if outcome.report] == [91, 91]


def test_a_model_that_is_its_own_reference_has_margins_of_0(tiny_llamas) -> None:
    first, second = map(str, tiny_llamas)
    found = outcomes_of(Evaluation(models=[first, second], data=PAIRS, reference=first, limit=6))
    itself, other = (outcome.measures for outcome in found.values())
    assert itself["pairs, reward margin"].value == 0
    assert set(itself["pairs, reward margin"].items.values()) == {0.0}
    assert itself["pairs, reward accuracy"].value == 0
    assert itself["pairs, equal rewards, counted as wrong"].value == 1
    assert other["pairs, reward margin"].value != 0
    assert other["pairs, equal rewards, counted as wrong"].value == 0
    assert other["pairs, reward margin"].items.keys() == itself["pairs, reward margin"].items.keys()


def test_an_adapter_s_folder_is_measured_on_its_base(tiny_llamas, loads, tmp_path) -> None:
    base, adapter = tiny_llamas[0], tmp_path / "adapter"
    lora = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    get_peft_model(model, lora, autocast_adapter_dtype=False).save_pretrained(adapter)
    benchmarks = load_benchmarks([TaskRequest(name=FACTS)])
    evaluation = Evaluation(models=[str(adapter)], benchmarks=benchmarks, data=PAIRS, reference=str(base), limit=4)
    (outcome,) = outcomes_of(evaluation).values()
    assert loads == [base, base]
    assert outcome.measures["dpo_facts, 0-shot, acc"].num_items == 4
    assert outcome.measures["pairs, reward margin"].value != 0


def test_rewards_grow_with_beta(tiny_llamas) -> None:
    first, second = map(str, tiny_llamas)
    margins = [
        outcomes_of(Evaluation(models=[second], data=PAIRS, reference=first, limit=3, beta=beta))[second]
        .measures["pairs, reward margin"]
        .value
        for beta in (0.1, 0.2)
    ]
    assert margins[1] == pytest.approx(2 * margins[0])


def test_mistakes_that_need_no_weights_are_reported_before_any_model_is_loaded(tiny_llamas, loads, tmp_path) -> None:
    first = str(tiny_llamas[0])
    with pytest.raises(TokenizerError, match="there is no such folder"):
        outcomes_of(Evaluation(models=[first, str(tmp_path / "none")], data=PAIRS))
    with pytest.raises(TokenizerError, match="--apply_chat_template: the tokenizer of"):
        outcomes_of(Evaluation(models=[first], data=PAIRS, uses_template=True))
    assert loads == []


@pytest.mark.parametrize("place", ["to", "benchmarks", "pairs"])
def test_out_of_memory_gives_an_error_with_the_model_and_advice(
    tiny_llamas, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The test raises the error itself, since it comes from a GPU."""

    def fail(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    model, benchmarks = str(tiny_llamas[0]), load_benchmarks([TaskRequest(name=FACTS)])
    evaluation = Evaluation(models=[model], benchmarks=benchmarks, data=PAIRS, limit=2, batch_size=16)
    owner, name = {
        "to": (PreTrainedModel, "to"),
        "benchmarks": (type(benchmarks), "run"),
        "pairs": (evaluation_run, "pair_logps"),
    }[place]
    monkeypatch.setattr(owner, name, fail)
    with pytest.raises(ModelError) as caught:
        outcomes_of(evaluation)
    assert str(caught.value) == (
        f"model {model}: the device has too little memory for it in float32 at --batch_size 16.\n"
        "  Lower --batch_size. Pass --dtype bfloat16. Lower --max_length, which drops longer pairs. "
        "Use a device with more memory."
    )


def test_the_error_about_a_reference_that_does_not_fit_names_it(tiny_llamas, monkeypatch: pytest.MonkeyPatch) -> None:
    model, reference = map(str, tiny_llamas)
    load = evaluation_run.load_causal_lm

    def fit_the_model_alone(located: Any, **options: Any) -> PreTrainedModel:
        if located.base == reference:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return load(located, **options)

    monkeypatch.setattr(evaluation_run, "load_causal_lm", fit_the_model_alone)
    evaluation = Evaluation(models=[model], data=PAIRS, reference=reference, limit=2, batch_size=1)
    with pytest.raises(ModelError, match=r"^--reference ") as caught:
        outcomes_of(evaluation)
    assert "Lower --batch_size" not in str(caught.value)
