"""Which device, and which precision there."""

import types

import pytest
import torch

from dpo.models import device
from dpo.models.device import choose_device, computes_bf16, resolve_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("is_there", "expected"), [(True, CUDA), (False, CPU)])
def test_a_build_for_an_accelerator_that_is_not_there_takes_the_cpu(monkeypatch, is_there, expected):
    """A mock of a build for CUDA, with and without a GPU."""
    accelerator = types.SimpleNamespace(
        is_available=lambda: is_there,
        current_accelerator=lambda check_available=False: CUDA if is_there or not check_available else None,
    )
    monkeypatch.setattr(torch, "accelerator", accelerator)
    assert choose_device() == expected


@pytest.mark.parametrize(
    ("name", "where", "native", "expected"),
    [
        ("auto", CUDA, True, torch.bfloat16),
        ("auto", CUDA, False, torch.float32),
        ("auto", CPU, True, torch.float32),
        ("bfloat16", CPU, False, torch.bfloat16),
        ("float16", CPU, False, torch.float16),
        ("float32", CUDA, True, torch.float32),
    ],
)
def test_auto_is_bfloat16_where_the_device_computes_in_it(monkeypatch, name, where, native, expected):
    monkeypatch.setattr(device, "computes_bf16", lambda: native)
    assert resolve_dtype(name, where) == expected


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_that_cuda_only_emulates_does_not_count(monkeypatch, native):
    """A mock of a CUDA device, which this machine lacks; with emulation it always says yes."""
    monkeypatch.setattr(torch, "get_device_module", lambda: torch.cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert computes_bf16() is native


@pytest.mark.parametrize("native", [True, False])
def test_a_device_that_knows_no_emulation_is_asked_without_it(monkeypatch, native):
    """A mock of an accelerator of another kind."""
    device = types.SimpleNamespace(is_bf16_supported=lambda: native)
    monkeypatch.setattr(torch, "get_device_module", lambda: device)
    assert computes_bf16() is native
