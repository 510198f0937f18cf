"""A cleaning from photographs to its output folder, and the moves that it proposes.

The output folder holds ``clean.csv`` (the findings, a line a photograph), ``clean.html``,
``clean.json`` (what was cleaned, and how), ``embeddings/`` (kept for another look), and after
``apply`` ``moves.csv`` and ``moved/``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from arcface_plus.evaluation.cleaning.findings import (
    KINDS,
    THRESHOLDS,
    Kind,
    lines_of,
    read_lines,
    write_lines,
)
from arcface_plus.evaluation.cleaning.moves import apply_moves, plan_moves
from arcface_plus.evaluation.cleaning.page import write_page
from arcface_plus.evaluation.cleaning.photographs import Photographs, fingerprint, look
from arcface_plus.evaluation.cleaning.search import find
from arcface_plus.evaluation.embedding.cache import cached_embeddings
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions, embed_images
from arcface_plus.files import written_beside
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.weights import model_hash

FINDINGS, PAGE, FACTS, MOVES = "clean.csv", "clean.html", "clean.json", "moves.csv"
APPLIED: tuple[Kind, ...] = ("duplicates", "labels")
Show = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


def clean(
    photographs: Photographs,
    model: EmbeddingModel,
    output: Path,
    options: EmbeddingOptions,
    *,
    kinds: Collection[Kind] = KINDS,
    thresholds: Mapping[Kind, float] = THRESHOLDS,
    show: Show,
) -> dict[Kind, int]:
    """Find what is likely wrong, write it into the folder ``output``, return how many of a kind.

    ``show(name)`` opens a display of progress. Raises as ``look``, ``embed_images`` and ``find``.
    """
    with show("reading") as progress:
        looks = look(photographs, progress)
    made_with = _made_with(model, options)
    device = torch.device(options.device or "cpu").type
    facts = {**made_with, "photographs": looks.fingerprint, "device": device}

    def make() -> Any:
        with show("embedding") as progress:
            return embed_images(model, photographs.images, options, progress=progress)

    shape = (len(photographs.keys), model.embedding_dim)
    embeddings = cached_embeddings(output / "embeddings", facts, shape, make)
    found = find(embeddings, photographs.images.labels, looks, kinds=kinds, thresholds=thresholds)
    counts = Counter(finding.kind for finding in found.findings)
    summary = {
        "photographs": len(photographs.keys),
        "people": len(photographs.people),
        "fingerprint": looks.fingerprint,
        **made_with,
        "thresholds": {kind: thresholds[kind] for kind in kinds},
        "cosine_strangers": found.stranger,
        "cosine_typical": found.typical,
        "findings": {kind: counts[kind] for kind in kinds},
    }
    write_page(output / PAGE, found, photographs, title=output.name)
    with written_beside(output / FACTS) as beside:
        beside.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    write_lines(output / FINDINGS, lines_of(found.findings, photographs.keys, photographs.people))
    return {kind: counts[kind] for kind in kinds}


def _made_with(model: EmbeddingModel, options: EmbeddingOptions) -> dict[str, str | bool]:
    """Return what decides the embeddings of a cleaning, as ``clean.json`` has it."""
    return {
        "model": model_hash(model),
        "preprocessing": model.preprocessing.to_json(),
        "flip": options.flip,
        "precision": options.precision,
        "resize": options.resize,
    }


def check_made_with(
    output: Path,
    model: EmbeddingModel,
    options: EmbeddingOptions,
    kinds: Collection[Kind],
    thresholds: Mapping[Kind, float],
) -> None:
    """Raise ValueError, naming each difference, where ``output/clean.csv`` was made otherwise: with
    another model or options, without one of ``kinds``, or with another one of ``thresholds``.
    """
    state = json.loads((output / FACTS).read_text(encoding="utf-8"))
    known: dict[str, Any] = state["thresholds"]
    made: dict[str, Any] = dict(_made_with(model, options))
    pairs = [(name, state.get(name, "not recorded"), value) for name, value in made.items()]
    if set(kinds) - set(known):
        pairs.append(("kinds", ",".join(known), ",".join(kinds)))
    for kind, value in thresholds.items():
        pairs.append((f"threshold {kind}", known.get(kind, "not used"), value))
    changed = [f"{name} was {was}, is {value}" for name, was, value in pairs if was != value]
    if changed:
        raise ValueError(
            f"{output / FINDINGS} was made otherwise: {'; '.join(changed)}. Apply it with the "
            "options that it was made with, clean anew (--overwrite), or choose another --output."
        )


def apply(data: Path, output: Path, kinds: Collection[Kind] = APPLIED) -> int:
    """Move what ``output/clean.csv`` proposes of ``kinds`` in ``data``; return how many moved.

    The file may have lost lines since it was written. Raises ValueError, before anything moves,
    where ``data`` is not what was cleaned, moves were made already, or a line cannot be followed.
    """
    if (output / MOVES).exists():
        raise ValueError(
            f"{output / MOVES} lists moves that were made; undo them (--undo), or move that list "
            "away to keep them for good."
        )
    state = json.loads((output / FACTS).read_text(encoding="utf-8"))
    if fingerprint(data) != state["fingerprint"]:
        raise ValueError(
            f"{data} has changed since {output / FINDINGS} was written; clean it anew "
            "(--overwrite)."
        )
    moves = plan_moves(read_lines(output / FINDINGS), kinds, data, output)
    if moves:
        apply_moves(moves, output / MOVES)
    return len(moves)
