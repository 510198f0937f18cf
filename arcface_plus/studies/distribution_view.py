"""Histograms of the cosines of one person and of two people, a model or two in one picture.

After Fig. A1 of the closeness and diversity paper's supplement: positives green, negatives red.
``evaluation.pairs.distribution`` says what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arcface_plus.evaluation.pairs.distribution import Cosines
from arcface_plus.studies.figure import COLORS, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

BIN = 0.02
_EDGES = np.linspace(-1, 1, 101)
_POSITIVE, _NEGATIVE = COLORS[2], COLORS[1]
_DARK_POSITIVE, _DARK_NEGATIVE = "#00513B", "#7A3500"
_LINES = ("-", (0, (4, 2)))
_LONGEST_NAME = 40


def draw_distributions(models: Mapping[str, Cosines], folder: Path, name: str) -> list[Path]:
    """Draw one or two ``models``, by name, to ``folder/name.svg`` and ``.png``; return the paths.

    Raises ValueError for more models or none.
    """
    if not 1 <= len(models) <= len(_LINES):
        raise ValueError(f"a distribution view shows one model or two, not {len(models)}.")
    with new_figure(6.4, 4.0) as figure:
        axes = figure.add_subplot()
        axes.set_xlim(*_span(models))
        for number, (label, cosines) in enumerate(models.items()):
            figure.legend(
                handles=_draw(axes, number, cosines),
                loc=f"outside upper {('left', 'right')[number]}",
                title=_shortened(label),
                ncols=2,
                fontsize=8,
                title_fontsize=8,
                columnspacing=1.2,
                alignment="left",
            )
        axes.set_ylim(bottom=0)
        axes.set_xlabel(
            "cosine similarity (boundary: 1 % of positives below; tail: 0.1 % of negatives above)"
        )
        axes.set_ylabel(f"share per {BIN:g} of cosine (%)")
        return save_figure(figure, folder, name)


def distribution_numbers(cosines: Cosines) -> dict[str, Any]:
    """Return what the picture shows of a model, JSON-able: its numbers and its histograms."""
    return {
        **cosines.distribution.to_dict(),
        "positives_in_all": cosines.positives_in_all,
        "negatives_in_all": cosines.negatives_in_all,
        "histogram": {
            "edges": [round(float(edge), 2) for edge in _EDGES],
            "positive": _counts(cosines.positive).tolist(),
            "negative": _counts(cosines.negative).tolist(),
        },
    }


def _counts(cosines: np.ndarray) -> np.ndarray:
    return np.histogram(cosines.clip(-1, 1), _EDGES)[0]  # rounding leaves −1 to 1


def _span(models: Mapping[str, Cosines]) -> tuple[float, float]:
    """Return round ends around all cosines, within −1 to 1."""
    every = [values for each in models.values() for values in (each.positive, each.negative)]
    low, high = min(v.min() for v in every), max(v.max() for v in every)
    return max(-1, math.floor(10 * low - 0.1) / 10), min(1, math.ceil(10 * high + 0.1) / 10)


def _draw(axes: Axes, number: int, cosines: Cosines) -> list[Artist]:
    """Draw a model's histograms and lines; return them for its legend."""
    numbers, line = cosines.distribution, _LINES[number]
    drawn: list[Artist] = []
    for color, words, values in (
        (_POSITIVE, "same person", cosines.positive),
        (_NEGATIVE, "different people", cosines.negative),
    ):
        share = 100 * _counts(values) / len(values)
        if number == 0:
            axes.stairs(share, _EDGES, fill=True, color=color, alpha=0.2)
        drawn.append(
            axes.stairs(share, _EDGES, color=color, linestyle=line, linewidth=1.4, label=words)
        )
    marks = ((_DARK_POSITIVE, numbers.boundary, "boundary"), (_DARK_NEGATIVE, numbers.tail, "tail"))
    for color, value, words in marks:
        if value is not None:  # the cosines are enough to show it
            label = f"{words} {value:.3f}"
            drawn.append(axes.axvline(value, color=color, linestyle=line, lw=0.9, label=label))
    return drawn


def _shortened(name: str) -> str:
    short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    return short.replace("$", r"\$")  # two of them would begin and end a formula
