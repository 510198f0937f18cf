"""Which of a model's layers are regularized: hidden, output, all, or those that patterns name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from arcface_plus.regularizers.layers.finding import FoundLayers, Layer, find_layers

_WORDS = ("all", "hidden", "output")


def choose_layers(
    model: nn.Module,
    layers: str | Sequence[str],
    exclude: str | Sequence[str],
    output: str | None,
) -> FoundLayers:
    """Return the chosen layers of ``model`` in module order, and why each other one is not.

    ``layers`` is "all", "hidden" (all but the output layer), "output", or one or several patterns
    of names as ``fnmatch`` reads them. ``exclude`` are patterns of layers to leave out. ``output``
    names the output layer; the last layer in module order where it is None.

    Raises ValueError for a pattern or name that matches no layer, naming the nearest, and where
    nothing is left to regularize.
    """
    patterns, unwanted = _as_list(layers), _as_list(exclude)
    asked = [*patterns, *([output] if output is not None else [])]
    found = find_layers(model, {name for name in asked if not set("*?[") & set(name)})
    if not found.layers:
        raise ValueError(
            f"the {type(model).__name__} has no layer whose rows could be compared"
            f"{_listed(found.left_out)}."
        )
    last = found.layers[-1] if output is None else _output_layer(found, output)
    if isinstance(layers, str) and layers in _WORDS:
        wanted = [x for x in found.layers if layers == "all" or (x is last) == (layers == "output")]
    else:
        wanted = _matching(found, "layers", patterns)
    dropped = _matching(found, "exclude", unwanted)
    chosen = FoundLayers(
        [layer for layer in wanted if layer not in dropped],
        {
            **found.left_out,
            **{x.name: f"not among layers={layers!r}" for x in found.layers if x not in wanted},
            **{layer.name: f"excluded by exclude={exclude!r}" for layer in dropped},
        },
    )
    if not chosen.layers:
        raise ValueError(
            f"layers={layers!r} with exclude={exclude!r} leaves nothing to regularize; the layers "
            f"are {_some(x.name for x in found.layers)}, of which {last.name} is the output."
        )
    return chosen


def _as_list(patterns: str | Sequence[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _matching(found: FoundLayers, argument: str, patterns: Sequence[str]) -> list[Layer]:
    """Return the layers that any pattern matches; each pattern must match one.

    What is left out anyway may be excluded too.
    """
    unfit = found.left_out if argument == "exclude" else {}
    names = [*unfit, *(name for layer in found.layers for name in layer.names)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(_no_match(found, argument, pattern))
    return [x for x in found.layers if any(fnmatchcase(n, p) for n in x.names for p in patterns)]


def _output_layer(found: FoundLayers, output: str) -> Layer:
    matching = _matching(found, "output", [output])
    if len(matching) > 1:
        names = _some(layer.name for layer in matching)
        raise ValueError(f"output={output!r} must name one layer, but matches {names}.")
    return matching[0]


def _no_match(found: FoundLayers, argument: str, pattern: str) -> str:
    unfit = {name: why for name, why in found.left_out.items() if fnmatchcase(name, pattern)}
    if unfit:
        return f"{argument}: {pattern!r} matches no layer with rows to compare{_listed(unfit)}."
    names = [name for layer in found.layers for name in layer.names]
    known = {name.lower(): name for name in [*names, *(_WORDS if argument == "layers" else ())]}
    near = difflib.get_close_matches(pattern.strip("*").lower(), known, n=3, cutoff=0.4)
    near = [known[name] for name in near]
    hint = f"the nearest are {', '.join(near)}" if near else f"there are {_some(names)}"
    return f"{argument}: {pattern!r} matches no layer; {hint}."


def _listed(reasons: dict[str, str]) -> str:
    parts = [f"{name}: {why}" for name, why in list(reasons.items())[:3]]
    more = f", and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return f" ({'; '.join(parts)}{more})" if parts else ""


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
