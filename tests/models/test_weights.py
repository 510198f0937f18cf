"""Saving, loading and hashing weights; foreign, damaged and hostile files."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from arcface_plus.models import build_model, load_model, model_hash, save_model
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.face.mobilefacenet import MobileFaceNet
from arcface_plus.models.preprocessing import INSIGHTFACE, Preprocessing


def small(name: str = "iresnet18", **options: object) -> EmbeddingModel:
    """Build a small network whose running statistics are not the initial ones."""
    torch.manual_seed(3)
    width = 8 if name.startswith("iresnet") else 64
    model = build_model(name, **({"width": width, "size": 32, "embedding_dim": 16} | options))
    model(torch.randn(4, 3, 32, 32))
    return model.eval()


def embed(model: nn.Module) -> torch.Tensor:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(x)


def rewrite_metadata(path: Path, change: dict[str, object]) -> None:
    with safetensors.safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["arcface_plus"]) | change
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, {"arcface_plus": json.dumps(description)})


@pytest.mark.parametrize("name", ["iresnet18", "mobilefacenet"])
@pytest.mark.parametrize("fix_last_gain", [True, False])
def test_round_trip(tmp_path: Path, name: str, fix_last_gain: bool) -> None:
    preprocessing = Preprocessing(mean=1.0, std=2.0, channels="bgr", size=32, flip_sum=False)
    model = small(name, preprocessing=preprocessing, fix_last_gain=fix_last_gain)
    path = save_model(model, tmp_path / "run" / "model.safetensors")
    for source in (path, tmp_path / "run", str(path)):
        loaded = load_model(source)
        assert type(loaded) is type(model)
        assert not loaded.training
        assert loaded.architecture == model.architecture
        assert (loaded.name, loaded.embedding_dim) == (name, 16)
        assert loaded.preprocessing == preprocessing
        assert torch.equal(embed(loaded), embed(model))
        assert [p.requires_grad for p in loaded.parameters()] == [
            p.requires_grad for p in model.parameters()
        ]


def test_dropout_and_blocks_survive(tmp_path: Path) -> None:
    save_model(small(dropout=0.1), tmp_path / "a.safetensors")
    assert load_model(tmp_path / "a.safetensors").dropout.p == 0.1
    unusual = MobileFaceNet(blocks=(2, 1, 3, 1), width=64, size=32, embedding_dim=16)
    save_model(unusual, tmp_path / "b.safetensors")
    assert load_model(tmp_path / "b.safetensors").architecture["blocks"] == [2, 1, 3, 1]


def test_saved_files_are_contiguous_float32_with_equal_bytes(tmp_path: Path) -> None:
    model = small()
    first = save_model(model, tmp_path / "a.safetensors").read_bytes()
    other = small().to(memory_format=torch.channels_last)
    assert save_model(other, tmp_path / "b.safetensors").read_bytes() == first
    double = small().double()
    assert save_model(double, tmp_path / "c.safetensors").read_bytes() == first
    tensors = safetensors.torch.load(first)
    assert {t.dtype for key, t in tensors.items() if "num_batches" not in key} == {torch.float32}


def test_save_replaces_whole_files_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_model(small(), tmp_path / "model.safetensors")
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(small("mobilefacenet"), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_hash_is_that_of_the_weights(tmp_path: Path) -> None:
    model = small()
    expected = model_hash(model)
    assert len(expected) == 64
    path = save_model(model, tmp_path / "model.safetensors")
    again = save_model(load_model(path), tmp_path / "again.safetensors")
    torch.save(model.state_dict(), tmp_path / "model.pt")
    hashes = {model_hash(p) for p in (path, again, tmp_path, tmp_path / "model.pt")}
    assert hashes == {expected}
    assert model_hash(model.to(memory_format=torch.channels_last)) == expected
    with torch.no_grad():
        model.conv1.weight[0, 1, 2, 0] *= 1.0001
    assert model_hash(model) != expected


@pytest.mark.parametrize("name", ["iresnet18", "iresnet50", "mobilefacenet"])
def test_bare_state_dicts_are_recognised(tmp_path: Path, name: str) -> None:
    model = small(name)
    torch.save(model.state_dict(), tmp_path / "backbone.pth")
    loaded = load_model(tmp_path / "backbone.pth")
    expected = {key: value for key, value in model.architecture.items() if key != "dropout"}
    assert {key: loaded.architecture[key] for key in expected} == expected
    assert loaded.preprocessing == replace(INSIGHTFACE, size=32)
    assert torch.equal(embed(loaded), embed(model))


@pytest.mark.parametrize("name", ["iresnet34", "iresnet100", "iresnet200", "mobilefacenet_large"])
def test_deep_names_are_recognised(tmp_path: Path, name: str) -> None:
    width = 1 if name.startswith("iresnet") else None
    model = build_model(name, width=width, size=16, embedding_dim=4)
    torch.save(model.state_dict(), tmp_path / "backbone.pt")
    loaded = load_model(tmp_path / "backbone.pt")
    assert loaded.name == name
    assert loaded.preprocessing.size == 16


def test_trained_last_gains_stay_trainable(tmp_path: Path) -> None:
    model = small("mobilefacenet", fix_last_gain=False)
    with torch.no_grad():
        model.features.layers[3].weight.mul_(1.5)
    torch.save(model.state_dict(), tmp_path / "mbf.pt")
    loaded = load_model(tmp_path / "mbf.pt")
    assert loaded.architecture["fix_last_gain"] is False
    assert loaded.features.layers[3].weight.requires_grad
    assert torch.equal(embed(loaded), embed(model))


@pytest.mark.parametrize("wrapping", ["ddp", "training checkpoint"])
def test_wrapped_state_dicts_are_unwrapped(tmp_path: Path, wrapping: str) -> None:
    model = small()
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    content = state if wrapping == "ddp" else {"epoch": 3, "state_dict_backbone": state}
    torch.save(content, tmp_path / "backbone.pt")
    assert torch.equal(embed(load_model(tmp_path / "backbone.pt")), embed(model))


def test_preprocessing_argument_replaces_the_stored_one(tmp_path: Path) -> None:
    path = save_model(small(), tmp_path / "model.safetensors")
    wanted = Preprocessing(std=100.0, size=32)
    assert load_model(path, preprocessing=wanted).preprocessing == wanted
    with pytest.raises(ValueError, match=r"preprocessing.size is 112 but the model's .* 32"):
        load_model(path, preprocessing=Preprocessing())


def test_foreign_safetensors_need_a_preprocessing(tmp_path: Path) -> None:
    model = small()
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(model.state_dict(), path, {"format": "pt"})
    with pytest.raises(ValueError, match=r"foreign.safetensors: .*give preprocessing"):
        load_model(path)
    wanted = replace(INSIGHTFACE, size=32)
    assert torch.equal(embed(load_model(path, preprocessing=wanted)), embed(model))


def test_half_precision_files_load_as_float32(tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in small().state_dict().items()}
    torch.save(state, tmp_path / "half.pt")
    loaded = load_model(tmp_path / "half.pt")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.conv1.weight, state["conv1.weight"].float())


class Payload:
    """Unpickling this would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("writer", ["torch", "pickle", "newer pickle"])
