"""The regularizer of a model: what it adds up, and that it fits into any training loop."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import arcface_plus
from arcface_plus.regularizers import energies
from arcface_plus.regularizers.angular import AngularRegularizer
from arcface_plus.regularizers.mma import mma_loss, nearest_angles
from arcface_plus.regularizers.orthogonal import orthogonal_loss
from arcface_plus.regularizers.penalty import KINDS, AngularPenalty


def make(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=2),
        nn.Flatten(),
        nn.Linear(72, 5),
    )


def batch(seed: int = 1, size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, 8, 8, generator=generator)
    return images, torch.randint(0, 5, (size,), generator=generator)


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_public_name() -> None:
    assert arcface_plus.AngularRegularizer is AngularRegularizer


def test_sums_the_layers_and_multiplies_by_the_weight() -> None:
    """Eq. (13), with a grouped convolution as the mean of its groups."""
    model = make()
    first, grouped, last = model[0].weight, model[3].weight, model[5].weight
    groups = torch.stack([mma_loss(grouped[:4]), mma_loss(grouped[4:])]).mean()
    expected = 0.07 * (mma_loss(first) + groups + mma_loss(last))
    regularizer = AngularRegularizer(model, "mma", 0.07)
    value = regularizer()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    value.backward()
    ours = gradients(model)
    model.zero_grad()
    expected.backward()
    torch.testing.assert_close(ours, gradients(model))
    assert len(ours) == 3
    assert regularizer.layer_names == ("0", "3", "5")
    assert repr(regularizer) == "AngularRegularizer(kind='mma', weight=0.07, 3 layers)"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_that_penalty_on_every_layer(kind: str) -> None:
    model = make()
    penalty = AngularPenalty(kind)
    sets = [[model[0].weight], list(model[3].weight.chunk(2)), [model[5].weight]]
    share = 1.0 if kind == "orthogonal" else 0.5
    expected = sum(penalty(w) * (share if len(ws) > 1 else 1) for ws in sets for w in ws)
    value = AngularRegularizer(model, kind, 2.0)()
    assert value.item() == pytest.approx(2 * float(expected.detach()), rel=1e-6)


def test_orthogonal_loss_of_groups_is_that_of_the_blocks_on_the_diagonal() -> None:
    conv = nn.Conv2d(8, 12, 3, groups=4)
    unit = F.normalize(conv.weight.detach().flatten(1), dim=1)
    cosine = (unit @ unit.t()).view(4, 3, 4, 3).diagonal(dim1=0, dim2=2)
    expected = (cosine.square().sum() - 12) / 2
    value = AngularRegularizer(conv, "orthogonal", 1.0)()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_options_reach_the_penalty() -> None:
    layer = nn.Linear(6, 20)
    regularizer = AngularRegularizer(layer, "mhe", 1.0, s=0.0, half_space=True)
    assert torch.equal(regularizer(), energies.mhe_loss(layer.weight, s=0.0, half_space=True))
    with pytest.raises(ValueError, match="temperature does nothing for the kind 'mhe'"):
        AngularRegularizer(layer, "mhe", temperature=0.5)


def train(
    model: nn.Module, regularizer: AngularRegularizer | None, steps: int = 4
) -> dict[str, Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step in range(steps):
        images, labels = batch(step)
        loss = F.cross_entropy(model(images), labels)
        if regularizer is not None:
            loss = loss + regularizer(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_weight_0_trains_bit_for_bit_as_without(kind: str) -> None:
    plain, zero = make(), make()
    expected = train(plain, None)
    regularizer = AngularRegularizer(zero, kind, weight=0.0)
    value = regularizer()
    assert value.item() == 0.0 and not value.requires_grad and value.dtype == torch.float32
    found = train(zero, regularizer)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    changed = train(other := make(), AngularRegularizer(other, kind, weight=0.1))
    assert not torch.equal(changed["0.weight"], expected["0.weight"])


def test_weight_0_does_not_look_at_the_layers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    nn.init.zeros_(model[0].weight)
    assert AngularRegularizer(model, weight=0.0)().item() == 0.0


def test_training_with_it_enlarges_the_smallest_angle() -> None:
    model = make()
    regularizer = AngularRegularizer(model, weight=1.0)
    before = regularizer.minimum_angles()
    train(model, regularizer, steps=20)
    after = regularizer.minimum_angles()
    assert all(after[name] > before[name] + 1 for name in ("0", "3", "5"))


def test_minimum_angles_are_exact_and_within_groups() -> None:
    model = make()
    with torch.no_grad():
        model[3].weight[5] = model[3].weight[0]  # other groups: other inputs
        model[5].weight[1] = model[5].weight[4] + 1e-4 * model[5].weight[0]
    angles = AngularRegularizer(model).minimum_angles()
    assert list(angles) == ["0", "3", "5"]
    for name, rows in (("0", model[0].weight), ("5", model[5].weight)):
        smallest = math.degrees(nearest_angles(rows.detach().double()).angle.min())
        assert angles[name] == pytest.approx(smallest, rel=1e-3)
    assert angles["3"] > 30 and angles["5"] < 0.02
    only = AngularRegularizer(model, layers="output", weight=0.0)
    assert list(only.minimum_angles()) == ["5"]


def test_weight_may_be_set_between_calls() -> None:
    regularizer = AngularRegularizer(make(), weight=1.0)
    value = regularizer()
    regularizer.weight = 0.5
    assert torch.equal(regularizer(), value * 0.5)
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"weight is {wrong}, but must be a finite number"):
            regularizer.weight = wrong
    assert regularizer.weight == 0.5


def test_model_stays_as_it_is() -> None:
    model = make()
    before = list(model.state_dict())
    model.regularizer = AngularRegularizer(model)
    model.regularizer().backward()
    assert list(model.state_dict()) == before and not isinstance(model.regularizer, nn.Module)
    assert len(list(model.modules())) == 7


def test_follows_the_model_to_other_dtypes() -> None:
    model = make()
    regularizer = AngularRegularizer(model)
    value = regularizer()
    model.to(torch.float64)
    doubled = regularizer()
    assert doubled.dtype == torch.float64
    assert doubled.item() == pytest.approx(value.item(), rel=1e-6)
    model.half()
    half = regularizer()
    half.backward()
    assert half.dtype == torch.float32 and half.item() == pytest.approx(value.item(), rel=1e-2)
    assert model[0].weight.grad.dtype == torch.float16
    model.load_state_dict(make(seed=9).state_dict())
    assert regularizer().item() != half.item()


def test_mixed_dtypes_add_up() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4).double(), nn.Linear(4, 3).bfloat16())
    value = AngularRegularizer(model, weight=1.0)()
    expected = sum(mma_loss(layer.weight).item() for layer in model)
    assert value.dtype == torch.float64 and value.item() == pytest.approx(expected, rel=1e-6)


def test_is_computed_in_full_precision_under_autocast() -> None:
    model = make()
    images, labels = batch()
    regularizer = AngularRegularizer(model, "orthogonal", weight=0.1)
    expected = regularizer()
    expected.backward()
    expected_gradients = [g.clone() for g in gradients(model)]
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(images).dtype == torch.bfloat16
        value = regularizer()
        value.backward()
        loss = F.cross_entropy(model(images), labels) + regularizer()
    assert torch.equal(value, expected) and loss.dtype == torch.float32
    assert all(
        torch.equal(*pair) for pair in zip(gradients(model), expected_gradients, strict=True)
    )
    normed = parametrizations.weight_norm(nn.Linear(6, 5))
    plain = AngularRegularizer(normed)()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(AngularRegularizer(normed)(), plain)


def test_called_once_a_step_with_accumulated_gradients() -> None:
    """Two halves of a batch and the penalty once give the gradient of the whole and the penalty."""
    whole = make().eval()
    halves = copy.deepcopy(whole)
    images, labels = batch()
    (F.cross_entropy(whole(images), labels) + AngularRegularizer(whole)()).backward()
    regularizer = AngularRegularizer(halves)
    for part in (slice(0, 3), slice(3, 6)):
        (F.cross_entropy(halves(images[part]), labels[part]) / 2).backward()
    regularizer().backward()
    torch.testing.assert_close(gradients(halves), gradients(whole))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_shares_the_parameters_of_a_compiled_model(backend: str) -> None:
    model, plain = make(), make()
    compiled = torch.compile(model, backend=backend)
    regularizer = AngularRegularizer(compiled, weight=0.1)
    assert regularizer.layer_names == ("0", "3", "5")
    images, labels = batch()
    (F.cross_entropy(compiled(images), labels) + regularizer()).backward()
    (F.cross_entropy(plain(images), labels) + AngularRegularizer(plain, weight=0.1)()).backward()
    torch.testing.assert_close(gradients(model), gradients(plain))


def test_frozen_weights_count_nothing_while_they_are_frozen() -> None:
    model = make()
    regularizer = AngularRegularizer(model, weight=1.0)
    everything = regularizer().item()
    model[0].weight.requires_grad_(False)
    without = regularizer()
    assert without.item() == pytest.approx(everything - mma_loss(model[0].weight).item(), rel=1e-6)
    with torch.no_grad():
        assert torch.equal(regularizer(), without)
    model.requires_grad_(False)
    nothing = regularizer()
    assert nothing.item() == 0 and not nothing.requires_grad
    assert set(regularizer.minimum_angles()) == {"0", "3", "5"}
    model.requires_grad_(True)
    assert regularizer().item() == everything


def test_tied_weights_are_penalised_once() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(9, 6), "logits": nn.Linear(6, 9, bias=False)})
    model["logits"].weight = model["table"].weight
    AngularRegularizer(model, weight=1.0)().backward()
    ours = model["table"].weight.grad.clone()
    leaf = model["table"].weight.detach().clone().requires_grad_()
    mma_loss(leaf).backward()
    assert torch.equal(ours, leaf.grad)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_weights(norm) -> None:  # type: ignore[no-untyped-def]
    model = nn.Sequential(norm(nn.Linear(6, 5)), nn.ReLU(), norm(nn.Conv1d(5, 4, 1)))
    regularizer = AngularRegularizer(model, weight=1.0)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    value = regularizer()
    value.backward()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    expected = sum(mma_loss(model[i].weight.detach()).item() for i in (0, 2))
    assert value.item() == pytest.approx(expected, rel=1e-5)
    trained = [p for name, p in model.named_parameters() if "parametrizations" in name]
    assert sum(p.grad.abs().sum() for p in trained) > 0


def test_random_kinds_draw_from_seed_step_and_layer() -> None:
    model = nn.Sequential(nn.Linear(6, 40), nn.Linear(40, 40), nn.Linear(40, 40))
    for options in ({"kind": "mma", "rows": 5}, {"kind": "mhe", "fraction": 0.2}):
        regularizer = AngularRegularizer(model, weight=1.0, **options)  # type: ignore[arg-type]
        values = [regularizer(step).item() for step in range(4)]
        assert len(set(values)) == 4
        torch.rand(3)  # the global generator has no part in it
        assert [regularizer(step).item() for step in range(4)] == values
        assert [regularizer().item() for _ in range(4)] == values
        assert AngularRegularizer(model, weight=1.0, seed=1, **options)(0).item() != values[0]
    twice = nn.Sequential(nn.Linear(6, 40), nn.Linear(6, 40))
    twice[1].load_state_dict(twice[0].state_dict())
    first, both = (
        AngularRegularizer(twice, "mma", 1.0, layers, rows=5)(0).item() for layers in ("0", "all")
    )
    assert both != pytest.approx(2 * first), "layers draw their own rows"


def test_a_frozen_layer_does_not_move_the_draws_of_the_others() -> None:
    model = nn.Sequential(nn.Linear(6, 40), nn.Linear(40, 40))
    regularizer = AngularRegularizer(model, weight=1.0, rows=5)
    regularizer(7).backward()
    expected = model[1].weight.grad.clone()
    model.zero_grad()
    model[0].requires_grad_(False)
    regularizer(7).backward()
    assert torch.equal(model[1].weight.grad, expected) and model[0].weight.grad is None


def test_a_row_without_direction_is_named_with_its_layer() -> None:
    model = make()
    with torch.no_grad():
        model[5].weight[3] = 0
    regularizer = AngularRegularizer(model)
    for call in (regularizer, regularizer.minimum_angles):
        with pytest.raises(ValueError, match=r"layer 5: row 3 of the weight is zero .*exclude='5'"):
            call()
    assert AngularRegularizer(model, exclude="5")().isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight is -1.0"),
        ({"weight": "0.1"}, "weight is '0.1', but must be a finite number"),
        ({"weight": True}, "weight is True, but must be a finite number"),
        ({"seed": -1}, "seed is -1, but must be a whole number, 0 or above"),
        ({"seed": 0.5}, "seed is 0.5, but must be a whole number"),
        ({"layers": "Hidden"}, "layers: 'Hidden' matches no layer; the nearest are hidden"),
        ({"kind": "mmma"}, "kind is 'mmma'"),
        ({"layers": "stem"}, "layers: 'stem' matches no layer"),
        ({"rows": 0}, "rows is 0"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AngularRegularizer(make(), **options)


def test_bad_model_and_step_are_refused() -> None:
    with pytest.raises(ValueError, match="model is a Tensor, but must be a torch"):
        AngularRegularizer(torch.zeros(3, 4))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="step is -1"):
        AngularRegularizer(make())(-1)


def test_orthogonal_sum_over_layers_uses_the_papers_form() -> None:
    """Eq. (14): (λ/2) Σ_layers ‖ŴŴᵀ − I‖²."""
    model = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 4))
    value = AngularRegularizer(model, "orthogonal", 1e-4)()
    expected = 1e-4 * sum(orthogonal_loss(layer.weight) for layer in model)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
