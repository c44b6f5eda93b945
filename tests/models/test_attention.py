"""Which attention implementation is chosen, and which one is refused."""

import pytest
import torch

import dpo.models.attention as attention_module
from dpo.errors import ModelError
from dpo.models.attention import resolve_attention


def pretend(monkeypatch, *, cuda: bool, package: bool) -> None:
    """Mock a CUDA device and flash-attn, which a test machine may lack."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: cuda)
    monkeypatch.setattr(attention_module, "is_flash_attn_2_available", lambda: cuda and package)
    monkeypatch.setattr(attention_module.importlib.util, "find_spec", lambda name: object() if package else None)


@pytest.mark.parametrize(
    ("cuda", "package", "half", "expected"),
    [
        (True, True, True, "flash_attention_2"),
        (True, True, False, None),
        (True, False, True, None),
        (False, True, True, None),
        (False, False, False, None),
    ],
)
def test_auto_takes_flash_attention_where_it_can_run(monkeypatch, cuda, package, half, expected):
    pretend(monkeypatch, cuda=cuda, package=package)
    assert resolve_attention("auto", half_precision=half) == expected


@pytest.mark.parametrize("cuda", [True, False])
def test_flash_attention_that_is_not_installed_names_the_requirements(monkeypatch, cuda):
    pretend(monkeypatch, cuda=cuda, package=False)
    with pytest.raises(ModelError, match=r"requirements-gpu\.txt") as error:
        resolve_attention("flash_attention_2", half_precision=True)
    assert ("CUDA" in str(error.value)) is not cuda


def test_flex_attention_is_refused_where_it_cannot_train(monkeypatch):
    pretend(monkeypatch, cuda=False, package=False)
    with pytest.raises(ModelError, match="no backward pass on a CPU"):
        resolve_attention("flex_attention", half_precision=False)
