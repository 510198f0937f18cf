"""``arcface-plus study distribution``: where the cosines of one person and of two people lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arcface_plus.cli.errors import refuse
from arcface_plus.cli.model_options import (
    BatchSize,
    Device,
    Flip,
    Precision,
    Preprocessing,
    Resize,
    embedding_options,
    parse_preprocessing,
)
from arcface_plus.cli.progress import counted

if TYPE_CHECKING:
    import numpy as np

    from arcface_plus.data.collections import Collection
    from arcface_plus.evaluation.pairs.distribution import Cosines, Distribution


def distribution_command(
    output: Annotated[Path, typer.Option(help="Folder for the figure, SVG and PNG, and the JSON.")],
    model: Annotated[
        Path | None, typer.Option(help="Run folder, .safetensors, .pt or .onnx file.")
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="An .npz instead of a model and images: as verify takes it (with --pairs or"
            " without), or, with --identity, as embed exports a folder or a record file."
        ),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Pair set: .bin, or a list such as pairs.txt.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--input", help="Instead of pairs: a .rec, or a folder PERSON/IMAGE."),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Image folder of a list of pairs.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another model, or .npz, drawn over the first.")
    ] = None,
    against: Annotated[
        str,
        typer.Option(help="Of --input: cosines of an image with other images, or with centres."),
    ] = "images",
    identity: Annotated[
        str | None,
        typer.Option(help="Who a row of --embeddings shows: folder, label or prefix."),
    ] = None,
    at_most: Annotated[
        int, typer.Option(min=1, help="Draw that many cosines at random where there are more.")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of that draw.")] = 0,
    flip: Flip = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "fp32",
    resize: Resize = False,
    preprocessing: Preprocessing = None,
) -> None:
    """Figure A1 of the closeness paper: histograms of cosines, their boundary and their tail.

    The paper does not define its boundary value; ours is in docs/distribution_view.md.
    """
    _check_use(model, embeddings, pairs, source, identity, compare, against)
    draw = {"against": against, "at_most": at_most, "seed": seed}
    paths = [path for path in (model, embeddings, compare) if path is not None]
    if embeddings is not None:
        _write(output, {path: _of_file(path, pairs, identity, draw) for path in paths})
        return
    from arcface_plus.distributed import start_world
    from arcface_plus.evaluation.embedding.embed import embed_images
    from arcface_plus.models import load_model

    with start_world(device) as world:
        images = pairs or source
        assert images is not None
        shown = _open(images, root, as_pairs=images == pairs)
        shown_as = {"pairs": str(pairs)} if pairs else {"input": str(source), **draw}
        found = {}
        for path in paths:
            network = load_model(path, preprocessing=parse_preprocessing(preprocessing))
            options = embedding_options(network, flip, batch_size, world.device, precision, resize)
            with counted(images.name, enabled=world.is_main) as progress:
                made = embed_images(network, shown.images, options, progress=progress)
            facts = {"model": str(path), "flip": options.flip, "precision": precision, **shown_as}
            found[path] = _cosines(made, shown, draw), facts
        if world.is_main:
            _write(output, found)


def _check_use(
    model: Path | None,
    embeddings: Path | None,
    pairs: Path | None,
    source: Path | None,
    identity: str | None,
    compare: Path | None,
    against: str,
) -> None:
    again = compare is not None and compare.resolve() == (model or embeddings or compare).resolve()
    refuse(
        {
            "Give either --model or --embeddings.": (model is None) == (embeddings is None),
            "--model needs either --pairs lfw.bin or --input FOLDER to embed.": (
                model is not None and (pairs is None) == (source is None)
            ),
            "--input holds images, which --embeddings do not need; leave it out.": (
                embeddings is not None and source is not None
            ),
            "--identity says who the rows of --embeddings show, without --pairs.": (
                identity is not None and (embeddings is None or pairs is not None)
            ),
            "--compare takes what the first is: a model, or an .npz of embeddings.": (
                compare is not None and (compare.suffix == ".npz") != (embeddings is not None)
            ),
            f"--compare {compare} is the first itself; name another.": again,
            f"--against is {against!r}, but must be images or centres.": (
                against not in ("images", "centres")
            ),
        }
    )


def _open(path: Path, root: Path | None, *, as_pairs: bool) -> Collection:
    """Open what the models embed: a pair set, or people."""
    from arcface_plus.data.collections import open_collection

    shown = open_collection(path, root)
    unknown = int((shown.labels < 0).sum())
    refuse(
        {
            f"--input {path} is a pair set; give it as --pairs.": not as_pairs
            and bool(shown.pairs),
            f"--pairs {path} is no pair set; give it as --input.": as_pairs and not shown.pairs,
            f"{path}: {unknown} images do not say who they show; put each into the folder of its "
            "person.": not as_pairs and unknown > 0,
        }
    )
    return shown


def _cosines(made: np.ndarray, shown: Collection, draw: dict[str, Any]) -> Cosines:
    from arcface_plus.evaluation.pairs.distribution import pair_cosines, people_cosines
    from arcface_plus.evaluation.pairs.verification import squared_distances

    if not shown.pairs:
        return people_cosines(made, shown.labels, **draw)
    a, b = made[shown.pairs["index_a"]], made[shown.pairs["index_b"]]
    return pair_cosines(squared_distances(a, b), shown.pairs["is_same"])


def _of_file(
    path: Path, pairs: Path | None, identity: str | None, draw: dict[str, Any]
) -> tuple[Cosines, dict[str, Any]]:
    from arcface_plus.evaluation.embedding.files import read_embedded_pairs
    from arcface_plus.evaluation.embedding.sets import read_embedding_set
    from arcface_plus.evaluation.pairs.distribution import pair_cosines, people_cosines
    from arcface_plus.evaluation.pairs.verification import checked_pairs, squared_distances

    facts: dict[str, Any] = {"embeddings": str(path)}
    if identity is not None:
        held = read_embedding_set(path)
        cosines = people_cosines(held.embeddings, held.people(identity), **draw)
        return cosines, {**facts, "identity": identity, **draw}
    sides = read_embedded_pairs(path, pairs)
    a, b, same = checked_pairs(sides.embeddings_a, sides.embeddings_b, sides.is_same)
    if pairs is not None:
        facts["pairs"] = str(pairs)
    return pair_cosines(squared_distances(a, b), same), facts


def _write(output: Path, found: dict[Path, tuple[Cosines, dict[str, Any]]]) -> None:
    """Write the figure and the numbers, and show the main ones."""
    from arcface_plus.cli.json_files import write_json
    from arcface_plus.studies.distribution_view import distribution_numbers, draw_distributions

    names = [path.name if path.is_dir() else path.stem for path in found]
    if len(set(names)) < len(names):
        names = [str(path) for path in found]
    cosines, numbers = {}, []
    for name, (each, facts) in zip(names, found.values(), strict=True):
        cosines[name] = each
        numbers.append({"name": name, **facts, **distribution_numbers(each)})
        typer.echo(f"{name}: {_words(each.distribution)}")
    for path in draw_distributions(cosines, output, "distribution"):
        typer.echo(str(path))
    write_json(output / "distribution.json", {"results": numbers})
    typer.echo(str(output / "distribution.json"))


def _words(numbers: Distribution) -> str:
    def shown(name: str, value: float | None) -> str:
        if value is None:
            return f"refused (needs {numbers.needs[name]})"
        return f"{value:.4f}{' (coarse)' if name in numbers.coarse else ''}"

    above = "" if numbers.above_boundary is None else f" ({numbers.above_boundary:.3%} pass it)"
    return (
        f"{numbers.positives} positives, boundary {shown('boundary', numbers.boundary)}; "
        f"{numbers.negatives} negatives{above}, std {numbers.negative_std:.4f}, 99.9 % quantile "
        f"{shown('tail', numbers.tail)}; crossing {numbers.crossing:.4f}, EER {numbers.eer:.4f}"
    )
