"""Gradient checkpointing that leaves batch-norm statistics as a plain run leaves them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


@contextmanager
def _scratch_statistics(block: nn.Module) -> Iterator[None]:
    """Let batch norms update copies of their running statistics, and drop the copies."""
    kept = [
        (module, key, buffer)
        for module in block.modules()
        if isinstance(module, _BatchNorm)
        for key, buffer in module.named_buffers(recurse=False)
    ]
    for module, key, buffer in kept:
        setattr(module, key, buffer.clone())
    try:
        yield
    finally:
        for module, key, buffer in kept:
            setattr(module, key, buffer)


def run_recomputed(block: nn.Module, x: Tensor, *, draws: bool = False) -> Tensor:
    """Return ``block(x)``, keeping only ``x``; backward runs the block a second time.

    Values, gradients and running statistics equal those of ``block(x)``. ``draws``: the block draws
    random numbers: the state of their generators is kept, and the second run draws the same.
    """
    return checkpoint(
        block,
        x,
        use_reentrant=False,
        preserve_rng_state=draws,
        context_fn=lambda: (nullcontext(), _scratch_statistics(block)),
    )
