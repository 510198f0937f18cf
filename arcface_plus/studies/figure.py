"""How every figure of the studies looks: colour-blind safe, legible in print, SVG and PNG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008): readers with any of the common colour deficiencies can distinguish them. The
# line styles repeat it for grey prints.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), "-", "--")

_RC = {
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "svg.hashsalt": "arcface_plus",  # the same figure gives the same bytes
}


@contextmanager
def new_figure(width: float = 5.0, height: float = 3.5) -> Iterator[Figure]:
    """Yield an empty figure of that many inches, drawn off screen in the common style.

    Raises ModuleNotFoundError with the fix where matplotlib is not installed.
    """
    try:
        import matplotlib
        from cycler import cycler
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'figures need matplotlib: pip install "arcface_plus[report]"'
        ) from error
    with matplotlib.rc_context({**_RC, "axes.prop_cycle": cycler(color=COLORS, linestyle=STYLES)}):
        # Not through pyplot: no state is left behind and no display is asked for.
        yield Figure(figsize=(width, height))


def check_drawable() -> None:
    """Raise what ``new_figure`` would, before hours of training."""
    with new_figure():
        pass


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``folder/name.svg`` and ``.png`` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1])
    return paths
