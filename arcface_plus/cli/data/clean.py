"""``arcface-plus data clean``: find what is likely wrong in a folder of faces, move it, undo it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arcface_plus.cli.model_options import (
    BatchSize,
    Device,
    Preprocessing,
    Resize,
    embedding_options,
    parse_preprocessing,
)
from arcface_plus.cli.progress import counted

if TYPE_CHECKING:
    from arcface_plus.evaluation.cleaning.findings import Kind
    from arcface_plus.evaluation.cleaning.photographs import Photographs
    from arcface_plus.models import preprocessing as models_preprocessing


def clean_command(
    model: Annotated[
        Path | None, typer.Argument(help="Run folder, .safetensors, .pt or .onnx file.")
    ] = None,
    data: Annotated[
        Path | None, typer.Argument(help="A folder PERSON/IMAGE of aligned faces, or a .rec.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The folder for findings (DATA-clean, beside DATA).")
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(help="Which of duplicates,labels,merge,split.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(help="KIND=NUMBER in place of a default, such as labels=0.3; repeat it."),
    ] = None,
    apply: Annotated[
        bool,
        typer.Option(
            "--apply",
            help="Move what clean.csv lists (it is made first where it is not there): duplicates"
            " and labels, or --kinds.",
        ),
    ] = False,
    undo: Annotated[
        Path | None, typer.Option(metavar="MOVES", help="Move back what this moves.csv lists.")
    ] = None,
    preprocessing: Preprocessing = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    resize: Resize = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Clean anew where clean.csv is there.")
    ] = False,
) -> None:
    """Find near-duplicates, wrong labels, people with two folders, folders of two people.

    Writes clean.csv and clean.html. Nothing is moved without --apply, and nothing is ever deleted.
    """
    from arcface_plus.evaluation.cleaning.cleaning import FINDINGS
    from arcface_plus.evaluation.cleaning.photographs import open_photographs

    if undo is not None:
        _undo(undo, alone=model is None and not apply)
        return
    if model is None or data is None:
        raise ValueError("Give a model and a folder of faces: data clean MODEL DATA.")
    wanted, limits = parse_kinds(kinds), parse_thresholds(threshold or [])
    photographs = open_photographs(data)
    if apply and photographs.root is None:
        raise ValueError(
            f"{data} is a record file, which --apply does not change. data unpack it, clean the "
            "folder, and data pack that."
        )
    place = output or _beside(data)
    if place.resolve().is_relative_to(data.resolve()):
        raise ValueError(f"{place} lies in {data}, where it would count as a person; move it out.")
    stated = parse_preprocessing(preprocessing)
    if not (place / FINDINGS).exists() or overwrite:
        _find(photographs, model, stated, place, wanted, limits, batch_size, device, resize)
    elif not apply:
        raise ValueError(
            f"{place / FINDINGS} exists: --apply it as it is, --overwrite it, or choose another "
            "--output."
        )
    else:
        named = {kind: limits[kind] for kind in limits if f"{kind}=" in " ".join(threshold or [])}
        _check(place, model, stated, wanted if kinds else (), named, resize)
    if apply:
        _apply(data, place, wanted if kinds else None)


def parse_kinds(text: str | None) -> tuple[Kind, ...]:
    """Return the kinds that ``duplicates,labels`` names; all without it."""
    from arcface_plus.evaluation.cleaning.findings import KINDS

    words = KINDS if text is None else tuple(text.split(","))
    if strange := [word for word in words if word not in KINDS]:
        raise ValueError(f"--kinds {text}: {strange[0]!r} is none of {', '.join(KINDS)}.")
    return tuple(kind for kind in KINDS if kind in words)


def parse_thresholds(pairs: list[str]) -> dict[Kind, float]:
    """Return the thresholds, those of ``KIND=NUMBER`` in place of the defaults."""
    from arcface_plus.evaluation.cleaning.findings import KINDS, THRESHOLDS

    limits = dict(THRESHOLDS)
    for pair in pairs:
        name, _, number = pair.partition("=")
        kind = next((each for each in KINDS if each == name), None)
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if kind is None or not math.isfinite(value):
            raise ValueError(
                f"--threshold {pair}: give KIND=NUMBER, where KIND is one of {', '.join(KINDS)}."
            )
        limits[kind] = value
    return limits


def _beside(data: Path) -> Path:
    whole = data.resolve()
    return whole.parent / f"{whole.stem if whole.suffix == '.rec' else whole.name}-clean"


def _find(
    photographs: Photographs,
    model: Path,
    stated: models_preprocessing.Preprocessing | None,
    place: Path,
    kinds: tuple[Kind, ...],
    thresholds: dict[Kind, float],
    batch_size: int,
    device: str,
    resize: bool,
) -> None:
    from arcface_plus.distributed import start_world
    from arcface_plus.evaluation.cleaning.cleaning import FINDINGS, PAGE, clean
    from arcface_plus.models import load_model

    network = load_model(model, preprocessing=stated)
    with start_world(device) as world:
        options = embedding_options(network, None, batch_size, world.device, "fp32", resize)
        counts = clean(
            photographs, network, place, options, kinds=kinds, thresholds=thresholds, show=counted
        )
    typer.echo(", ".join(f"{kind}: {count}" for kind, count in counts.items()))
    typer.echo(f"look at {place / PAGE}; {place / FINDINGS} has a line for every finding")


def _check(
    place: Path,
    model: Path,
    stated: models_preprocessing.Preprocessing | None,
    kinds: tuple[Kind, ...],
    thresholds: dict[Kind, float],
    resize: bool,
) -> None:
    """Refuse findings that were not made with what is asked for now."""
    import torch

    from arcface_plus.evaluation.cleaning.cleaning import check_made_with
    from arcface_plus.models import load_model

    network = load_model(model, preprocessing=stated)
    options = embedding_options(network, None, 1, torch.device("cpu"), "fp32", resize)
    check_made_with(place, network, options, kinds, thresholds)


def _apply(data: Path, place: Path, kinds: tuple[Kind, ...] | None) -> None:
    from arcface_plus.evaluation.cleaning.cleaning import APPLIED, MOVES, apply

    count = apply(data, place, kinds or APPLIED)
    typer.echo(f"{count} photographs moved" + (f"; --undo {place / MOVES}" if count else ""))


def _undo(moves: Path, *, alone: bool) -> None:
    from arcface_plus.evaluation.cleaning.moves import undo_moves

    if not alone:
        raise ValueError("--undo takes a moves.csv alone, without a model, data or --apply.")
    typer.echo(f"{undo_moves(moves)} photographs moved back")