def test_pickles_with_code_are_refused_and_not_run(tmp_path: Path, writer: str) -> None:
    path, target = tmp_path / "model.pt", tmp_path / "ran"
    content = {**small().state_dict(), "extra": Payload(target)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content["extra"], protocol=2 if writer == "pickle" else 4))
    for read in (load_model, model_hash):
        with pytest.raises(ValueError, match=r"model.pt: (refused|not a readable)") as refused:
            read(path)
        said = str(refused.value)
        assert "weights_only" not in said  # torch's advice is to switch that off
        assert "it refers to" in said or "more than tensors" in said or "not a readable" in said
    assert not target.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kept", [0, 1, 7, 100, 5000, -1])
def test_truncated_files_name_the_file(tmp_path: Path, suffix: str, kept: int) -> None:
    model, path = small(), tmp_path / f"model{suffix}"
    if suffix == ".pt":
        torch.save(model.state_dict(), path)
    else:
        save_model(model, path)
    path.write_bytes(path.read_bytes()[:kept])
    for read in (load_model, model_hash):
        with pytest.raises(ValueError, match=rf"model\{suffix}: (not a readable|refused)"):
            read(path)


def test_torch_archives_that_unpack_to_more_than_they_have_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2**20)}, tmp_path / "stored.pt")
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as stored,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    with pytest.raises(ValueError, match=r"packed\.pt: .* refused, it unpacks to 4\d+ bytes"):
        load_model(tmp_path / "packed.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "stored.pt").read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"cut\.pt: not a readable torch file"):
        load_model(tmp_path / "cut.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_names_that_torch_would_search_for_hours_are_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "long.pt"
    state = {"x" * 20_000: torch.zeros(2)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"long\.pt: .* refused, it has a text of 20000"):
        load_model(path)


def test_safetensors_header_that_lies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0\0\0\0")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_model(path)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not a state dict"),
        ({}, "not a state dict"),
        ({"epoch": 3}, "'epoch' is no plain tensor"),
        ({"w": torch.zeros(1).expand(1 << 40)}, "'w' is no plain tensor"),
        ({"w": torch.eye(3).to_sparse()}, "'w' is no plain tensor"),
        ({"w": torch.zeros(3, device="meta")}, "'w' is no plain tensor"),
        ({"w": torch.zeros(3)}, "neither an IResNet nor a MobileFaceNet .first keys: w."),
    ],
)
def test_torch_files_that_are_no_backbone(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=f"model.pt: .*{message}"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bn2.bias": None}, r"1 tensors missing \(first: bn2.bias\)"),
        ({"extra": torch.zeros(1)}, r"1 tensors unexpected \(first: extra\)"),
        ({"bn1.bias": torch.zeros(9)}, r"bn1.bias is \(9,\), expected \(8,\)"),
        ({"bn1.bias": torch.zeros(8).long()}, r"another kind \(first: bn1.bias is torch.int64\)"),
        ({"bn1.bias": torch.full((8,), torch.nan)}, r"not finite \(first: bn1.bias\)"),
        ({"layer3.2.bn1.bias": torch.zeros(8)}, r"no IResNet has \(2, 2, 3, 2\) blocks"),
        ({"fc.weight": torch.zeros(16, 65)}, "fc.weight takes 65 inputs"),
        ({"fc.weight": torch.zeros(16)}, "fc.weight must be a tensor of 2 dimensions"),
    ],
)
def test_state_dicts_that_do_not_fit(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    state = {k: v for k, v in (small().state_dict() | change).items() if v is not None}
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=f"model.pt: .*{message}"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format version 2 is not 1"),
        ({"architecture": {}}, "names no architecture"),
        ({"architecture": 5}, "metadata is damaged"),
        ({"architecture": {"name": "iresnet19"}}, "nearest name is 'iresnet18'"),
        ({"architecture": {"name": "iresnet18", "gamma": 1}}, "no option gamma"),
        ({"architecture": {"name": "iresnet18", "width": 10**12}}, "width must be"),
        ({"architecture": {"name": "iresnet18", "width": 60_000, "size": 32}}, "another shape"),
        ({"architecture": {"name": "iresnet34", "width": 8, "size": 32}}, "tensors missing"),
        ({"preprocessing": {"mean": 0}}, "preprocessing lacks"),
        ({"preprocessing": None}, "must be a JSON object"),
    ],
)
def test_metadata_that_lies_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = save_model(small(), tmp_path / "model.safetensors")
    rewrite_metadata(path, change)
    with pytest.raises(ValueError, match=f"model.safetensors: .*{message}"):
        load_model(path)


def test_paths_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors does not exist; a run folder"):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.pt does not exist"):
        load_model(tmp_path / "absent.pt")
    (tmp_path / "weights.bin").touch()
    with pytest.raises(ValueError, match=r"weights.bin: weights files end in .safetensors"):
        load_model(tmp_path / "weights.bin")


def test_only_own_networks_are_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot save a Sequential: .*\.module"):
        save_model(nn.Sequential(small()), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"saved as \.safetensors"):
        save_model(small(), tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []
