"""The layers of a model that have rows to compare, and their weights as sets of rows.

A row is what one output reads with: a neuron of a linear layer, a filter of a convolution; or it is
an entry of an embedding table. Filters of different groups of a grouped convolution see different
inputs, so each group is a set of its own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TABLES = (nn.Embedding, nn.EmbeddingBag)
_KNOWN = (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED, *_TABLES)
_STACKED = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
# Parts of a name that come from a wrapper around a module, not from the model.
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


@dataclass(eq=False)
class Layer:
    """A module whose weight has rows to compare; ``names`` are all that lead to that weight."""

    names: list[str]
    module: nn.Module

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter behind the weight is trained."""
        return not any(p.requires_grad for p in weight_parameters(self.module))

    @property
    def device(self) -> torch.device:
        return weight_parameters(self.module)[0].device

    def row_sets(self) -> list[Tensor]:
        """Return the weight as it is now, with its graph: the rows (n, …), or those of each group.

        Raises ValueError for a weight that is sharded across ranks.
        """
        weight = current_weight(self.module)
        if _is_sharded(weight):
            raise ValueError("its weight is sharded across ranks; no rank sees all of its rows.")
        groups = getattr(self.module, "groups", 1)
        if isinstance(self.module, _TRANSPOSED):  # (in, out/groups, …): filters are the columns
            return [part.transpose(0, 1) for part in weight.chunk(groups)]
        if isinstance(self.module, _CONVOLUTIONS):
            return list(weight.chunk(groups))
        padding = getattr(self.module, "padding_idx", None)
        if isinstance(self.module, _TABLES) and padding is not None:
            return [torch.cat([weight[:padding], weight[padding + 1 :]])]
        return [weight]


class FoundLayers(NamedTuple):
    """Layers in module order, and why each other module with a weight is none.

    A custom module with a weight is one only where it is asked for by its full name.
    """

    layers: list[Layer]
    left_out: dict[str, str]


@torch.no_grad()
def find_layers(model: nn.Module, named: Collection[str] = ()) -> FoundLayers:
    """Find the layers of ``model``; custom modules too where their full name is in ``named``.

    Names are those of the model inside torch.compile, DistributedDataParallel and other wrappers.
    Raises ValueError for lazy layers, which have no weight yet.
    """
    left_out: dict[str, str] = {}
    by_weight: dict[tuple[int, ...], Layer] = {}
    inner = unwrapped(model)
    for full_name, module in inner.named_modules(remove_duplicate=False):
        parts = [part for part in full_name.split(".") if part not in _WRAPPERS]
        if "parametrizations" in parts:
            continue  # what a weight is computed with
        name = ".".join(parts) or type(inner).__name__
        if isinstance(module, _STACKED):
            left_out[name] = "its weights are several matrices in one"
            continue
        parameters = weight_parameters(module)
        if not parameters:
            continue
        if any(is_lazy(p) for p in parameters):
            raise ValueError(
                f"layer {name} has no weight yet; run a batch through the model first."
            )
        known = isinstance(module, _KNOWN)
        if not known and not _is_matrix(module):
            continue  # the gain of a normalisation and the like
        key = tuple(id(p) for p in parameters)
        if key in by_weight:
            by_weight[key].names.append(name)
            left_out[name] = f"it shares its weight with {by_weight[key].name}"
        elif not (known or name in named):
            left_out[name] = (
                f"a {type(module).__name__} is no layer type known here; give its full name in "
                "layers to compare the rows of its weight"
            )
        elif reason := _nothing_to_compare(module):
            left_out[name] = reason
        else:
            by_weight[key] = Layer([name], module)
    return FoundLayers(list(by_weight.values()), left_out)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside torch.compile, DistributedDataParallel and DataParallel."""
    parallel = nn.parallel.DistributedDataParallel | nn.DataParallel
    while inner := model._modules.get("module" if isinstance(model, parallel) else "_orig_mod"):
        model = inner
    return model


def weight_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters behind ``module.weight``, none where it has no such weight.

    More than one where the weight is computed: by torch.nn.utils.parametrizations, or by the hooks
    of torch.nn.utils.weight_norm, spectral_norm and prune.
    """
    if parametrize.is_parametrized(module, "weight"):
        return list(module.parametrizations["weight"].parameters())  # type: ignore[index, union-attr]
    own = module._parameters.get("weight")
    if own is not None:
        return [own]
    if not isinstance(module.__dict__.get("weight"), Tensor):
        return []
    return [p for name, p in module.named_parameters(recurse=False) if name.startswith("weight_")]


def current_weight(module: nn.Module) -> Tensor:
    """Return ``module.weight``, computed anew where it is parametrized.

    Parametrizations are then in eval mode, and outside autocast: looking at a weight must neither
    make a power iteration of spectral norm nor lose digits. A weight made by a hook is that of the
    last forward.
    """
    if not parametrize.is_parametrized(module, "weight"):
        return module.weight  # type: ignore[return-value]
    chain: nn.Module = module.parametrizations["weight"]  # type: ignore[index, assignment]
    training = [m for m in chain.modules() if m.training]
    chain.eval()
    try:
        with torch.autocast(next(chain.parameters()).device.type, enabled=False):
            return module.weight  # type: ignore[return-value]
    finally:
        for m in training:
            m.training = True


def _is_sharded(weight: Tensor) -> bool:
    return hasattr(weight, "full_tensor")  # a DTensor


def _is_matrix(module: nn.Module) -> bool:
    weight = current_weight(module)
    return weight.ndim >= 2 and weight.is_floating_point()


def _nothing_to_compare(module: nn.Module) -> str | None:
    """Return why the rows of the weight have no angles worth enlarging, or None if they have."""
    if isinstance(module, _TABLES) and module.sparse:
        return "its gradient is sparse, and a penalty on all rows would make it dense"
    if not _is_matrix(module):
        return "its weight is not a floating-point matrix"
    if any(_is_sharded(p) for p in weight_parameters(module)):
        return "its weight is sharded across ranks; no rank sees all of its rows"
    sets = Layer([""], module).row_sets()
    rows, entries = sets[0].shape[0], sets[0][:1].numel()
    if rows < 2:
        what = "filter" if len(sets) > 1 else "row"
        where = f"each of its {len(sets)} groups has" if len(sets) > 1 else "it has"
        return f"{where} {rows} {what}{'s' * (rows != 1)}: nothing to compare"
    if entries < 2:
        return "its rows have one entry, so that all angles are 0 or 180 degrees"
    return None
