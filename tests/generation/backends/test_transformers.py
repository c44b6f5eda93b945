"""Answers by transformers: each is the same as if its prompt were alone in the batch."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, set_seed

from dpo.data.rendering.tokenization import load_tokenizer
from dpo.errors import ModelError
from dpo.generation.backends.base import Answer, cut_at
from dpo.generation.backends.transformers import SeededSampling, TransformersBackend
from dpo.generation.config import GenerationConfig
from dpo.models.locating import locate

PROMPTS = ["Name a noble gas.", "Who?", "What is the capital of Peru? Answer in one short sentence."]


def open_model(folder: Path, **flags: Any) -> TransformersBackend:
    config = GenerationConfig.from_flags({"model": str(folder), "max_new_tokens": 24} | flags)
    end_id = load_tokenizer(str(folder)).token_id("<|im_end|>")
    assert end_id is not None
    return TransformersBackend(locate(str(folder)), config, end_ids=[end_id])


@pytest.fixture
def prompts(model: Path) -> list[list[int]]:
    return load_tokenizer(str(model)).encode(PROMPTS)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_does_not_depend_on_the_other_prompts_of_its_batch(
    model: Path, prompts: list[list[int]], temperature: float
) -> None:
    backend = open_model(model, temperature=temperature)
    together = backend.answer(prompts, [5, 6, 7])
    alone = [backend.answer([prompt], [seed])[0] for prompt, seed in zip(prompts, (5, 6, 7), strict=True)]
    assert together == alone
    assert len({tuple(answer.ids) for answer in together}) == 3


def test_temperature_0_takes_the_most_likely_tokens_of_the_model(model: Path, prompts: list[list[int]]) -> None:
    backend = open_model(model, temperature=0)
    (answer,) = backend.answer(prompts[:1], [0])
    ids = list(prompts[0])
    plain = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        for _ in range(answer.num_tokens):
            ids.append(int(plain(torch.tensor([ids])).logits[0, -1].argmax()))
    assert cut_at(ids[len(prompts[0]) :], backend.end_ids) == answer


def test_the_same_seed_gives_the_same_answer_and_another_seed_another_answer(
    model: Path, prompts: list[list[int]]
) -> None:
    backend = open_model(model, temperature=1)
    first, again, other = (backend.answer(prompts[:1], [seed])[0].ids for seed in (1, 1, 2))
    assert first == again != other


def test_the_end_token_ends_an_answer_and_is_not_part_of_it(silent_model: Path, endless_model: Path) -> None:
    assert open_model(silent_model).answer([[3, 4]], [0]) == [Answer(ids=[], ended=True)]
    (endless,) = open_model(endless_model).answer([[3, 4]], [0])
    assert not endless.ended
    assert endless.num_tokens == len(endless.ids) == 24


def test_the_models_own_generation_settings_have_no_effect(
    model: Path, tmp_path: Path, prompts: list[list[int]]
) -> None:
    backend = open_model(model, temperature=0)
    answer = backend.answer(prompts[:1], [0])
    copy = tmp_path / "penalized"
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(copy)
    copy_tokenizer(model, copy)
    transformers.GenerationConfig(repetition_penalty=50.0, max_new_tokens=2, min_new_tokens=2).save_pretrained(copy)
    assert open_model(copy, temperature=0).answer(prompts[:1], [0]) == answer


def test_a_batch_that_does_not_fit_into_memory_is_halved(
    model: Path, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_model(model)
    expected = backend.answer(prompts, [1, 2, 3])
    generate, sizes = backend.model.generate, []

    def small(*, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        sizes.append(len(input_ids))
        if len(input_ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(input_ids=input_ids, **options)

    monkeypatch.setattr(backend.model, "generate", small)
    most = 1
    assert backend.answer(prompts, [1, 2, 3]) == expected
    assert sizes == [3, 1, 2, 1, 1]
    most = 0
    with pytest.raises(ModelError, match=r"too small for \d+ \+ 24 tokens"):
        backend.answer(prompts, [1, 2, 3])


def copy_tokenizer(source: Path, folder: Path) -> None:
    for file in source.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())


def test_an_adapter_gives_the_same_answers_as_merged_weights(
    model: Path, tmp_path: Path, prompts: list[list[int]]
) -> None:
    set_seed(0)
    config = LoraConfig(target_modules=["lm_head"], r=2, init_lora_weights=False)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    copy_tokenizer(model, tmp_path / "adapter")
    copy_tokenizer(model, tmp_path / "merged")
    plain, adapter, merged = (
        open_model(folder, temperature=0).answer(prompts, [0] * 3)
        for folder in (model, tmp_path / "adapter", tmp_path / "merged")
    )
    assert adapter == merged != plain


def draw(probabilities: list[float], seed: int, **options: float) -> int:
    scores = torch.tensor([probabilities]).log()
    kept = SeededSampling([seed], **({"temperature": 1.0, "top_p": 1.0} | options))(torch.zeros(1, 1), scores)
    (token,) = kept[0].isfinite().nonzero()[:, 0].tolist()
    return int(token)


def test_a_token_is_sampled_by_its_probability() -> None:
    for seed in range(100):
        number = random.Random(seed).random()
        assert draw([0.5, 0.3, 0.0, 0.2], seed) == (0 if number < 0.5 else 1 if number < 0.8 else 3)


def test_top_p_excludes_all_but_the_most_likely_tokens() -> None:
    for seed in range(100):
        number = random.Random(seed).random()
        assert draw([0.2, 0.5, 0.3], seed, top_p=0.7) == (1 if number < 0.5 / 0.8 else 2)


def test_temperature_sharpens_the_probabilities() -> None:
    share = 0.6**2 / (0.6**2 + 0.4**2)
    for seed in range(100):
        number = random.Random(seed).random()
        assert draw([0.6, 0.4], seed, temperature=0.5) == (0 if number < share else 1)
    assert math.isclose(share, 0.6923, abs_tol=1e-4)


def test_an_answer_is_cut_at_its_first_end_token() -> None:
    assert cut_at([5, 6, 2, 0, 2], [2, 3]) == Answer(ids=[5, 6], ended=True)
    assert cut_at([3], [2, 3]) == Answer(ids=[], ended=True)
    assert cut_at([5, 6], [2, 3]) == Answer(ids=[5, 6], ended=False)
