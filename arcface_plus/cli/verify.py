"""``arcface-plus verify``: 1:1 verification of a model, or of embeddings in a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from arcface_plus.cli.errors import refuse
from arcface_plus.cli.json_files import write_json
from arcface_plus.cli.model_options import (
    Device,
    Flip,
    Precision,
    Resize,
    embedding_options,
    parse_preprocessing,
)
from arcface_plus.cli.progress import counted
from arcface_plus.cli.verify_output import result_table, table_rows, write_report_page

if TYPE_CHECKING:
    from arcface_plus.evaluation.scoring import Entry
    from arcface_plus.models.preprocessing import Preprocessing

_FARS = "1e-1,1e-2,1e-3,1e-4,1e-5"


def verify_command(
    more_pairs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PAIRS", help="Further pair sets, after the first --pairs."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Run folder, .safetensors, .pt or .onnx file.")
    ] = None,
    embeddings: Annotated[
        list[Path] | None,
        typer.Option(
            help="An .npz of embeddings instead of a model: files and emb (with a list as --pairs),"
            " or embeddings_a, embeddings_b and is_same (without). Several times: each with the"
            " list in its place; one file serves several lists."
        ),
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(help="Pair sets: .bin, or lists such as pairs.txt. Several may follow."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Image folder of the lists (their own folder if absent).")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            help="Another model, or .npz, to score on the same pairs: the difference in accuracy,"
            " its paired 95 % interval, and the exact McNemar test."
        ),
    ] = None,
    far: Annotated[
        str, typer.Option(metavar="LIST", help="False accept rates to state TAR at.")
    ] = _FARS,
    advise_far: Annotated[
        float | None,
        typer.Option(help="Advise the threshold for this false accept rate, with its interval."),
    ] = None,
    pca: Annotated[
        int | None,
        typer.Option(
            min=1, help="Project to this many components, fitted on the training folds each time."
        ),
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write every number to this file.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page with curves and the hardest pairs.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print rows as in a paper's table, nothing else.")
    ] = False,
    latex: Annotated[
        bool, typer.Option("--latex", help="The same as a LaTeX tabular (booktabs).")
    ] = False,
    method: Annotated[
        str | None, typer.Option(help="What those rows call the model (its file name if absent).")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Folds (as the list states; 10 if it does not).")
    ] = None,
    flip: Flip = None,
    batch_size: Annotated[int, typer.Option(help="Images embedded at once.")] = 64,
    device: Device = "auto",
    precision: Precision = "fp32",
    resize: Resize = False,
    preprocessing: Annotated[
        str | None,
        typer.Option(
            help="For files that do not state it: insightface, or JSON with mean, std, channels,"
            " size and flip_sum."
        ),
    ] = None,
    compare_preprocessing: Annotated[
        str | None, typer.Option(help="The same for the file of --compare.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep embeddings in this folder, and use those kept for the same weights,"
            " preprocessing, pairs, images, flip, precision and device.",
        ),
    ] = None,
) -> None:
    """Score faces in pairs: accuracy over folds, AUC, EER and TAR at fixed FAR.

    Several pair sets may follow one --pairs: verify --model M --pairs lfw.bin cfp_fp.bin

    The 95 % intervals leave out one person at a time, where people are known by name or by
    photographs; what a bootstrap over pairs would claim stands beside. See docs/verification.md.
    """
    from arcface_plus.data.pairs.sets import load_pairs
    from arcface_plus.distributed import start_world
    from arcface_plus.evaluation.scoring import Scoring, advise, score_files, score_model
    from arcface_plus.evaluation.scoring import compare as compared
    from arcface_plus.models import load_model

    sets = [*(pairs or []), *(more_pairs or [])]
    for output in (json_path, report):
        if output is not None and not output.parent.is_dir():
            raise FileNotFoundError(f"the folder {output.parent} of {output.name} does not exist.")
    other = [compare] if compare is not None and compare.suffix == ".npz" else compare
    _check_use(model, embeddings, sets, other, advise_far, pca, markdown and latex)
    scoring = Scoring(root, folds, parse_fars(far), pca, cache)
    foreign = [parse_preprocessing(text) for text in (preprocessing, compare_preprocessing)]
    with start_world(device) as world:

        def score(source: Path | list[Path], stated: Preprocessing | None) -> list[Entry]:
            if isinstance(source, list):
                return score_files(source, sets, scoring)
            # All sets are opened first: a wrong path should not show after an hour of embedding.
            opened = [(each, load_pairs(each, root)) for each in sets]
            network = load_model(source, preprocessing=stated)
            options = embedding_options(network, flip, batch_size, world.device, precision, resize)
            show = partial(counted, enabled=world.is_main)
            return score_model(source, network, opened, scoring, options, show)

        assert model is not None or embeddings
        entries = score(model or embeddings or [], foreign[0])
        if other is not None:
            entries = compared(entries, score(other, foreign[1]))
    if not world.is_main:
        return
    if advise_far is not None:
        entries = advise(entries, advise_far)
    style = "markdown" if markdown else "latex" if latex else None
    _show(entries, style=style, method=method, json_path=json_path, report=report)


def parse_fars(text: str) -> tuple[float, ...]:
    """Return the rates of ``1e-3,1e-4``; raises ValueError for what is no rate in (0, 1]."""
    try:
        fars = tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f"--far {text!r}: give rates such as 1e-3,1e-4 ({error}).") from error
    if not fars or not all(0 < far <= 1 for far in fars):
        raise ValueError(f"--far {text!r}: give rates above 0 and up to 1, such as 1e-3,1e-4.")
    return fars


def _check_use(
    model: Path | None,
    embeddings: list[Path] | None,
    sets: list[Path],
    other: Path | list[Path] | None,
    advise_far: float | None,
    pca: int | None,
    both_styles: bool,
) -> None:
    refuse(
        {
            "Give either --model or --embeddings.": (model is None) == (not embeddings),
            "--model needs at least one pair set to embed: --pairs lfw.bin": (
                model is not None and not sets
            ),
            "--compare with a model needs the pairs' images: give --pairs and --root.": (
                isinstance(other, Path) and not sets
            ),
            "--advise-far needs one space for all pairs, but --pca fits one a fold; leave one "
            "out.": pca is not None and advise_far is not None,
            "Give either --markdown or --latex.": both_styles,
        }
    )


def _show(
    entries: list[Entry],
    *,
    style: str | None,
    method: str | None,
    json_path: Path | None,
    report: Path | None,
) -> None:
    # Rows go alone to standard output, so that they can go into a file.
    console = Console(stderr=style is not None)
    if style is not None:
        typer.echo(table_rows(entries, style=style, method=method), nl=False)
    else:
        for entry in entries:
            console.print(result_table(entry))
    if json_path is not None:
        write_json(json_path, {"results": [entry.to_dict() for entry in entries]})
        console.print(f"Wrote {json_path}")
    if report is not None:
        write_report_page(report, entries)
        console.print(f"Wrote {report}")
