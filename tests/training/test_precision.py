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
