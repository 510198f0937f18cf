"""Embed images, and the pairs of a pair set, with a model.

Shapes: N images, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from arcface_plus import distributed
from arcface_plus.data.images import resized
from arcface_plus.data.lazy_images import ImageSequence, describe_image
from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.evaluation.pairs.verification import squared_distances
from arcface_plus.models.autocast import fp32_products
from arcface_plus.models.embedding_model import EmbeddingModel

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_DECODERS = 4
_BATCHES_AHEAD = 2  # decoded or being decoded while one is computed
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EmbeddingOptions:
    """Hold how images are embedded, as ``embed`` explains; ``device`` None is the model's own."""

    flip: bool = True
    batch_size: int = 64
    device: torch.device | str | None = None
    precision: str = "fp32"
    resize: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision is {self.precision!r}, but must be one of {', '.join(PRECISIONS)}."
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}, but must be at least 1.")


def embed(
    model: nn.Module,
    images: ImageSequence,
    *,
    flip: bool = True,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    precision: str = "fp32",
    resize: bool = False,
    group: distributed.Group = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return f(x) + f(mirrored x), not normalised, for every image, (N, D) float32.

    ``model``: has ``preprocessing`` and ``embedding_dim``; it is put into eval mode meanwhile, and
    stays on its device unless ``device`` says otherwise (then it is moved). ``images``: a sequence
    of (H, W, 3) uint8 RGB, or one (N, H, W, 3) array; decoded by a few threads, two batches ahead.
    ``flip=False`` returns f(x). ``precision``: fp32, as IEEE has it (never TF32), or autocast in
    bf16 or fp16. ``resize``: scale images of another size, which are refused otherwise.
    ``progress(done, total)`` counts this rank's images.

    Across ranks of ``group`` each embeds a part, of whole batches, and all return all N rows, the
    same at any number of ranks; ``images`` must be the same on all.

    Raises ValueError naming the image that has the wrong size or form, cannot be decoded, or whose
    embedding is not finite; every rank fails if one does.
    """
    options = EmbeddingOptions(flip, batch_size, device, precision, resize)
    return embed_images(model, images, options, group=group, progress=progress)


def embed_images(
    model: nn.Module,
    images: ImageSequence,
    options: EmbeddingOptions,
    *,
    group: distributed.Group = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return what ``embed`` returns."""
    network = _checked_model(model)
    if not len(images):
        raise ValueError("There are no images to embed.")
    at_once, total = options.batch_size, len(images)
    # Whole batches, so that the bits of an embedding do not depend on how many ranks there are.
    lo, hi = distributed.contiguous_part(
        -(-total // at_once), distributed.rank(group), distributed.world_size(group)
    )
    part = range(lo * at_once, min(total, hi * at_once))
    mine = np.empty((0, network.embedding_dim), dtype=np.float32)
    failure: Exception | None = None
    try:
        mine = embed_rows(network, images, part, options, progress=progress)
    except Exception as error:  # raised again once the others know: they wait in the gathering
        failure = error
    raise_together(failure, group)
    rows = torch.from_numpy(mine).to(_device(network, options))
    return torch.cat(distributed.all_gather_rows(rows, group)).cpu().numpy()


def raise_together(failure: Exception | None, group: distributed.Group) -> None:
    """Raise on every rank if one failed: its own error, else a ValueError naming the rank."""
    messages = distributed.gather_objects(None if failure is None else str(failure), group)
    if failure is not None:
        raise failure
    for rank, message in enumerate(messages):
        if message is not None:
            raise ValueError(f"rank {rank}: {message}")


def embed_rows(
    model: nn.Module,
    images: ImageSequence,
    rows: range,
    options: EmbeddingOptions,
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the embeddings of images ``rows``, (len(rows), D) float32, made in this process alone.

    Where ``images`` gives None, the row is NaN: that is how a caller lets unreadable images go.
    """
    network = _checked_model(model)
    device, dtype = _device(network, options), PRECISIONS[options.precision]
    made = np.empty((len(rows), network.embedding_dim), dtype=np.float32)
    size = network.preprocessing.size
    with (
        _evaluating(network, device),
        fp32_products(),
        torch.autocast(device.type, dtype=dtype, enabled=dtype is not None),
        closing(_batches(images, rows, options, size)) as batches,
    ):
        for part, batch, absent in batches:
            out = _forward(network, torch.from_numpy(batch).to(device), options.flip).cpu().numpy()
            _check_finite(out, images, part)
            out[absent] = np.nan
            made[part.start - rows.start : part.stop - rows.start] = out
            if progress is not None:
                progress(part.stop - rows.start, len(rows))
    return made


def embed_pairs(
    model: nn.Module,
    pairs: PairSet,
    options: EmbeddingOptions,
    *,
    group: distributed.Group = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """Return the embeddings of the images that ``pairs`` uses, each made once, in their order."""
    images = SelectedImages(pairs.images, pairs.used_images())
    return embed_images(model, images, options, group=group, progress=progress)


def pair_distances(
    model: nn.Module,
    pairs: PairSet,
    options: EmbeddingOptions = EmbeddingOptions(),
    *,
    group: distributed.Group = None,
) -> np.ndarray:
    """Return the squared distance (N,) of every pair's unit embeddings."""
    return squared_distances(*both_sides(embed_pairs(model, pairs, options, group=group), pairs))


def both_sides(embeddings: np.ndarray, pairs: PairSet) -> tuple[np.ndarray, np.ndarray]:
    """Return the (N, D) embeddings of either side, from those of the images that pairs use."""
    used = pairs.used_images()
    rows_a, rows_b = np.searchsorted(used, pairs.index_a), np.searchsorted(used, pairs.index_b)
    return embeddings[rows_a], embeddings[rows_b]


class SelectedImages:
    """Some of a sequence's images, by their rows."""

    def __init__(self, images: ImageSequence, rows: np.ndarray) -> None:
        self.images = images
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[int(self.rows[index])]

    def describe(self, index: int) -> str:
        return describe_image(self.images, int(self.rows[index]))


def _checked_model(model: nn.Module) -> EmbeddingModel:
    if not hasattr(model, "preprocessing") or not hasattr(model, "embedding_dim"):
        raise ValueError(
            f"{type(model).__name__} does not say what it makes of an image: it needs the "
            "attributes preprocessing (a Preprocessing) and embedding_dim."
        )
    return cast(EmbeddingModel, model)


def _device(model: EmbeddingModel, options: EmbeddingOptions) -> torch.device:
    if options.device is not None:
        return torch.device(options.device)
    first = next(model.parameters(), None)
    return first.device if first is not None else torch.device("cpu")


@contextmanager
def _evaluating(model: EmbeddingModel, device: torch.device) -> Iterator[None]:
    # Parts may be frozen in eval mode while the rest trains: each gets its own mode back.
    modes = [(module, module.training) for module in model.modules()]
    model.to(device).eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _forward(model: EmbeddingModel, images: Tensor, flip: bool) -> Tensor:
    """Return (B, D) float32 for (B, S, S, 3) uint8."""
    inputs = model.preprocessing.apply(images)
    embeddings = model(inputs).float()
    if flip:
        embeddings = embeddings + model(inputs.flip(-1)).float()
    return embeddings


def _batches(
    images: ImageSequence, rows: range, options: EmbeddingOptions, size: int
) -> Generator[tuple[range, np.ndarray, list[int]], None, None]:
    """Yield a part of ``rows``, its images (B, S, S, 3) and which are absent, decoded ahead."""
    blank = np.full((size, size, 3), 127, dtype=np.uint8)  # in the place of what is absent
    step = options.batch_size
    parts = [rows[start : start + step] for start in range(0, len(rows), step)]

    def load(part: range) -> Iterator[np.ndarray | None]:
        return pool.map(lambda i: _checked_image(images, i, size, options.resize), part)

    with ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode") as pool:
        try:
            pending = [load(part) for part in parts[:_BATCHES_AHEAD]]
            for number, part in enumerate(parts):
                decoded = list(pending.pop(0))
                absent = [i for i, image in enumerate(decoded) if image is None]
                batch = np.stack([blank if image is None else image for image in decoded])
                pending += [load(each) for each in parts[number + _BATCHES_AHEAD :][:1]]
                yield part, batch, absent
        finally:
            pool.shutdown(cancel_futures=True)


def _checked_image(images: ImageSequence, index: int, size: int, resize: bool) -> np.ndarray | None:
    found = images[index]
    if found is None:
        return None
    image = np.asarray(found)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(
            f"{describe_image(images, index)} is {image.dtype} of shape {image.shape}, but images "
            "must be uint8 RGB of shape (H, W, 3)."
        )
    if image.shape[:2] == (size, size):
        return image
    height, width = image.shape[:2]
    if not resize:
        raise ValueError(
            f"{describe_image(images, index)} is {width} x {height} pixels, but the model takes "
            f"{size} x {size}; align the faces to that size, or have them scaled "
            "(--resize, resize=True)."
        )
    return resized(image, size)


def _check_finite(embeddings: np.ndarray, images: ImageSequence, rows: range) -> None:
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if bad.size:
        raise ValueError(
            f"The embedding of {describe_image(images, rows[int(bad[0])])} has NaN or infinite "
            f"values ({bad.size} of {len(embeddings)} in its batch); check the model's weights and "
            "precision."
        )
