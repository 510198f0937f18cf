"""How a layer's filters stand to each other, and how strongly penalties pull at an angle.

Figures 1 and 2 of the MMA paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.regularizers.geometry.gradient_norms import (
    cosine_gradient_norm,
    log_gradient_norm,
    mma_gradient_norm,
    riesz_gradient_norm,
)
from arcface_plus.studies.figure import COLORS, STYLES, new_figure, save_figure
from arcface_plus.studies.table import write_csv

CLOSE = 0.2  # the paper counts the pairs of filters whose cosine exceeds this


def first_filters(model: nn.Module) -> Tensor:
    """Return the filters (n, d) of the first convolution; ValueError where there is none."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.weight.detach().flatten(1)
    raise ValueError(f"{type(model).__name__} has no 2-D convolution, so no filters to compare.")


def pair_cosines(rows: Tensor) -> np.ndarray:
    """Return the cosines (n(n−1)/2,) of all unordered pairs of ``rows`` (n, d)."""
    unit = F.normalize(rows.double(), dim=1)
    upper = torch.triu_indices(len(unit), len(unit), offset=1)
    return (unit @ unit.t())[upper[0], upper[1]].numpy()


def draw_cosines(cosines: Mapping[str, np.ndarray], folder: Path) -> list[Path]:
    """Draw a histogram of pair cosines a method (Fig 1), one above the other, with the counts."""
    largest = max(float(np.abs(values).max()) for values in cosines.values())
    limit = min(1.0, max(2 * CLOSE, 0.1 * np.ceil(10 * largest)))
    bins = np.linspace(-limit, limit, 61).tolist()
    with new_figure(5.0, 0.6 + 1.1 * len(cosines)) as figure:
        # A panel each: five outlines over each other cannot be distinguished.
        panels = figure.subplots(len(cosines), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for i, (axes, (name, values)) in enumerate(zip(panels, cosines.items(), strict=True)):
            axes.hist(values, bins=bins, color=COLORS[i % len(COLORS)], linestyle="-")
            axes.axvline(CLOSE, color="0.3", linewidth=0.8, linestyle="--")
            above = int((values > CLOSE).sum())
            axes.set_title(
                f"{name}: {above} of {len(values)} above {CLOSE}", fontsize=8, loc="left"
            )
        panels[-1].set_xlabel("cosine between two filters of the first layer")
        figure.supylabel("pairs of filters", fontsize=9)
        return save_figure(figure, folder, "fig1")


# -- Fig 2 -----------------------------------------------------------------------------------------


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a - b)


# Name: closed form of ‖∂term/∂w_i‖ by angle and ‖w‖, and the term of a pair of unit rows.
_CURVES: dict[str, tuple[Callable[[Tensor, float], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "cosine, eq. (7)": (cosine_gradient_norm, torch.dot),
    "MMA, eq. (8)": (mma_gradient_norm, lambda a, b: 2 * torch.asin(_distance(a, b) / 2)),
    "Riesz-Fisher s = 1, eq. (10)": (riesz_gradient_norm, lambda a, b: 1 / _distance(a, b)),
    "log, eq. (12)": (log_gradient_norm, lambda a, b: _distance(a, b).log()),
}


def closed_form(name: str, angle: Tensor, norm: float = 1.0) -> Tensor:
    """Return ‖∂term/∂w_i‖ (k,) by the paper's formula at ``angle`` (k,) radians."""
    return _CURVES[name][0](angle, norm)


def measured_norm(name: str, angle: float, norm: float = 1.0) -> float:
    """Return the same norm by autograd, for a row of length ``norm`` at ``angle`` radians."""
    w = torch.tensor([norm, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([np.cos(angle), np.sin(angle), 0.0], dtype=torch.float64)
    term = _CURVES[name][1](F.normalize(w, dim=0), other)
    (gradient,) = torch.autograd.grad(term, w)
    return float(torch.linalg.vector_norm(gradient))


def draw_gradient_norms(folder: Path) -> list[Path]:
    """Draw Fig 2: closed forms as lines, autograd of the same terms as markers; also a CSV."""
    lines, marks = np.linspace(0.5, 179.5, 359), np.arange(10, 180, 10)
    measured = {n: [measured_norm(n, angle) for angle in np.deg2rad(marks)] for n in _CURVES}
    with new_figure() as figure:
        axes = figure.subplots()
        for i, name in enumerate(_CURVES):
            values = closed_form(name, torch.from_numpy(np.deg2rad(lines)))
            axes.plot(lines, values, color=COLORS[i], linestyle=STYLES[i], label=name)
            axes.plot(marks, measured[name], ".", color=COLORS[i])
        axes.set(xlim=(0, 180), ylim=(0, 3), xlabel="angle between the pair (°)")
        axes.set_ylabel("norm of the gradient, ‖w‖ = 1")
        axes.legend(title="lines: closed form; dots: autograd", fontsize=8)
        paths = save_figure(figure, folder, "fig2")
    rows = [
        {"angle_deg": angle, **{name: f"{measured[name][i]:.8g}" for name in _CURVES}}
        for i, angle in enumerate(marks)
    ]
    write_csv(rows, folder / "fig2.csv")
    return [*paths, folder / "fig2.csv"]
