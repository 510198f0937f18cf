"""Random state dicts and the comparison that the network tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
MakeState = Callable[[Shapes], dict[str, Tensor]]


@pytest.fixture
def make_state() -> MakeState:
    """Fill a layout with float64 values that keep a deep network's activations of order one."""

    def make(shapes: Shapes) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        state = {}
        for key, shape in shapes.items():
            normal = torch.randn(shape, generator=generator, dtype=torch.float64)
            uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
            if key.endswith("num_batches_tracked"):
                state[key] = torch.tensor(7)
            elif key.endswith("running_var"):
                state[key] = 0.5 + uniform
            elif key.endswith(("running_mean", "bias")):
                state[key] = 0.3 * normal
            elif len(shape) == 1:  # gains of batch norms, slopes of PReLUs
                state[key] = 0.3 + uniform
            else:
                state[key] = normal * (2 / torch.Size(shape[1:]).numel()) ** 0.5
        return state

    return make
