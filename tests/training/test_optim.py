from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.models import build_model
from arcface_plus.training.optim import (
    build_optimizers,
    layer_rates,
    parameter_groups,
    scale_gradients,
    set_training,
    squared_gradient_norm,
)
from arcface_plus.training.settings import OptimConfig


@pytest.fixture
def model() -> nn.Module:
    return build_model("iresnet18", width=8, embedding_dim=8, size=32)


def head(**options) -> ClassifierHead:
    return ClassifierHead(9, 8, Margin(s=8), **options)


@pytest.mark.parametrize(
    ("rule", "decaying", "others"),
    [
        (
            "mxnet",
            {"conv1.weight", "bn1.weight", "prelu.weight", "fc.weight"},
            {"bn1.bias", "fc.bias"},
        ),
        ("weights", {"conv1.weight", "fc.weight"}, {"bn1.weight", "prelu.weight", "fc.bias"}),
        ("all", {"conv1.weight", "bn1.bias", "fc.bias", "prelu.weight"}, set()),
    ],
)
def test_which_parameters_decay(model, rule, decaying, others) -> None:
    classifier = head()
    yes, no = parameter_groups(model, classifier, rule)
    names = {id(p): name for name, p in model.named_parameters()}
    names[id(classifier.weight)] = "classes"
    decayed = {names[id(p)] for p in yes["params"]}
    left = {names[id(p)] for p in no["params"]}
    assert decaying | {"classes"} <= decayed and others <= left
    trainable = {n for n, p in model.named_parameters() if p.requires_grad} | {"classes"}
    assert decayed | left == trainable and not decayed & left
    assert no["weight_decay"] == 0


@pytest.mark.parametrize("rule", ["mxnet", "weights", "all"])
def test_class_biases_decay_as_biases_do(rule) -> None:
    classifier = ClassifierHead(9, 8, None, bias=True)
    yes, no = parameter_groups(nn.Linear(3, 8), classifier, rule)
    assert any(p is classifier.bias for p in (yes if rule == "all" else no)["params"])
    assert any(p is classifier.weight for p in yes["params"])


def test_class_biases_are_in_the_norm_and_scaled() -> None:
    net, classifier = nn.Linear(4, 8), ClassifierHead(9, 8, None, bias=True, mma_weight=0)
    classifier(net(torch.randn(6, 4)), torch.arange(6)).loss.backward()
    parts = [net.weight.grad, net.bias.grad, classifier.weight.grad, classifier.bias.grad]
    want = sum(g.double().square().sum() for g in parts).item()
    assert squared_gradient_norm(net, classifier).item() == pytest.approx(want, rel=1e-6)
    scale_gradients(net, classifier, torch.tensor(0.5))
    assert squared_gradient_norm(net, classifier).item() == pytest.approx(want / 4, rel=1e-6)


def test_first_step_that_is_skipped_leaves_no_garbage(model) -> None:
    """Fused SGD makes momenta in its first step, uninitialised where it is skipped."""
    (optimizer,) = build_optimizers(model, head(), OptimConfig())
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.full_like(p, math.nan)
    optimizer.grad_scale, optimizer.found_inf = None, torch.ones(())
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all((s["momentum_buffer"] == 0).all() for s in optimizer.state.values())


