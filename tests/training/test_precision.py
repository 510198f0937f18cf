from __future__ import annotations

import pytest
import torch

from arcface_plus.training.precision import autocast_dtype, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("has_bf16", [True, False])
def test_auto_follows_the_processor(monkeypatch: pytest.MonkeyPatch, has_bf16: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert resolve_precision("auto", CPU) == ("bf16" if has_bf16 else "fp32")


@pytest.mark.parametrize("wanted", ["bf16", "fp16", "fp32"])
def test_what_is_asked_for_is_taken(wanted: str) -> None:
    assert resolve_precision(wanted, CPU) == wanted


def test_gpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    gpu = torch.device("cuda")
    assert resolve_precision("auto", gpu) == "fp32"
    with pytest.raises(ValueError, match="use fp16, fp32 or auto"):
        resolve_precision("bf16", gpu)


def test_dtypes() -> None:
    assert autocast_dtype("fp16") == torch.float16 and autocast_dtype("bf16") == torch.bfloat16


def test_tf32_is_for_gpus_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="is tf32, but this device has no TF32"):
        resolve_precision("tf32", CPU)
    for capability in ((7, 5), (8, 0), (9, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        if capability < (8, 0):
            with pytest.raises(ValueError, match="use fp32 or auto"):
                resolve_precision("tf32", torch.device("cuda"))
        else:
            assert resolve_precision("tf32", torch.device("cuda")) == "tf32"
