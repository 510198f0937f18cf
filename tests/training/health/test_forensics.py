from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from arcface_plus import load_model
from arcface_plus.data.batches.order import OrderedSteps
from arcface_plus.data.sources.image_source import open_source
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.head.initial import initial_class_weights
from arcface_plus.runs.configuration import load_config
from arcface_plus.runs.train import train
from arcface_plus.training.health import forensics, spikes
from arcface_plus.training.health.guard import NonFiniteError

# Nothing moves: the net that is saved is the one that every step saw.
STILL = ["--optim.lr", "1e-20", "--optim.weight_decay", "0", "--train.freeze_batch_norm", "true"]
STILL += ["--data.augment", "{flip: 0, affine: 0}", "--schedule.warmup_steps", "0"]
SKIP = ["--train.on_nonfinite", "skip", "--train.log_every", "4"]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch):
    """Make one sample's embedding NaN: ``spoil(call, row)`` of the head's calls."""

    def plan(call: int, row: int) -> None:
        calls, forward = [0], ClassifierHead.forward

        def spoiled(head, embeddings, *rest, **options):
            if calls[0] == call:
                embeddings = embeddings.clone()
                embeddings[row] = math.nan
            calls[0] += 1
            return forward(head, embeddings, *rest, **options)

        monkeypatch.setattr(ClassifierHead, "forward", spoiled)

    return plan


def facts(folder: Path, step: int) -> dict:
    return json.loads((folder / "forensics" / f"step-{step:06d}.json").read_text())


@pytest.mark.parametrize(("accumulate", "call", "row"), [(1, 2, 5), (3, 7, 1)])
def test_names_every_image_with_its_norm_and_angle(
    tiny: Path, spoil, accumulate: int, call: int, row: int
) -> None:
    """The sample at place 5 of step 2 is spoiled; the others are as the net has them."""
    spoil(call, row)
    words = [*STILL, *SKIP, "--train.accumulate", str(accumulate)]
    folder, config = train(tiny, words), load_config(tiny, words)
    found = facts(folder, 2)
    assert found["step"] == 2 and found["reason"] == "not finite" and found["loss"] == "nan"
    assert found["gradient_norm"] == "nan" and found["loss_scale"] == 1.0
    assert found["learning_rate"] == pytest.approx(1e-20 * (1 + math.cos(math.pi / 3)) / 2)
    source = open_source(config.data, seed=config.seed)
    planned = OrderedSteps(len(source), 12, seed=config.seed, start=0, stop=6).global_indices(2)
    first, *rest = found["images"]
    assert (first["embedding_norm"], first["own_class_angle"]) == ("nan", "nan")
    assert first["index"] == planned[5]
    assert sorted(image["index"] for image in found["images"]) == sorted(planned.tolist())
    for image in found["images"]:
        assert image["image"] == source.describe(image["index"])
        assert image["class"] == source.labels[image["index"]]
    model = load_model(folder)
    pictures = np.stack([source.read(image["index"])[0] for image in rest])
    with torch.no_grad():
        embeddings = model(model.preprocessing.apply(torch.from_numpy(pictures)))
    norms = torch.linalg.vector_norm(embeddings, dim=1)
    assert [image["embedding_norm"] for image in rest] == pytest.approx(norms.tolist(), rel=1e-4)
    classes = initial_class_weights(config.seed, 0, 13, 16)[[image["class"] for image in rest]]
    cosines = torch.nn.functional.cosine_similarity(embeddings, classes)
    angles = [image["own_class_angle"] for image in rest]
    assert angles == pytest.approx(torch.rad2deg(cosines.acos()).tolist(), rel=1e-4)
    assert angles == sorted(angles, reverse=True)


def test_a_run_that_stops_names_the_file(tiny: Path, spoil) -> None:
    spoil(3, 0)
    with pytest.raises(NonFiniteError, match=r"norms and angles: .*step-000003\.json") as caught:
        train(tiny)
    assert "Weights are as before" in str(caught.value)
    assert facts(tiny.parent / "runs" / "tiny", 3)["loss"] == "nan"


def test_a_spike_is_told_kept_and_written(tiny: Path, monkeypatch, capsys) -> None:
    """The history is cut to two steps; a learning rate far too large then makes one."""
    monkeypatch.setattr(spikes, "HISTORY", 2)
    monkeypatch.setattr(spikes, "_SHARE", 0.01)
    monkeypatch.setattr(spikes, "_NATS", 0.01)
    monkeypatch.setattr(spikes, "_DEVIATIONS", 0.0)
    folder = train(tiny, ["--optim.lr", "3", "--train.log_every", "3"])
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (first, *_) = [entry for entry in entries if entry["kind"] == "warning"]
    said = re.search(r"step (\d+): the loss rose to ([\d.]+); .* is ([\d.]+)\.", first["message"])
    found = facts(folder, int(said[1]))
    assert found["reason"] == "loss spike" and found["loss_scale"] == 1.0
    assert f"{found['usual_loss']:.2f}" == said[3] and f"{found['gradient_norm']:.0f}" != "0"
    assert found["loss"] == pytest.approx(float(said[2]), abs=0.2), "the loss has MMA beside it"
    assert "norms and angles" in first["message"] and "warning: step" in capsys.readouterr().out


def test_files_are_bounded_and_a_step_that_comes_again_replaces_its_own(
    tiny: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(forensics, "MOST", 2)
    words = ["--optim.lr", "1e30", "--train.on_nonfinite", "skip", "--train.checkpoint_every", "1"]
    words += ["--train.keep_checkpoints", "6"]
    folder = train(tiny, words)
    files = sorted((folder / "forensics").iterdir())
    assert len(files) == 2 and "has 2 files already" in capsys.readouterr().out
    before = files[1].read_text()
    files[1].write_text("")
    step = int(files[1].stem.removeprefix("step-"))
    train(tiny, words, resume=str(folder / "checkpoints" / f"step-{step:08d}"))
    assert files[1].read_text() == before and len(list((folder / "forensics").iterdir())) == 2


def test_a_file_that_cannot_be_written_hides_nothing(tiny: Path, spoil, monkeypatch) -> None:
    spoil(3, 0)

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(forensics, "written_beside", full)
    with pytest.raises(NonFiniteError, match=r"step 3: .* could not be written .*No space left"):
        train(tiny)
