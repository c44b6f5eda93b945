"""Which device a model runs on, and in which dtype."""

import types

import pytest
import torch

from dpo.models import device
from dpo.models.device import choose_device, computes_bf16, resolve_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("is_there", "expected"), [(True, CUDA), (False, CPU)])
def test_a_cuda_build_without_a_gpu_takes_the_cpu(monkeypatch, is_there, expected):
    """Mocks a CUDA build of torch, with and without a GPU."""
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
    """Mocks a CUDA device. Its function always returns True when emulation counts."""
    monkeypatch.setattr(torch, "get_device_module", lambda: torch.cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert computes_bf16() is native


@pytest.mark.parametrize("native", [True, False])
def test_a_device_type_without_emulation_has_no_such_argument(monkeypatch, native):
    """Mocks an accelerator of another type."""
    device = types.SimpleNamespace(is_bf16_supported=lambda: native)
    monkeypatch.setattr(torch, "get_device_module", lambda: device)
    assert computes_bf16() is native