def test_first_step_equals_plain_sgd() -> None:
    mine, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(mine.state_dict())
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    optimizer = build_optimizers(mine, head(), OptimConfig(decay="all"))[0]
    for _ in range(3):
        x = torch.randn(4, 3)
        for net, sgd in ((mine, optimizer), (theirs, plain)):
            net(x).square().sum().backward()
            sgd.step()
            sgd.zero_grad()
    torch.testing.assert_close(mine.weight, theirs.weight)


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_adamw_is_torchs_and_rows_out_of_the_sample_stand_still(model, rate) -> None:
    config = OptimConfig(kind="adamw", lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    classifier = head(sample_rate=rate, mma_weight=0.0)
    optimizers = build_optimizers(model, classifier, config)
    assert [type(o).__name__ for o in optimizers] == ["AdamW", "RowAdamW"][: 1 + (rate < 1)]
    before = classifier.weight.detach().clone()
    sample = classifier.plan_step(torch.tensor([1, 1]), 0).sample
    rows = None if sample is None else sample.rows
    classifier(torch.randn(2, 8), torch.tensor([1, 1]), 0).loss.backward()
    gradient = classifier.weight.grad.to_dense().clone()
    for optimizer in optimizers:
        optimizer.step()
    taking_part = torch.zeros(9, dtype=torch.bool)
    taking_part[slice(None) if rows is None else rows] = True
    assert taking_part.all() == (rate == 1) and taking_part.any()
    # The first step of Adam, its averages corrected, is the gradient's sign.
    want = before * (1 - 0.01 * 0.1) - 0.01 * gradient / (gradient.abs() + 1e-8)
    found = classifier.weight.detach()
    torch.testing.assert_close(found[taking_part], want[taking_part], rtol=1e-5, atol=1e-7)
    assert torch.equal(found[~taking_part], before[~taking_part])
    bad = torch.ones(())
    for optimizer in optimizers:
        optimizer.found_inf = bad
        optimizer.step()
    assert torch.equal(classifier.weight, found), "a step that is not finite leaves no trace"


def test_nesterov_is_refused_elsewhere() -> None:
    with pytest.raises(ValueError, match="nesterov is for kind: sgd, not adamw"):
        OptimConfig(kind="adamw", nesterov=True)


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_norm_counts_everything_once_and_scaling_scales_it(rate) -> None:
    net, classifier = nn.Linear(4, 8), head(sample_rate=rate, mma_weight=0.0)
    embeddings = net(torch.randn(6, 4))
    classifier(embeddings, torch.arange(6), 0).loss.backward()
    dense = classifier.weight.grad.to_dense() if rate < 1 else classifier.weight.grad
    parts = [net.weight.grad, net.bias.grad, dense]
    want = sum(g.double().square().sum() for g in parts).item()
    assert squared_gradient_norm(net, classifier).item() == pytest.approx(want, rel=1e-6)
    scale_gradients(net, classifier, torch.tensor(0.5))
    assert squared_gradient_norm(net, classifier).item() == pytest.approx(want / 4, rel=1e-6)


def test_norm_is_not_finite_where_a_gradient_is_not() -> None:
    net, classifier = nn.Linear(4, 8), head()
    net.weight.grad = torch.zeros_like(net.weight)
    net.weight.grad[0, 0] = math.inf
    assert not torch.isfinite(squared_gradient_norm(net, classifier))


def layers(*pairs: tuple[str, float]) -> OptimConfig:
    return OptimConfig(layers=[{"pattern": pattern, "lr": lr} for pattern, lr in pairs])


def test_layers_learn_at_the_rate_of_the_last_pattern_that_matches(model) -> None:
    config = layers(("*", 0.5), ("layer?", 0), ("layer4.1.*", 0.1), ("layer4.1.bn1.weight", 1))
    rates = layer_rates(model, config.layers)
    assert {name for name, _ in model.named_parameters()} < set(rates)
    assert rates["conv1.weight"] == rates["fc.bias"] == rates["features.running_mean"] == 0.5
    assert rates["layer1.0.conv1.weight"] == rates["layer4.0.bn3.running_mean"] == 0
    assert rates["layer4.1.conv2.weight"] == rates["layer4.1.bn1.bias"] == 0.1
    assert rates["layer4.1.bn1.weight"] == 1
    assert set(layer_rates(model, ()).values()) == {1.0}


def test_a_step_moves_layers_by_their_rates(model) -> None:
    """Against plain SGD, by hand: p − lr · scale · (gradient + decay · p)."""
    config = layers(("conv1", 0.25), ("layer1", 0)).model_copy(
        update={"lr": 0.5, "weight_decay": 0.01}
    )
    (optimizer,) = build_optimizers(model, head(), config)
    frozen = [p for name, p in model.named_parameters() if name.startswith("layer1.")]
    assert frozen and not any(p.requires_grad for p in frozen)
    assert not {id(p) for p in frozen} & {
        id(p) for group in optimizer.param_groups for p in group["params"]
    }
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.full_like(p, 0.1) if p.requires_grad else None
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * group["lr_scale"]
    optimizer.step()
    after = dict(model.named_parameters())
    for name, scale in (("conv1.weight", 0.25), ("fc.weight", 1.0)):
        expected = before[name] - 0.5 * scale * (0.1 + 0.01 * before[name])
        assert torch.allclose(after[name], expected, atol=1e-7)
    assert torch.equal(after["layer1.0.conv1.weight"], before["layer1.0.conv1.weight"])


def test_frozen_batch_norms_keep_their_statistics(model) -> None:
    config = layers(("layer2", 0), ("bn1.weight", 0))
    set_training(model, config.layers, all_statistics=False)
    model(torch.randn(4, 3, 32, 32))
    state = model.state_dict()
    assert state["layer2.0.bn1.running_mean"].abs().max() == 0
    assert not model.layer2[0].bn1.training and model.layer2.training
    moved = ("bn1.running_mean", "layer1.0.bn2.running_mean", "features.running_mean")
    assert all(state[name].abs().max() > 0 for name in moved)
    set_training(model, (), all_statistics=True)
    assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("layers1.*", "nearest are layer1"), ("features.layers", "features"), ("", "nearest")],
)
def test_a_pattern_that_matches_nothing_names_the_nearest(model, pattern, words) -> None:
    with pytest.raises(ValueError, match=rf"optim\.layers: .*iresnet18.*{words}"):
        layer_rates(model, layers((pattern, 0.1)).layers)


def test_a_net_that_learns_nothing_is_refused(model) -> None:
    with pytest.raises(ValueError, match="freezes every layer"):
        build_optimizers(model, head(), layers(("*", 0)))
    # All that is left is the gain that fix_last_gain holds.
    with pytest.raises(ValueError, match="freezes every layer"):
        build_optimizers(model, head(), layers(("*", 0), ("features.weight", 1)))
