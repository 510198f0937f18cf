"""What the head asks of a margin loss, whatever its kind.

A kind is a small frozen settings dataclass that derives from :class:`MarginLoss` and overrides what
sets it apart from softmax of s·cosθ. Shapes: B samples, of all ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor

from arcface_plus.losses.softmax import OtherLogits, cross_entropy_of


@dataclass(frozen=True)
class Samples:
    """What a margin may know of the samples it is given, besides their cosines.

    ``norm`` (B,) of the embeddings, with gradient, where the kind ``uses_norm``. ``own_cosine``
    (B,), without gradient, where it is ``informed``. ``draws`` (B,): a standard normal number a
    sample, where it ``draws``. ``state``: its running averages () by name. ``learned``: its learned
    numbers () by name. ``rivals`` (B,), without gradient, where it ``surveys``: log Σ exp of the
    logits of the other classes, with the state as it was before the step.
    """

    norm: Tensor
    own_cosine: Tensor | None = None
    draws: Tensor | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)
    learned: Mapping[str, Tensor] = field(default_factory=dict)
    rivals: Tensor | None = None


class MarginLoss:
    """Base of all kinds: softmax of s·cosθ unless overridden.

    ``informed``: every sample's own cosine must be known on all ranks before anything is scored
    (one more pass over the batch, and one more collective). ``surveys``: so must what its other
    classes weigh (all is scored twice). ``draws``: the step must be known.
    ``uses_norm``: the norm of an embedding measures its quality. ``margins``: the fields that are
    margins, with the value at which each does nothing. ``warmup_steps``: in step k (from 0) margins
    have (k + 1)/warmup_steps of their size, from that step on all of it; the scale s is whole from
    the start.
    """

    margins: ClassVar[Mapping[str, float]] = {}
    informed: ClassVar[bool] = False
    surveys: ClassVar[bool] = False
    draws: ClassVar[bool] = False
    uses_norm: ClassVar[bool] = False
    # Times norm_penalty in the loss.
    norm_penalty_weight: float = 0.0
    s: float
    warmup_steps: int = 0

    def at_step(self, step: int) -> Any:
        """Return the loss with the margins of optimizer step ``step`` (0-based)."""
        if step + 1 >= self.warmup_steps:
            return self
        share = (step + 1) / self.warmup_steps
        scaled = {
            name: none + share * (getattr(self, name) - none) for name, none in self.margins.items()
        }
        return replace(self, **scaled, warmup_steps=0)  # type: ignore[type-var]

    def initial_state(self, num_classes: int, sample_rate: float) -> dict[str, float]:
        """Return the running averages that a checkpoint must hold, with their first values."""
        return {}

    def observed(self, samples: Samples) -> Tensor | None:
        """Return the number (B,) of each sample whose mean and deviation move the state.

        Or what else ``after_step`` takes, a row a sample; None where the state never moves.
        """
        raise NotImplementedError(f"{type(self).__name__} has no state")

    def after_step(self, state: Mapping[str, Tensor], numbers: Tensor) -> dict[str, Tensor]:
        """Return the state after a step whose samples, of all ranks, had these ``observed`` ones.

        The deviation is the unbiased one.
        """
        mean = numbers.mean()
        deviation = ((numbers - mean).square().sum() / (len(numbers) - 1)).sqrt()
        return self.moved(state, mean, deviation)

    def moved(
        self, state: Mapping[str, Tensor], mean: Tensor, deviation: Tensor
    ) -> dict[str, Tensor]:
        """Return the state after a step whose ``observed`` numbers had that mean and deviation."""
        raise NotImplementedError(f"{type(self).__name__} has no state")

    def initial_learned(self, num_classes: int, sample_rate: float) -> dict[str, float]:
        """Return the learned numbers of the loss, with their first values."""
        return {}

    def target_logit(self, cosine: Tensor, samples: Samples) -> Tensor:
        """Return the logits (B,) of own cosines (B,)."""
        return self.s * cosine

    def others(self, samples: Samples) -> OtherLogits:
        """Return how cosines with the other classes become logits."""
        return OtherLogits(scale=self.s)

    def shift_of_others(self, samples: Samples) -> Tensor | None:
        """Return a number () to add to the logits of all others, or None."""
        return None

    def losses(self, target: Tensor, others: Tensor) -> Tensor:
        """Return the loss (B,) of target logits (B,) and the sums (B,) over all others."""
        return cross_entropy_of(target, others)

    def norm_penalty(self, norm: Tensor) -> Tensor | None:
        """Return what the norms (B,) of the embeddings cost, (B,), or None."""
        return None
