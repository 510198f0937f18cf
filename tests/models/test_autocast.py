"""Number formats: fp32 is IEEE fp32 unless TF32 is asked for, and nothing stays set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from arcface_plus.models.autocast import exact_products, fp32_products, has_fast_bf16

CUDNN: Any = torch.backends.cudnn
MATMUL: Any = torch.backends.cuda.matmul
ONEDNN: Any = torch.backends.mkldnn


def settings() -> dict[str, object]:
    return {
        "conv": CUDNN.conv.fp32_precision,
        "rnn": CUDNN.rnn.fp32_precision,
        "old conv": CUDNN.allow_tf32,
        "matmul": MATMUL.fp32_precision,
        "old matmul": MATMUL.allow_tf32,
        "half": MATMUL.allow_fp16_reduced_precision_reduction,
        "bf16": MATMUL.allow_bf16_reduced_precision_reduction,
        "cpu matmul": ONEDNN.matmul.fp32_precision,
        "cpu conv": ONEDNN.conv.fp32_precision,
    }


@pytest.fixture(params=["torch's own", "old names", "new names"])
def before(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """What a user's process may have set: TF32 by default, by the old names, by the new ones."""
    keep = CUDNN.allow_tf32, MATMUL.allow_tf32, ONEDNN.matmul.fp32_precision
    if request.param == "old names":
        MATMUL.allow_tf32 = True
    if request.param == "new names":
        ONEDNN.matmul.fp32_precision = "bf16"
    yield settings()
    CUDNN.allow_tf32, MATMUL.allow_tf32, ONEDNN.matmul.fp32_precision = keep


def test_fp32_is_ieee_and_what_was_set_comes_back(before: dict[str, object]) -> None:
    assert before["old conv"] is True, "torch convolves in TF32 on a GPU where nobody says no"
    with fp32_products():
        inside = settings()
        assert {inside[k] for k in ("conv", "rnn", "matmul", "cpu matmul", "cpu conv")} == {"ieee"}
        assert not inside["old conv"] and not inside["old matmul"]
        with torch.backends.cudnn.flags(enabled=True):  # torch's own readers of the old names
            pass
    assert settings() == before


def test_tf32_is_for_convolutions_alone(before: dict[str, object]) -> None:
    with fp32_products(tf32=True):
        inside = settings()
        assert inside["conv"] == "tf32" and inside["old conv"] is True
        assert inside["matmul"] == "ieee" and not inside["old matmul"]
    assert settings() == before


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_searches_sum_in_fp32(before: dict[str, object], device: str) -> None:
    with pytest.raises(KeyError), exact_products(torch.device(device)):
        inside = settings()
        if device == "cuda":
            assert inside["matmul"] == "ieee" and not inside["half"] and not inside["bf16"]
        else:
            assert inside["cpu matmul"] == "ieee"
        raise KeyError  # also where a search fails
    assert settings() == before


@pytest.mark.parametrize(
    ("amx", "avx512", "name", "fast"),
    [
        (True, True, "Intel Xeon", True),
        (False, True, "Intel Xeon", False),
        (False, True, "AMD EPYC", True),
        (False, False, "AMD EPYC", False),
    ],
)
def test_bf16_is_fast_where_units_do_more_of_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, name: str, fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name}, raising=False)
    assert has_fast_bf16() is fast
