"""``arcface-plus verify``: 1:1 verification of a model, or of embeddings in a file."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import numpy as np
    import torch

    from arcface_plus.data.pairs import PairSet
    from arcface_plus.evaluation.verification import VerificationResult
    from arcface_plus.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Entry:
    """One scored set: what it is, squared distances (N,) and labels of its pairs, the result."""

    facts: dict[str, Any]
    distances: np.ndarray
    is_same: np.ndarray
    result: VerificationResult
    pairs: PairSet | None = None


def verify_command(
    more_pairs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PAIRS", help="Further pair sets, after the first --pairs."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Run folder, .safetensors, .pt or .onnx file.")
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="An .npz of embeddings instead of a model: files and emb (with a list as --pairs),"
            " or embeddings_a, embeddings_b and is_same (without)."
        ),
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(help="Pair sets: .bin, or lists such as pairs.txt. Several may follow."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Image folder of the lists (their own folder if absent).")
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write every number to this file.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with curves and the hardest pairs.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Folds (as the list states; 10 if it does not).")
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Sum f(x) + f(mirrored x) (as the model states)."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images embedded at once.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16.")] = "fp32",
    resize: Annotated[bool, typer.Option(help="Scale images of another size.")] = False,
    preprocessing: Annotated[
        str | None,
        typer.Option(
            help="For files that do not state it: insightface, or JSON with mean, std, channels,"
            " size and flip_sum."
        ),
    ] = None,
) -> None:
    """Score faces in pairs: accuracy over folds, AUC, EER and TAR at fixed FAR.

    Several pair sets may follow one --pairs: verify --model M --pairs lfw.bin cfp_fp.bin
    """
    sets = [*(pairs or []), *(more_pairs or [])]
    if (model is None) == (embeddings is None):
        raise ValueError("Give either --model or --embeddings.")
    console = Console()
    if embeddings is not None:
        entries = [_score_file(embeddings, sets, folds, root)]
    else:
        assert model is not None
        if not sets:
            raise ValueError("--model needs at least one pair set to embed: --pairs lfw.bin")
        from arcface_plus.distributed import start_world

        with start_world(device) as world:
            entries = _score_model(
                model,
                sets,
                root=root,
                folds=folds,
                flip=flip,
                batch_size=batch_size,
                device=world.device,
                precision=precision,
                resize=resize,
                preprocessing=parse_preprocessing(preprocessing),
            )
        if not world.is_main:
            return
    for entry in entries:
        console.print(result_table(entry.facts["name"], entry.result))
    if json_path is not None:
        write_results(json_path, entries)
        console.print(f"Wrote {json_path}")
    if report is not None:
        _write_report(report, entries)
        console.print(f"Wrote {report}")


def parse_preprocessing(text: str | None) -> Preprocessing | None:
    """Return what ``--preprocessing`` means: ``insightface``, JSON, or nothing."""
    if text is None:
        return None
    from arcface_plus.models.preprocessing import INSIGHTFACE, Preprocessing

    return INSIGHTFACE if text == "insightface" else Preprocessing.from_json(text)


def _score_file(path: Path, sets: list[Path], folds: int | None, root: Path | None) -> Entry:
    from arcface_plus.data.pairs import load_pairs
    from arcface_plus.evaluation.embedding_files import read_embedded_pairs
    from arcface_plus.evaluation.verification import squared_distances, verify_distances

    if len(sets) > 1:
        raise ValueError(f"--embeddings takes one list of pairs, but {len(sets)} were given.")
    listed = read_embedded_pairs(path, sets[0] if sets else None)
    distances = squared_distances(listed.embeddings_a, listed.embeddings_b)
    result = verify_distances(distances, listed.is_same, folds or listed.folds or 10)
    facts = {"name": listed.name, "embeddings": str(path)}
    if sets:
        facts["pairs"] = str(sets[0])
    # With the images at hand, the report can show them.
    pairs = load_pairs(sets[0], root) if sets and root is not None else None
    return Entry(facts, distances, listed.is_same, result, pairs)


def _score_model(
    path: Path,
    sets: list[Path],
    *,
    root: Path | None,
    folds: int | None,
    flip: bool | None,
    batch_size: int,
    device: torch.device,
    precision: str,
    resize: bool,
    preprocessing: Preprocessing | None,
) -> list[Entry]:
    from arcface_plus.cli.progress import counted
    from arcface_plus.data.pairs import load_pairs
    from arcface_plus.distributed import rank
    from arcface_plus.evaluation.embedding import pair_distances
    from arcface_plus.evaluation.verification import verify_distances
    from arcface_plus.models import load_model

    # All sets are opened first: a wrong path should not show after an hour of embedding.
    loaded = [load_pairs(each, root) for each in sets]
    network = load_model(path, preprocessing=preprocessing)
    flip = network.preprocessing.flip_sum if flip is None else flip
    entries: list[Entry] = []
    for source, pair_set in zip(sets, loaded, strict=True):
        with counted(pair_set.name, enabled=rank() == 0) as progress:
            distances = pair_distances(
                network,
                pair_set,
                flip=flip,
                batch_size=batch_size,
                device=device,
                precision=precision,
                resize=resize,
                progress=progress,
            )
        facts = {
            "name": pair_set.name,
            "pairs": str(source),
            "fingerprint": pair_set.fingerprint(),
            "model": str(path),
            "flip": flip,
            "precision": precision,
        }
        result = verify_distances(distances, pair_set.is_same, folds or pair_set.folds or 10)
        entries.append(Entry(facts, distances, pair_set.is_same, result, pair_set))
    return entries


def result_table(name: str, result: VerificationResult) -> Table:
    """Lay out one result as a table of two columns."""
    pairs = f"{result.genuine_pairs} genuine + {result.impostor_pairs} impostor pairs"
    table = Table(title=f"{name}: {pairs}, {result.folds} folds", title_justify="left")
    table.add_column("measure")
    table.add_column("value")
    low, high = result.confidence_interval
    table.add_row("accuracy", f"{result.accuracy:.5f} ± {result.accuracy_std:.5f}")
    table.add_row("95 % interval", f"{low:.5f} to {high:.5f} (t over folds)")
    table.add_row("threshold", f"{result.threshold:.4f} squared L2 (mean of folds)")
    table.add_row("AUC", f"{result.auc:.6f}")
    table.add_row("EER", f"{result.eer:.5f}")
    for far, tar in result.tar_at_far.items():
        note = " (coarse: fewer than 10 false accepts)" if far in result.coarse_fars else ""
        table.add_row(f"TAR@FAR={far:g}", f"{tar:.5f}{note}")
    for far, needed in result.refused_fars.items():
        table.add_row(f"TAR@FAR={far:g}", f"refused: needs {needed} impostor pairs")
    table.add_row("folds", " ".join(f"{accuracy:.5f}" for accuracy in result.fold_accuracies))
    return table


def write_results(path: Path, entries: list[Entry]) -> None:
    """Write ``{"results": [{name, pairs, …, accuracy, …}, …]}`` as JSON, beside and renamed."""
    content = {"results": [{**entry.facts, **entry.result.to_dict()} for entry in entries]}
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    beside.replace(path)


def _write_report(path: Path, entries: list[Entry]) -> None:
    from arcface_plus.evaluation.report import ReportSection, write_report
    from arcface_plus.training.run_folder import environment

    sections = [
        ReportSection(e.facts["name"], e.pairs, e.distances, e.is_same, e.result) for e in entries
    ]
    facts = {f"{e.facts['name']}: {key}": value for e in entries for key, value in e.facts.items()}
    write_report(
        path,
        sections,
        title="Verification",
        environment={**facts, **environment()},
        command=shlex.join(sys.argv),
    )
