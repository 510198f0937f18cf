"""``arcface-plus study distribution``: where the cosines of one person and of two people lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arcface_plus.cli.model_options import BatchSize, Device, Flip, Precision, Preprocessing, Resize

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from arcface_plus.data.lazy_images import ImageSequence
    from arcface_plus.distributed import World
    from arcface_plus.evaluation.pairs.distribution import (
        Cosines,
        Distribution,
    )
    from arcface_plus.models.embedding_model import EmbeddingModel

    Measure = Callable[[Path], tuple[Cosines, dict[str, Any]]]


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
    from arcface_plus.distributed import start_world

    _check_use(model, embeddings, pairs, source, identity, compare)
    if against not in ("images", "centres"):  # before an hour of embedding
        raise ValueError(f"--against is {against!r}, but must be images or centres.")
    draw = {"against": against, "at_most": at_most, "seed": seed}
    first = embeddings or model
    assert first is not None
    if embeddings is not None:

        def measure(path: Path) -> tuple[Cosines, dict[str, Any]]:
            return _of_file(path, pairs, identity, draw)

        _write(output, {path: measure(path) for path in _both(first, compare)})
        return
    with start_world(device) as world:
        embedder = _Embedder(world, flip, batch_size, precision, resize, preprocessing)
        look = _of_pairs(pairs, root, embedder) if pairs else _of_people(source, draw, embedder)
        found = {path: look(path) for path in _both(first, compare)}
        if world.is_main:
            _write(output, found)


def _check_use(
    model: Path | None,
    embeddings: Path | None,
    pairs: Path | None,
    source: Path | None,
    identity: str | None,
    compare: Path | None,
) -> None:
    if (model is None) == (embeddings is None):
        raise ValueError("Give either --model or --embeddings.")
    if model is not None and (pairs is None) == (source is None):
        raise ValueError("--model needs either --pairs lfw.bin or --input FOLDER to embed.")
    if embeddings is not None and source is not None:
        raise ValueError("--input holds images, which --embeddings do not need; leave it out.")
    if identity is not None and (embeddings is None or pairs is not None):
        raise ValueError("--identity says who the rows of --embeddings show, without --pairs.")
    if compare is not None and (compare.suffix == ".npz") != (embeddings is not None):
        raise ValueError("--compare takes what the first is: a model, or an .npz of embeddings.")
    if compare is not None and compare.resolve() == (model or embeddings or compare).resolve():
        raise ValueError(f"--compare {compare} is the first itself; name another.")


def _both(first: Path, other: Path | None) -> list[Path]:
    return [first] if other is None else [first, other]


class _Embedder:
    """How every model embeds every image."""

    def __init__(
        self,
        world: World,
        flip: bool | None,
        batch_size: int,
        precision: str,
        resize: bool,
        preprocessing: str | None,
    ) -> None:
        from arcface_plus.cli.model_options import parse_preprocessing

        self.world, self.flip, self.batch_size = world, flip, batch_size
        self.precision, self.resize = precision, resize
        self.preprocessing = parse_preprocessing(preprocessing)

    def load(self, path: Path) -> tuple[EmbeddingModel, dict[str, Any]]:
        from arcface_plus.models import load_model

        network = load_model(path, preprocessing=self.preprocessing)
        flip = network.preprocessing.flip_sum if self.flip is None else self.flip
        return network, {"model": str(path), "flip": flip, "precision": self.precision}

    def embed(
        self, network: EmbeddingModel, images: ImageSequence, *, flip: bool, name: str
    ) -> np.ndarray:
        from arcface_plus.cli.progress import counted
        from arcface_plus.evaluation.embedding.embed import embed

        with counted(name, enabled=self.world.is_main) as progress:
            return embed(
                network,
                images,
                flip=flip,
                batch_size=self.batch_size,
                device=self.world.device,
                precision=self.precision,
                resize=self.resize,
                progress=progress,
            )


def _of_pairs(path: Path, root: Path | None, embedder: _Embedder) -> Measure:
    from arcface_plus.data.pairs.sets import load_pairs
    from arcface_plus.evaluation.embedding.embed import (
        SelectedImages,
        both_sides,
    )
    from arcface_plus.evaluation.pairs.distribution import pair_cosines
    from arcface_plus.evaluation.pairs.verification import squared_distances

    pairs = load_pairs(path, root)

    def look(model: Path) -> tuple[Cosines, dict[str, Any]]:
        network, facts = embedder.load(model)
        images = SelectedImages(pairs.images, pairs.used_images())
        made = embedder.embed(network, images, flip=facts["flip"], name=pairs.name)
        distances = squared_distances(*both_sides(made, pairs))
        return pair_cosines(distances, pairs.is_same), {**facts, "pairs": str(path)}

    return look


def _of_people(path: Path | None, draw: dict[str, Any], embedder: _Embedder) -> Measure:
    from arcface_plus.data.collections import open_collection
    from arcface_plus.evaluation.pairs.distribution import people_cosines

    assert path is not None
    collection = open_collection(path)
    if collection.pairs:
        raise ValueError(f"--input {path} is a pair set; give it as --pairs.")
    unknown = int((collection.labels < 0).sum())
    if unknown:
        raise ValueError(
            f"{path}: {unknown} images do not say who they show; put each into the folder of its "
            "person."
        )

    def look(model: Path) -> tuple[Cosines, dict[str, Any]]:
        network, facts = embedder.load(model)
        made = embedder.embed(network, collection.images, flip=facts["flip"], name=path.name)
        cosines = people_cosines(made, collection.labels, **draw)
        return cosines, {**facts, "input": str(path), **draw}

    return look


def _of_file(
    path: Path, pairs: Path | None, identity: str | None, draw: dict[str, Any]
) -> tuple[Cosines, dict[str, Any]]:
    from arcface_plus.evaluation.embedding.files import read_embedded_pairs
    from arcface_plus.evaluation.embedding.sets import read_embedding_set
    from arcface_plus.evaluation.pairs.distribution import (
        pair_cosines,
        people_cosines,
    )
    from arcface_plus.evaluation.pairs.verification import (
        checked_pairs,
        squared_distances,
    )

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
    cosines = dict(zip(names, (each for each, _ in found.values()), strict=True))
    numbers = [
        {"name": name, **facts, **distribution_numbers(each)}
        for name, (each, facts) in zip(names, found.values(), strict=True)
    ]
    for name, each in cosines.items():
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
