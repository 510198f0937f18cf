"""Which modules have rows to compare, what those rows are, and how layers are named and chosen."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from arcface_plus.regularizers.layers.choice import choose_layers
from arcface_plus.regularizers.layers.finding import find_layers


class Head(nn.Module):
    """A classifier as face trainers write it: a weight of its own."""

    def __init__(self, classes: int = 7, dim: int = 6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, dim))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 12, 1), nn.PReLU(12))
        self.grouped = nn.Conv2d(12, 12, 3, groups=3)
        self.fc = nn.Linear(12, 6)
        self.head = Head()


def names(model: nn.Module, layers="all", exclude=(), output=None) -> list[str]:  # type: ignore[no-untyped-def]
    return [layer.name for layer in choose_layers(model, layers, exclude, output).layers]


def test_layers_in_module_order_and_why_others_are_none() -> None:
    found = find_layers(Net())
    assert [x.name for x in found.layers] == ["stem", "block.1", "grouped", "fc"]
    assert found.left_out == {
        "block.0": "each of its 8 groups has 1 filter: nothing to compare",
        "head": "a Head is no layer type known here; give its full name in layers to compare the "
        "rows of its weight",
    }


def rows_of(module: nn.Module) -> list[Tensor]:
    (layer,) = find_layers(module).layers
    return layer.row_sets()


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(5, 3), (3, 5)),
        (nn.Conv1d(4, 6, 3), (6, 4, 3)),
        (nn.Conv2d(4, 6, (3, 2)), (6, 4, 3, 2)),
        (nn.Conv3d(4, 6, 2), (6, 4, 2, 2, 2)),
        (nn.ConvTranspose1d(4, 6, 3), (6, 4, 3)),
        (nn.ConvTranspose2d(4, 6, 3), (6, 4, 3, 3)),
        (nn.ConvTranspose3d(4, 6, 2), (6, 4, 2, 2, 2)),
        (nn.Embedding(9, 4), (9, 4)),
        (nn.EmbeddingBag(9, 4), (9, 4)),
    ],
)
def test_rows_are_outputs(module: nn.Module, shape: tuple[int, ...]) -> None:
    (rows,) = rows_of(module)
    assert rows.shape == shape and rows.requires_grad


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (nn.Conv1d, nn.ConvTranspose1d),
        (nn.Conv2d, nn.ConvTranspose2d),
        (nn.Conv3d, nn.ConvTranspose3d),
    ],
)
def test_filters_of_a_group_are_what_makes_its_outputs(forward, backward, groups) -> None:  # type: ignore[no-untyped-def]
    """Output k of group g sees its own inputs through row k of set g: checked with an impulse."""
    for module, flipped in (
        (forward(8, 12, 3, groups=groups, bias=False), False),
        (backward(8, 12, 3, groups=groups, bias=False), True),
    ):
        sets = rows_of(module)
        space = module.weight.ndim - 2
        assert len(sets) == groups
        per_group = 12 // groups
        for channel in range(8):
            size = 1 if flipped else 5
            image = torch.zeros(1, 8, *[size] * space)
            image[(0, channel, *[size // 2] * space)] = 1
            response = module(image)[0]
            group, place = divmod(channel, 8 // groups)
            own = response[group * per_group : (group + 1) * per_group]
            kernel = sets[group][:, place]
            if not flipped:  # a convolution's response to an impulse is its kernel reversed
                kernel = kernel.flip(list(range(1, space + 1)))
            torch.testing.assert_close(own, kernel)
            assert response.count_nonzero() == own.count_nonzero()  # no other group answers


def test_padding_row_is_left_out() -> None:
    for module in (nn.Embedding(5, 3, padding_idx=1), nn.EmbeddingBag(5, 3, padding_idx=1)):
        (rows,) = rows_of(module)
        assert torch.equal(rows, module.weight[[0, 2, 3, 4]])
        rows.sum().backward()
        assert module.weight.grad[1].abs().sum() == 0


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (nn.Linear(5, 1), "it has 1 row: nothing to compare"),
        (nn.Linear(1, 5), "its rows have one entry"),
        (nn.Conv2d(1, 4, 1), "its rows have one entry"),
        (nn.Conv2d(6, 6, 3, groups=6), "each of its 6 groups has 1 filter"),
        (nn.ConvTranspose2d(6, 6, 3, groups=6), "each of its 6 groups has 1 filter"),
        (nn.Embedding(9, 4, sparse=True), "its gradient is sparse"),
        (nn.Embedding(2, 4, padding_idx=0), "it has 1 row"),
        (nn.Bilinear(3, 4, 5), "a Bilinear is no layer type known here"),
        (nn.LSTM(3, 4), "several matrices in one"),
        (nn.GRUCell(3, 4), "several matrices in one"),
    ],
)
def test_layers_without_angles_are_left_out(module: nn.Module, reason: str) -> None:
    model = nn.ModuleDict({"odd": module, "fc": nn.Linear(3, 4)})
    found = find_layers(model)
    assert [x.name for x in found.layers] == ["fc"]
    assert reason in found.left_out["odd"]
    with pytest.raises(ValueError, match=f"has no layer whose rows.*odd: .*{reason}"):
        choose_layers(nn.ModuleDict({"odd": module}), "all", (), None)


def test_attention_keeps_its_output_projection() -> None:
    found = find_layers(nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2)}))
    assert [x.name for x in found.layers] == ["attention.out_proj"]
    assert found.left_out == {"attention": "its weights are several matrices in one"}


def test_custom_modules_are_taken_by_their_full_name_only() -> None:
    net = Net()
    assert names(net, ["stem", "head"]) == ["stem", "head"]
    assert names(net, "*") == ["stem", "block.1", "grouped", "fc"]
    assert names(net, "output", output="head") == ["head"]
    assert names(net, "hidden", output="head") == ["stem", "block.1", "grouped", "fc"]
    bilinear = nn.ModuleDict({"pair": nn.Bilinear(3, 4, 5), "fc": nn.Linear(3, 4)})
    (layer,) = choose_layers(bilinear, "pair", (), None).layers
    assert layer.row_sets()[0].shape == (5, 3, 4)


def test_words_patterns_and_exclusions() -> None:
    net = Net()
    assert names(net) == ["stem", "block.1", "grouped", "fc"]
    assert names(net, "hidden") == ["stem", "block.1", "grouped"]
    assert names(net, "output") == ["fc"]
    assert names(net, "hidden", output="stem") == ["block.1", "grouped", "fc"]
    assert names(net, "block.*") == ["block.1"]
    assert names(net, ["f?", "st*"]) == ["stem", "fc"]
    assert names(net, "all", exclude="fc") == ["stem", "block.1", "grouped"]
    assert names(net, "hidden", exclude=["fc", "stem"]) == ["block.1", "grouped"]
    assert names(net, "all", exclude=["block.0", "head"]) == ["stem", "block.1", "grouped", "fc"]
    left = choose_layers(net, "hidden", "stem", None).left_out
    assert left["fc"] == "not among layers='hidden'"
    assert left["stem"] == "excluded by exclude='stem'"
    assert left["block.0"].startswith("each of its 8 groups")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "grupped"}, "layers: 'grupped' matches no layer; the nearest are grouped"),
        ({"layers": ["stem", "zzz*"]}, "'zzz\\*' matches no layer; there are stem, block.1"),
        ({"layers": "block.0"}, "no layer with rows to compare .*8 groups has 1 filter"),
        ({"layers": "norm"}, "layers: 'norm' matches no layer"),
        ({"exclude": "stemm"}, "exclude: 'stemm' matches no layer; the nearest are stem"),
        ({"output": "fcc"}, "output: 'fcc' matches no layer; the nearest are fc"),
        ({"output": "*o*"}, "must name one layer, but matches block.1, grouped"),
        ({"exclude": "*"}, "leaves nothing to regularize; the layers are stem"),
        ({"layers": []}, "leaves nothing to regularize"),
    ],
)
def test_patterns_that_match_nothing_are_explained(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_layers(Net(), **{"layers": "all", "exclude": (), "output": None, **options})


def test_model_without_layers() -> None:
    with pytest.raises(ValueError, match="the BatchNorm2d has no layer whose rows could be compar"):
        choose_layers(nn.BatchNorm2d(3), "all", (), None)


def test_model_that_is_one_layer_is_called_by_its_class() -> None:
    assert names(nn.Linear(3, 4)) == ["Linear"]
    assert names(nn.Linear(3, 4), "Linear") == ["Linear"]


def test_tied_weights_count_once_under_any_of_their_names() -> None:
    model = nn.ModuleDict(
        {"table": nn.Embedding(9, 6), "body": nn.Linear(6, 6), "logits": nn.Linear(6, 9)}
    )
    model["logits"].weight = model["table"].weight
    model["again"] = model["body"]
    found = find_layers(model)
    assert [x.names for x in found.layers] == [["table", "logits"], ["body", "again"]]
    assert found.left_out == {
        "logits": "it shares its weight with table",
        "again": "it shares its weight with body",
    }
    assert names(model, "output", output="logits") == ["table"]
    assert names(model, "hidden", output="logits") == ["body"]
    assert names(model, "again") == ["body"]


@pytest.mark.slow
def test_names_are_those_of_the_model_inside_wrappers() -> None:
    net = Net()
    expected = names(net)
    assert names(torch.compile(net, backend="eager")) == expected
    assert names(nn.DataParallel(net)) == expected
    net.block = torch.compile(net.block, backend="eager")
    assert "block._orig_mod.1" in dict(net.named_modules())
    assert names(torch.compile(nn.DataParallel(net), backend="eager")) == expected
    assert names(net, "block.*") == ["block.1"]


def test_lazy_layers_are_refused() -> None:
    model = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(ValueError, match="layer 0 has no weight yet; run a batch"):
        find_layers(model)
    model(torch.zeros(2, 3))
    assert names(model) == ["0"]


def test_parametrized_weights_are_read_without_a_training_step() -> None:
    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(5, 4)),
        parametrizations.spectral_norm(nn.Linear(4, 3)),
        parametrizations.orthogonal(nn.Linear(3, 3)),
    )
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = find_layers(model)
    assert [x.name for x in found.layers] == ["0", "1", "2"] and not found.left_out
    for layer in found.layers:
        (rows,) = layer.row_sets()
        rows.square().sum().backward()
        assert layer.module.training and layer.module.parametrizations.weight[0].training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model[0].parametrizations.weight.original1.grad is not None
    assert model[1].parametrizations.weight.original.grad.abs().sum() > 0
    frozen = model[0].requires_grad_(False)
    assert find_layers(frozen).layers[0].is_frozen


def test_weights_made_by_hooks_are_those_of_the_last_forward() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        normed = nn.utils.weight_norm(nn.Linear(5, 4))
    pruned = prune.l1_unstructured(nn.Linear(5, 4), "weight", amount=0.3)
    for module, source in ((normed, "weight_v"), (pruned, "weight_orig")):
        module(torch.zeros(1, 5))
        (rows,) = rows_of(module)
        assert rows is module.weight and not find_layers(module).layers[0].is_frozen
        rows.square().sum().backward()
        assert getattr(module, source).grad.isfinite().all()


def test_sharded_weights_are_left_out() -> None:
    class Sharded(Tensor):
        def full_tensor(self) -> Tensor:
            return self.as_subclass(Tensor)

    model = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Linear(3, 4)})
    model["a"].weight = nn.Parameter(torch.randn(4, 3).as_subclass(Sharded))
    found = find_layers(model)
    assert [x.name for x in found.layers] == ["b"]
    assert found.left_out == {
        "a": "its weight is sharded across ranks; no rank sees all of its rows"
    }
