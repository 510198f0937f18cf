"""The net that a run begins with, from a file: what fits, what begins anew, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from arcface_plus.models import Preprocessing, build_model, save_model
from arcface_plus.models.start import start_from

STORED = Preprocessing(mean=100, std=50, channels="bgr", size=32, flip_sum=False)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    model = build_model(
        "iresnet18", width=8, embedding_dim=16, size=32, dropout=0.1, preprocessing=STORED
    )
    return save_model(model, tmp_path / "a.safetensors")


def test_the_files_own_net_and_preprocessing(saved) -> None:
    model = start_from(saved, {}, {"flip_sum": True}, size=32)
    state = safetensors.torch.load_file(saved)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert model.training and model.dropout.p == 0.1
    assert model.preprocessing == Preprocessing(mean=100, std=50, channels="bgr", size=32)
    assert "187 of the net's 187 tensors" in model.origin and "warning" not in model.origin
    assert "(x − 100) / 50 BGR" in model.origin


def test_other_options_begin_anew_where_shapes_differ(saved) -> None:
    torch.manual_seed(2)
    options = {"embedding_dim": 24, "dropout": 0.3}
    model = start_from(saved, options, {"std": 64.0}, size=32)
    state = safetensors.torch.load_file(saved)
    assert (model.embedding_dim, model.dropout.p, model.preprocessing.std) == (24, 0.3, 64.0)
    assert torch.equal(model.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert model.fc.weight.shape == (24, 256) and model.fc.weight.std() > 0
    assert "6 tensors of another shape, begin anew: fc.weight (16, 256) for (24, 256)" in (
        model.origin
    )
    assert "and 1 more" in model.origin, "names are bounded"
    torch.manual_seed(2)
    again = start_from(saved, options, {"std": 64.0}, size=32)
    assert torch.equal(again.fc.weight, model.fc.weight), "drawn from the global generator"


def test_another_architecture_shares_what_fits(saved) -> None:
    options = {"name": "iresnet34", "width": 8, "embedding_dim": 16}
    model = start_from(saved, options, {}, size=32)
    assert model.name == "iresnet34"
    assert "not in the file, begin anew: layer1.2.bn1.weight" in model.origin
    with pytest.raises(ValueError, match=r"a\.safetensors: only .* of the .* numbers"):
        start_from(saved, {"width": 16}, {}, size=32)
    with pytest.raises(ValueError, match="only 0 of"):
        start_from(saved, {"name": "mobilefacenet"}, {}, size=32)


def test_what_a_bare_file_does_not_say_must_be_given(tmp_path, saved) -> None:
    bare = tmp_path / "bare.safetensors"
    safetensors.torch.save_file(safetensors.torch.load_file(saved), bare)
    with pytest.raises(ValueError, match=r"bare\.safetensors.*--model\.mean"):
        start_from(bare, {}, {"flip_sum": True}, size=32)
    model = start_from(bare, {}, {"mean": 127.5, "std": 127.5}, size=32)
    assert model.preprocessing.std == 127.5


def test_numbers_that_are_not_finite_are_refused(tmp_path, saved) -> None:
    state = safetensors.torch.load_file(saved)
    state["fc.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"fc\.weight.*not finite"):
        start_from(tmp_path / "nan.pt", {}, {}, size=32)


def test_onnx_files(tmp_path, write_net) -> None:
    path = write_net(tmp_path / "net.onnx")
    given = {"mean": 127.5, "std": 128.0}
    model = start_from(path, {}, given, size=8)
    assert model.training and "equal to onnxruntime" in model.origin
    with pytest.raises(ValueError, match=r"remove model\.width"):
        start_from(path, {"width": 8}, given, size=8)
    with pytest.raises(ValueError, match=r"does not say how images"):
        start_from(path, {}, {"mean": 127.5}, size=8)
    with pytest.raises(ValueError, match=r"gives float\s+\(N, 3, 16, 16\)"):
        start_from(path, {}, given, size=16)
    again = save_model(model, tmp_path / "run.safetensors")
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(start_from(again, {}, {}, size=8).eval()(x), model.eval()(x))
    with pytest.raises(ValueError, match=r"8 pixels, but data\.size is 16"):
        start_from(again, {}, {}, size=16)
    with pytest.raises(FileNotFoundError, match="none"):
        start_from(tmp_path / "none.onnx", {}, {}, size=8)
