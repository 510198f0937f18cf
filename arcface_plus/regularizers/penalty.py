"""One penalty on one weight, named by its kind: what the losses of this folder have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from arcface_plus.regularizers.energies import (
    check_exponent,
    check_fraction,
    cosine_loss,
    log_loss,
    mhe_loss,
    riesz_loss,
)
from arcface_plus.regularizers.mma import mma_loss
from arcface_plus.regularizers.orthogonal import orthogonal_loss
from arcface_plus.regularizers.regularface import regularface_loss
from arcface_plus.regularizers.smooth_mma import check_temperature, smooth_mma_loss

_LOSSES: dict[str, Callable[..., Tensor]] = {
    "mma": mma_loss,
    "cosine": cosine_loss,
    "riesz": riesz_loss,
    "log": log_loss,
    "mhe": mhe_loss,
    "orthogonal": orthogonal_loss,
    "regularface": regularface_loss,
    "smooth_mma": smooth_mma_loss,
}
KINDS = tuple(_LOSSES)
_OPTIONS = {
    "mma": ("rows",),
    "riesz": ("s",),
    "mhe": ("s", "fraction", "half_space"),
    "smooth_mma": ("temperature",),
}


@dataclass(frozen=True)
class AngularPenalty:
    """Compute a loss of the angles between a weight's rows, without its coefficient.

    ``kind``, one of ``KINDS``, names the function ``KIND_loss``; the other fields are that
    function's arguments: ``rows`` for mma, ``s`` for riesz and mhe, ``fraction`` and
    ``half_space`` for mhe, ``temperature`` for smooth_mma. Raises ValueError for an unknown kind, a
    value out of range, and an option other than its default that the kind does not take.
    """

    kind: str = "mma"
    s: float = 2.0
    fraction: float = 1.0
    half_space: bool = False
    temperature: float = 0.1
    rows: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}, but must be one of {', '.join(KINDS)}.")
        taken = _OPTIONS.get(self.kind, ())
        for field in fields(self)[1:]:
            if field.name not in taken and getattr(self, field.name) != field.default:
                users = [kind for kind in KINDS if field.name in _OPTIONS.get(kind, ())]
                raise ValueError(
                    f"{field.name} does nothing for the kind {self.kind!r}; leave it out, or "
                    f"choose a kind that takes it: {', '.join(users)}."
                )
        check_exponent(self.s, zero_is_log=self.kind == "mhe")
        check_fraction(self.fraction)
        check_temperature(self.temperature)
        if not isinstance(self.half_space, bool):
            raise ValueError(f"half_space is {self.half_space!r}, but must be True or False.")
        rows = self.rows
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
            raise ValueError(f"rows is {rows!r}, but must be an integer from 1, or None for all.")

    @property
    def is_random(self) -> bool:
        """Whether rows are drawn anew at every call, by the generator it is given."""
        return self.rows is not None or self.fraction < 1

    @property
    def sums_pairs(self) -> bool:
        """Whether the loss is a sum over pairs of rows, where all others are means."""
        return self.kind == "orthogonal"

    def __call__(self, weight: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return the loss () of ``weight`` (n, …), differentiable; arguments and errors as there.

        ``generator`` draws the rows of a random kind; torch's own where it is None.
        """
        options = {name: getattr(self, name) for name in _OPTIONS.get(self.kind, ())}
        if self.is_random:
            options["generator"] = generator
        return _LOSSES[self.kind](weight, **options)
