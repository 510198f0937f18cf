"""An angular penalty on the layers of a model, equation (13) of the MMA paper.

    penalty = λ Σ_layers loss(W_layer)

In anyone's training loop, three lines:

    regularizer = AngularRegularizer(model, kind="mma", weight=0.03)
    loss = criterion(model(images), labels) + regularizer()
    loss.backward()
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from arcface_plus.randomness import layer_row_generator
from arcface_plus.regularizers.layers.choice import choose_layers
from arcface_plus.regularizers.layers.finding import Layer
from arcface_plus.regularizers.mma import nearest_angles
from arcface_plus.regularizers.penalty import AngularPenalty


class AngularRegularizer:
    """Computes λ Σ_layers loss(W_layer) of a model's convolutions and linear layers, eq. (13).

    ``model`` stays as it is: this object refers to its modules, so that it follows later ``.to()``
    and ``.half()``, has no parameters and adds nothing to a state dict. ``kind`` and the options
    ``s``, ``fraction``, ``half_space``, ``temperature``, ``rows`` are those of ``AngularPenalty``.
    ``weight`` is λ, 0 or above, and may be set between calls. ``layers`` is "all", "hidden" (all
    but the output layer), "output", or ``fnmatch`` patterns of module names; ``exclude`` leaves
    layers out by such patterns. ``output`` names the output layer, the last layer in module order
    where it is None. ``seed`` starts the draws of random kinds.

    Layers are linear, convolutional and transposed convolutional ones and embedding tables (without
    their padding row); other modules with a ``weight`` only where ``layers`` has their full name.
    Filters of a grouped convolution are compared within their group: the layer's loss is the mean
    over groups (the sum, for orthogonal). A weight shared by several modules counts once. Frozen
    weights count nothing, neither value nor gradient, as long as they are frozen. ``left_out``
    names the other modules that have weights, and why each is not regularized.

    Raises ValueError for arguments that mean nothing, patterns that match nothing, and a model
    without a layer to regularize.
    """

    def __init__(
        self,
        model: nn.Module,
        kind: str = "mma",
        weight: float = 0.03,
        layers: str | Sequence[str] = "all",
        *,
        exclude: str | Sequence[str] = (),
        output: str | None = None,
        s: float = 2.0,
        fraction: float = 1.0,
        half_space: bool = False,
        temperature: float = 0.1,
        rows: int | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model is a {type(model).__name__}, but must be a torch.nn.Module.")
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed is {seed!r}, but must be a whole number, 0 or above.")
        self.penalty = AngularPenalty(kind, s, fraction, half_space, temperature, rows)
        self.weight = weight
        self.seed = seed
        chosen = choose_layers(model, layers, exclude, output)
        self._layers, self.left_out = chosen.layers, chosen.left_out
        self._calls = 0

    @property
    def weight(self) -> float:
        """The coefficient λ."""
        return self._weight

    @weight.setter
    def weight(self, value: float) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value >= 0):
            raise ValueError(f"weight is {value!r}, but must be a finite number, 0 or above.")
        self._weight = value

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The names of the regularized layers, in module order."""
        return tuple(layer.name for layer in self._layers)

    def __repr__(self) -> str:
        return (
            f"AngularRegularizer(kind={self.penalty.kind!r}, weight={self.weight}, "
            f"{len(self._layers)} layers)"
        )

    def __call__(self, step: int | None = None) -> Tensor:
        """Return the penalty (), to be added to the loss once an optimizer step.

        A float32 scalar on the weights' device (the first layer's), float64 where a weight is that;
        autocast does not touch it. Random kinds draw from (seed, step, layer): the same on every
        rank of a data-parallel run, and again after a restart. Without ``step`` the calls are
        counted instead. A weight of 0 gives exactly 0, without a graph or a look at the layers.

        Raises ValueError for a row that is zero or not finite, naming it and its layer.
        """
        if step is not None and step < 0:
            raise ValueError(f"step is {step}, but must be 0 or above, or None to count calls.")
        if step is None:
            step, self._calls = self._calls, self._calls + 1
        total = torch.zeros((), device=self._layers[0].device)
        if self.weight == 0:
            return total
        for index, layer in enumerate(self._layers):
            if not layer.is_frozen:
                total = total + self._loss(layer, step, index).to(total.device)
        return total * self.weight

    def minimum_angles(self) -> dict[str, float]:
        """Return each regularized layer's smallest angle between two rows, in degrees, exactly.

        Of a grouped convolution, between two filters of one group. Synchronises with the device.
        """
        angles = {}
        for layer in self._layers:
            with torch.no_grad(), _naming(layer):
                smallest = [nearest_angles(rows).angle.min() for rows in layer.row_sets()]
            angles[layer.name] = math.degrees(min(float(angle) for angle in smallest))
        return angles

    def _loss(self, layer: Layer, step: int, index: int) -> Tensor:
        penalty = self.penalty
        generator = layer_row_generator(self.seed, step, index) if penalty.is_random else None
        with _naming(layer):
            losses = torch.stack([penalty(rows, generator=generator) for rows in layer.row_sets()])
        return losses.sum() if penalty.sums_pairs else losses.mean()


@contextlib.contextmanager
def _naming(layer: Layer) -> Iterator[None]:
    """Put the layer's name before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"layer {layer.name}: {error} To leave the layer out: exclude={layer.name!r}."
        ) from error
