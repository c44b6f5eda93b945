"""What a run's trainer is built from: the reference cache knows all that a reference's numbers depend on."""

import types
from typing import Any

import pytest

from dpo.training.settings.resolving import TrainingConfig
from dpo.training.trainers.building import reference_cache
from tests.builders import located


@pytest.fixture
def folder_of(tiny_model, tmp_path):
    """Where the reference cache keeps what a run with these flags computes."""

    def find(*, added_tokens: tuple[str, ...] = (), backend: str = "pairwise", **flags: Any) -> str:
        config = TrainingConfig(model_name_or_path=str(tiny_model), output_dir=str(tmp_path / "out"), **flags)
        prepared: Any = types.SimpleNamespace(added_tokens=added_tokens)
        cache = reference_cache(located(tiny_model), config, prepared, backend)
        assert cache is not None
        return cache.folder.name

    return find


OTHERS: list[dict[str, Any]] = [
    {"ld_alpha": 0.5},
    {"added_tokens": ("<|eot_id|>",)},
    {"lora_rank": 4, "load_in_4bit": True},
    {"bf16": True, "use_cpu": True},
    {"backend": "flex"},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_what_changes_a_references_numbers_is_another_folder(other, folder_of):
    assert folder_of(**other) != folder_of()


def test_new_tokens_have_embeddings_of_their_seed(folder_of):
    new = {"added_tokens": ("<|eot_id|>",)}
    assert folder_of(**new, seed=1) != folder_of(**new, seed=2)


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"learning_rate": 1e-3}, {"beta": 0.3}, {"lora_rank": 4}, {"loss": ["ipo"]}], ids=str
)
def test_what_does_not_is_the_same_folder(other, folder_of):
    assert folder_of(**other) == folder_of()
