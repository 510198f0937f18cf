"""The penalty of a run: on the net, on the class weights, at any world size, or absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.models import build_model, load_model
from arcface_plus.regularizers.mma import mma_loss
from arcface_plus.regularizers.orthogonal import orthogonal_loss
from arcface_plus.regularizers.settings import RegularizerConfig
from arcface_plus.runs.configuration import load_config
from arcface_plus.runs.train import train
from arcface_plus.training.regularization import RunRegularizer, head_mma_weight


@pytest.fixture
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model("iresnet18", embedding_dim=8, width=4, size=32, dropout=0.0)


@pytest.fixture
def head() -> ClassifierHead:
    return ClassifierHead(11, 8, None, mma_weight=0)


def convolutions(net: torch.nn.Module) -> list[torch.Tensor]:
    return [m.weight for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]


def test_sums_the_layers_of_the_net_and_the_class_weights(net, head) -> None:
    config = RegularizerConfig(kind="orthogonal", weight=0.5, layers="all")
    weights = [*convolutions(net), head.weight]
    expected = 0.5 * sum(orthogonal_loss(w) for w in weights)
    found = RunRegularizer(config, net, head, seed=0)(3)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(x, weights) for x in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_hidden_output_and_patterns(net, head) -> None:
    def value(kind: str, layers: object) -> torch.Tensor:
        config = RegularizerConfig(kind=kind, weight=1.0, layers=layers)
        return RunRegularizer(config, net, head, seed=0)(0)

    hidden = sum(mma_loss(w) for w in convolutions(net))
    torch.testing.assert_close(value("mma", "hidden"), hidden)
    torch.testing.assert_close(value("cosine", "output").float(), value("regularface", "output"))
    torch.testing.assert_close(value("mma", ["fc"]), mma_loss(net.fc.weight))
    with pytest.raises(ValueError, match="fcc"):
        value("mma", ["fcc"])


def test_mma_of_the_class_weights_is_the_heads_own(net, head) -> None:
    """Sharded, never gathered: the regularizer leaves it to the head."""
    config = RegularizerConfig(kind="mma", weight=0.07, layers="output")
    assert not RunRegularizer(config, net, head, seed=0)
    assert head_mma_weight(config, 0.0) == 0.07
    assert head_mma_weight(config.model_copy(update={"layers": "hidden"}), 0.03) == 0.03
    assert head_mma_weight(RegularizerConfig(kind="orthogonal", weight=1.0), 0.0) == 0.0


def test_random_kinds_draw_by_seed_and_step(net, head) -> None:
    config = RegularizerConfig(kind="mhe", weight=1.0, fraction=0.3, layers="all")
    first, same, other = (RunRegularizer(config, net, head, seed=s) for s in (0, 0, 1))
    assert first(5) == same(5) and first(5) != first(6) and first(5) != other(5)


def test_options_that_do_nothing_are_refused(net, head) -> None:
    with pytest.raises(ValueError, match="regularizer: temperature does nothing"):
        RunRegularizer(RegularizerConfig(weight=1.0, temperature=0.5), net, head, seed=0)


def losses(folder: Path) -> list[dict]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "train"]


def test_no_weight_is_no_regularizer_bit_for_bit(tiny: Path) -> None:
    words = ["--head.mma_weight", "0"]
    plain = train(tiny, [*words, "--name", "plain"])
    words += ["--regularizer.kind", "orthogonal", "--regularizer.layers", "all"]
    without = train(tiny, [*words, "--regularizer.weight", "0", "--name", "zero"])
    one, two = (load_model(f).state_dict() for f in (plain, without))
    assert all(torch.equal(one[k], two[k]) for k in one)
    with_it = train(tiny, [*words, "--regularizer.weight", "1e-2", "--name", "with"])
    assert not torch.equal(load_model(with_it).state_dict()["fc.weight"], one["fc.weight"])
    assert "regularizer" in losses(with_it)[0] and "regularizer" not in losses(without)[0]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_is_added_once_a_step_whatever_the_micro_batches(tiny: Path, accumulate: int) -> None:
    """The first step's penalty is that of the initial weights, once."""
    words = ["--head.mma_weight", "0", "--regularizer.weight", "0.5", "--train.steps", "3"]
    words += ["--regularizer.kind", "orthogonal", "--train.accumulate", str(accumulate)]
    folder = train(tiny, words)
    first = losses(folder)[0]
    assert first["loss"] == pytest.approx(first["classification"] + first["regularizer"], rel=1e-6)
    config = load_config(tiny, words)
    from arcface_plus.distributed import start_world
    from arcface_plus.runs.build import build

    with start_world("cpu") as world:
        net, head = build(config, 13, world)
        expected = RunRegularizer(config.regularizer, net, head, seed=config.seed)(0)
    assert first["regularizer"] == pytest.approx(float(expected.detach()), rel=1e-6)


def test_both_ways_to_penalise_the_class_weights_are_refused(tiny: Path) -> None:
    with pytest.raises(ValueError, match="both penalise the class weights"):
        load_config(tiny, ["--regularizer.weight", "0.1", "--head.mma_weight", "0.03"])


def test_resumed_equals_uninterrupted_with_drawn_rows(tiny: Path) -> None:
    words = ["--head.mma_weight", "0", "--regularizer.weight", "0.1", "--regularizer.kind", "mhe"]
    words += ["--regularizer.fraction", "0.3"]
    whole = train(tiny, words)
    cut = whole.parent / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    train(tiny, [*words, "--name", "cut"], resume="auto")
    one, two = (load_model(f).state_dict() for f in (whole, cut))
    assert all(torch.equal(one[k], two[k]) for k in one)
    shutil.rmtree(cut / "checkpoints" / "step-00000006")
    (cut / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"regularizer\.weight: 0\.1 → 0\.2"):
        train(tiny, [*words, "--name", "cut", "--regularizer.weight", "0.2"], resume="auto")
