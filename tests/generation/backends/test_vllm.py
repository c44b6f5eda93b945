"""The vLLM back end with a stand-in for vLLM, which needs a GPU. The tests only check the arguments that vLLM gets."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from dpo.errors import ConfigError, ModelError
from dpo.generation.backends import open_backend
from dpo.generation.backends import vllm as vllm_backend
from dpo.generation.backends.base import Answer
from dpo.generation.config import GenerationConfig
from dpo.models import device
from dpo.models.locating import LocatedModel

LOCATED = LocatedModel(base="folder", tokenizer="folder")


class StandInLLM:
    """Answers each prompt with the prompt's own token ids and the end token. Odd seeds give no end token."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def generate(self, prompts: list[dict[str, list[int]]], sampling: list[SimpleNamespace], use_tqdm: bool) -> Any:
        assert not use_tqdm
        return [
            SimpleNamespace(
                outputs=[
                    SimpleNamespace(
                        token_ids=[*prompt["prompt_token_ids"], *([] if one.seed % 2 else one.stop_token_ids[:1])],
                        finish_reason="length" if one.seed % 2 else "stop",
                    )
                ]
            )
            for prompt, one in zip(prompts, sampling, strict=True)
        ]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """Replace vllm by the stand-in, and collect the sampling parameters that it gets."""
    parameters: list[SimpleNamespace] = []

    def sampling_params(**options: Any) -> SimpleNamespace:
        parameters.append(SimpleNamespace(**options))
        return parameters[-1]

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = StandInLLM, sampling_params  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    return parameters


def config(**flags: Any) -> GenerationConfig:
    return GenerationConfig.from_flags({"model": "folder", "backend": "vllm"} | flags)


def test_each_prompt_has_its_seed_and_the_same_flags(stand_in: list[SimpleNamespace]) -> None:
    backend = open_backend(LOCATED, config(temperature=0.5, top_p=0.9, max_new_tokens=7), end_ids=[2, 3])
    assert backend.answer([[5, 6], [7]], [10, 11]) == [Answer(ids=[5, 6], ended=True), Answer(ids=[7], ended=False)]
    assert [vars(one) for one in stand_in] == [
        {
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 7,
            "stop_token_ids": [2, 3],
            "seed": seed,
            "detokenize": False,
        }
        for seed in (10, 11)
    ]


def test_vllm_leaves_memory_for_a_reward_model(stand_in: list[SimpleNamespace]) -> None:
    alone = open_backend(LOCATED, config(), end_ids=[2])
    with_reward_model = open_backend(LOCATED, config(num_candidates=2, pick="scorer", reward_model="r"), end_ids=[2])
    assert "gpu_memory_utilization" not in alone.engine.options
    assert with_reward_model.engine.options["gpu_memory_utilization"] == 0.6


def test_auto_is_the_dtype_that_help_documents_and_not_vllms_own(stand_in: list[SimpleNamespace], monkeypatch) -> None:
    monkeypatch.setattr(vllm_backend, "choose_device", lambda: torch.device("cuda"))
    for native, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(device, "computes_bf16", lambda native=native: native)
        assert open_backend(LOCATED, config(), end_ids=[2]).engine.options["dtype"] == expected
    assert open_backend(LOCATED, config(dtype="float16"), end_ids=[2]).engine.options["dtype"] == "float16"


def test_an_adapter_is_refused(stand_in: list[SimpleNamespace]) -> None:
    with pytest.raises(ModelError, match="lora is an adapter, expected full weights"):
        open_backend(LocatedModel(base="folder", adapter="lora", tokenizer="lora"), config(), end_ids=[2])


def test_without_vllm_the_error_names_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match="pip install vllm"):
        open_backend(LOCATED, config(), end_ids=[2])
