"""What the micro-batches of an optimizer step share, and what earlier ones of them leave behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from arcface_plus import devices
from arcface_plus.losses.head.sampling import Sample


@dataclass
class StepPlan:
    """What all micro-batches of one optimizer step share.

    ``total`` samples over all ranks and micro-batches, ``sizes`` of them on each rank; the
    ``sample`` of this shard's rows, or None where all take part, and the ``share`` of each, which
    its pull by MMA is multiplied by. ``taken``: how many samples of each rank earlier micro-batches
    had. ``observed``: the numbers of those samples, all ranks', that move the margin's state, and
    ``state`` as it was before the step. ``picked``: the sample's rows, once they have been taken.
    """

    sizes: tuple[int, ...]
    step: int
    sample: Sample | None
    share: Tensor | None = None
    taken: list[int] = field(default_factory=list)
    observed: list[Tensor] = field(default_factory=list)
    state: dict[str, Tensor] | None = None
    picked: Tensor | None = None

    @property
    def total(self) -> int:
        return sum(self.sizes)

    def pick(self, weight: Tensor, rows: Tensor, *, sparse: bool) -> Tensor:
        """Return the ``rows`` (k · K,) of ``weight`` (C_r · K, D), with gradient where they count.

        They are those of the sample's classes, K a class, in their order.

        With ``sparse``, ``weight`` gets a coalesced sparse gradient of the sample's rows, in which
        those of all micro-batches add up; that of rows that take no part is zero.
        """
        assert self.sample is not None
        taking_part = self.sample.taking_part
        if not (sparse and weight.requires_grad and torch.is_grad_enabled()):
            picked = weight.index_select(0, rows)
        else:
            if self.picked is None:
                self.picked = weight.detach().index_select(0, rows).requires_grad_()
                self.picked.register_post_accumulate_grad_hook(_as_gradient_of(weight, rows))
            picked = self.picked
        if taking_part is None:
            return picked
        counts = taking_part.repeat_interleave(len(rows) // max(1, len(taking_part)))
        return torch.where(counts[:, None], picked, picked.detach())

    def hidden(self, dtype: torch.dtype) -> Tensor | None:
        """Return what to add to the logits (k,) of the sample's rows: −∞ to those out of it."""
        if self.sample is None or self.sample.taking_part is None:
            return None
        nothing = self.sample.rows.new_zeros(len(self.sample.rows), dtype=dtype)
        return nothing.masked_fill_(~self.sample.taking_part, -torch.inf)

    def take(self, sizes: Sequence[int]) -> np.ndarray:
        """Return the places (B,) in the step's global batch of the next micro-batch's samples.

        ``sizes``: how many each rank brings. A rank's samples follow those of the ranks before it.
        """
        taken = self.taken or [0] * len(self.sizes)
        starts = np.cumsum([0, *self.sizes[:-1]])
        places = [
            start + done + np.arange(size)
            for start, done, size in zip(starts, taken, sizes, strict=True)
        ]
        self.taken = [done + size for done, size in zip(taken, sizes, strict=True)]
        return np.concatenate(places)


def _as_gradient_of(weight: Tensor, rows: Tensor) -> Callable[[Tensor], None]:
    """Return what makes the gradient of picked ``rows`` (k,) that of ``weight`` (C_r, D).

    Autograd's own sparse gradients would be put one behind the other, and adding them up makes the
    host wait for the number of different rows.
    """

    def pass_on(picked: Tensor) -> None:
        values = picked.grad
        assert values is not None
        mine = torch.sparse_coo_tensor(
            rows[None], values, weight.shape, is_coalesced=True, check_invariants=False
        )
        before = weight.grad
        if before is None or (
            before.is_sparse and before._values().data_ptr() == values.data_ptr()
        ):
            weight.grad = mine  # earlier micro-batches of the plan are in it
        else:
            weight.grad = before + mine

    return pass_on


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise ValueError where ``labels`` are not int64 in 0…num_classes − 1."""
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64, got {labels.dtype}.")
    fine = ((labels >= 0) & (labels < num_classes)).all()
    if not devices.host_may_look(labels.device):
        torch._assert_async(fine)  # reading the answer here would stall every step
    elif not fine:
        wrong = labels[(labels < 0) | (labels >= num_classes)][0].item()
        raise ValueError(
            f"label {wrong} is outside 0…{num_classes - 1}; the head was built for "
            f"{num_classes} classes."
        )
