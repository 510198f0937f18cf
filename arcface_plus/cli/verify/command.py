"""``arcface-plus verify``: 1:1 verification of a model, or of embeddings in a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

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
from arcface_plus.cli.verify.checks import (
    check_against,
    check_analyses,
    check_calibration,
    check_outputs,
    check_use,
    parse_fars,
)
from arcface_plus.cli.verify.output import (
    discard_table,
    group_table,
    result_table,
    store_calibration,
    table_rows,
    write_report_page,
    write_tables,
)

if TYPE_CHECKING:
    from arcface_plus.evaluation.scoring import Against, Entry
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
        list[Path] | None,
        typer.Option(
            help="Another model, or .npz, to score on the same pairs: the difference in accuracy,"
            " its paired 95 % interval, and the exact McNemar test. Several times: p-values are"
            " also adjusted for the number of models and sets (Holm)."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="An old model that embeds the second image of every pair: the accuracy of new"
            " photographs against a gallery that is not embedded again."
        ),
    ] = None,
    far: Annotated[
        str, typer.Option(metavar="LIST", help="False accept rates to state TAR at.")
    ] = _FARS,
    advise_far: Annotated[
        float | None,
        typer.Option(help="Advise the threshold for this false accept rate, with its interval."),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Fit likelihood ratios on the pair set, and store them and the thresholds of --far"
            " with the model, for compare and search.",
        ),
    ] = False,
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the same as a threshold card: JSON for compare --card and search --card.",
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="person,COLUMN[,…]: false non-matches of each group and false matches of each pair"
            " of groups, and whether some group differs.",
        ),
    ] = None,
    quality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="norm|CSV",
            help="Error-versus-discard curve of the norm of embeddings, or of each column of"
            " image,COLUMN[,…] (higher is better). May be given several times.",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="The cosine for --groups and --quality (else that of --advise-far, else of the"
            " smallest rate of --far that ten false accepts show).",
        ),
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
    table: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write all models of --compare on all sets, with significance: .md, .tex or .csv.",
        ),
    ] = None,
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
        str | None, typer.Option(help="The same for the files of --compare and --against.")
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
    from arcface_plus.evaluation.analyses import compare as compared
    from arcface_plus.evaluation.scoring import Scoring, score_files, score_model
    from arcface_plus.models import load_model

    sets = [*(pairs or []), *(more_pairs or [])]
    check_outputs([json_path, report, card, *(table or [])], table or [])
    others = [[path] if path.suffix == ".npz" else path for path in compare or []]
    check_use(model, embeddings, sets, others, advise_far, pca, markdown and latex)
    check_analyses(groups, quality, threshold, bool(table and not others))
    check_calibration(bool(calibrate or card), model, sets, pca, against)
    check_against(against, model, others)
    scoring = Scoring(root, folds, parse_fars(far), pca, cache)
    foreign = [parse_preprocessing(text) for text in (preprocessing, compare_preprocessing)]
    with start_world(device) as world:
        how = (flip, batch_size, world.device, precision, resize)

        def score(source: Path | list[Path], stated: Preprocessing | None) -> list[Entry]:
            if isinstance(source, list):
                return score_files(source, sets, scoring)
            # All sets are opened first: a wrong path should not show after an hour of embedding.
            opened = [(each, load_pairs(each, root)) for each in sets]
            network = load_model(source, preprocessing=stated)
            options = embedding_options(network, *how)
            show = partial(counted, enabled=world.is_main)
            return score_model(source, network, opened, scoring, options, show, old)

        old = _opened_against(against, foreign[1], how)
        assert model is not None or embeddings
        entries = score(model or embeddings or [], foreign[0])
        if others:
            entries = compared(entries, [score(other, foreign[1]) for other in others])
    if not world.is_main:
        return
    entries = _analysed(entries, advise_far, groups, quality, threshold)
    style = "markdown" if markdown else "latex" if latex else None
    _show(entries, style=style, method=method, json_path=json_path, report=report)
    write_tables(table or [], entries, method)
    if calibrate or card:
        words = store_calibration(entries[0], model if calibrate else None, card)
        typer.echo(words, err=style is not None)


def _opened_against(
    path: Path | None, stated: Preprocessing | None, how: tuple[Any, ...]
) -> Against | None:
    from arcface_plus.evaluation.scoring import Against
    from arcface_plus.models import load_model

    if path is None:
        return None
    network = load_model(path, preprocessing=stated)
    return Against(path, network, embedding_options(network, *how))


def _analysed(
    entries: list[Entry],
    advise_far: float | None,
    groups: Path | None,
    quality: list[str] | None,
    threshold: float | None,
) -> list[Entry]:
    from arcface_plus.evaluation.analyses import add_discards, add_groups, advise

    if advise_far is not None:
        entries = advise(entries, advise_far)
    if groups is not None:
        entries = add_groups(entries, groups, threshold)
    return add_discards(entries, quality, threshold) if quality else entries


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
            for group in entry.groups:
                console.print(group_table(group))
            for curve in entry.discards:
                console.print(discard_table(curve))
    if json_path is not None:
        write_json(json_path, {"results": [entry.to_dict() for entry in entries]})
        console.print(f"Wrote {json_path}")
    if report is not None:
        write_report_page(report, entries)
        console.print(f"Wrote {report}")
