"""What a net made of every training image, kept in a file as ``embed`` writes it.

Made once, by all ranks, from the images as they are, at the net's own size; rows are found by the
images' keys, so that neither another order nor more images in the file matter.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from arcface_plus.data.collections import Collection
from arcface_plus.data.lazy_images import ImageFiles
from arcface_plus.data.records.images import RecordImages
from arcface_plus.data.sources.image_source import ImageSource
from arcface_plus.distributed import World, broadcast_object
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions, SelectedImages, embed_images
from arcface_plus.evaluation.embedding.set_files import (
    check_suffix,
    origin_of,
    read_columns,
    rows_file,
)
from arcface_plus.export.embeddings import export_embeddings
from arcface_plus.models import load_model
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.preprocessing import Preprocessing, stated
from arcface_plus.runs.beginning import TrainingImages
from arcface_plus.runs.configuration import RunConfig
from arcface_plus.training.guidance.embeddings import ImageEmbeddings
from arcface_plus.training.log.monitor import Monitor
from arcface_plus.training.settings import EmbeddedConfig

_LOOKS = 16  # images embedded again, to see whether a file is of this net and these images
_SAME = 0.999  # the least cosine to what it holds of them


class StoredEmbeddings:
    """The embeddings that ``wanted`` names of the images of ``source``; ``dim`` numbers each.

    ``name``: what made them, for messages. A file that is there already, of a place that the user
    names, is checked at once. Raises FileNotFoundError or ValueError naming the setting.
    """

    def __init__(
        self, setting: str, wanted: EmbeddedConfig, config: RunConfig, source: ImageSource
    ) -> None:
        self.setting, self.config, self.source = f"train.{setting}", config, source
        self.path = wanted.embeddings or config.folder / f"{setting}.npy"
        self.is_shared = wanted.embeddings is not None  # otherwise the run's lock is enough
        self.name = str(wanted.model or self.path)
        self.keys = image_keys(source)
        self.model: EmbeddingModel | None = None
        try:
            check_suffix(self.path)
            if wanted.model is not None:
                self.model = load_model(wanted.model, preprocessing=_stated(wanted))
                self.dim = self.model.embedding_dim
            if wanted.embeddings is not None:
                self._open_named(self.path)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{self.setting}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{self.setting}: {error}") from error

    def _open_named(self, path: Path) -> None:
        if path.exists() or self.model is None:
            self.dim = self._read().dim
        elif not path.parent.is_dir():
            raise FileNotFoundError(f"the folder of embeddings {path} does not exist")

    def table(self, world: World, monitor: Monitor) -> ImageEmbeddings:
        """Return the embeddings, made where there is no file; called by all ranks together."""
        with _alone(self.path if self.is_shared else None, world):
            if not broadcast_object(self.path.exists(), world.control):
                self._make(world, monitor)
        table = self._read()
        self.model = None  # which is not needed any more
        return table

    def _make(self, world: World, monitor: Monitor) -> None:
        assert self.model is not None
        monitor.say(f"{self.setting}: embedding {len(self.source)} images once with {self.name}")
        images = TrainingImages(self.config, self.source, self.model.preprocessing.size)
        skipped = export_embeddings(
            self.model,
            Collection(images, self.keys, self.source.labels),
            self.path,
            world,
            self._options(world),
            skip_bad=self.config.data.on_bad_image != "stop",
            resume=True,
            advice="remove the image, or set --data.on_bad_image quarantine",
        )
        if skipped:
            monitor.say(f"{self.setting}: left out {len(skipped)} images that cannot be read")

    def _options(self, world: World | None = None) -> EmbeddingOptions:
        assert self.model is not None
        flip = self.model.preprocessing.flip_sum
        return EmbeddingOptions(flip, device=None if world is None else world.device)

    def _read(self) -> ImageEmbeddings:
        """Return the file's embeddings of the training images; ValueError where it has others."""
        columns = read_columns(self.path)
        matrix, keys = columns["embedding"], [str(key) for key in columns["key"]]
        if matrix.ndim != 2 or len(matrix) != len(keys) or matrix.dtype.kind != "f":
            raise ValueError(f"{self.path} has no embedding for each of its {len(keys)} keys")
        row_of = {key: row for row, key in enumerate(keys)}
        if len(row_of) < len(keys):
            raise ValueError(f"{self.path} has more than one embedding of an image")
        rows = np.array([row_of.get(key, -1) for key in self.keys], dtype=np.int64)
        self._check_absent(rows)
        there = np.flatnonzero(rows >= 0)
        if "label" in columns:
            self._check_labels(np.asarray(columns["label"])[rows[there]], there)
        table = ImageEmbeddings(matrix, rows, self.source.describe)
        for first in range(0, len(there), 65_536):
            if not np.isfinite(matrix[rows[there[first : first + 65_536]]]).all():
                raise ValueError(f"{self.path} holds numbers that are not finite")
        if self.model is not None:
            self._check_model(self.model, table, columns, there)
        return table

    def _check_absent(self, rows: np.ndarray) -> None:
        """Refuse a file without an image, unless that is one that cannot be read."""
        for index in np.flatnonzero(rows < 0).tolist():
            try:
                if self.config.data.on_bad_image != "stop":
                    self.source.read(index)
            except (ValueError, OSError):
                continue
            raise ValueError(
                f"{self.path} lacks {(rows < 0).sum()} of the {len(rows)} training images, such as "
                f"{self.keys[index]}: it is of other data. {self._fix()}"
            )
        if (rows < 0).all():
            raise ValueError(f"{self.path} has none of the training images. {self._fix()}")

    def _check_labels(self, labels: np.ndarray, there: np.ndarray) -> None:
        other = np.flatnonzero((labels != self.source.labels[there]) & (labels >= 0))
        if other.size:
            first = int(there[other[0]])
            raise ValueError(
                f"{self.path} has {self.keys[first]} as person {labels[other[0]]}, but the "
                f"training data have it as {self.source.labels[first]}: they are other data or in "
                f"another order. {self._fix()}"
            )

    def _check_model(
        self,
        model: EmbeddingModel,
        table: ImageEmbeddings,
        columns: dict[str, np.ndarray],
        there: np.ndarray,
    ) -> None:
        """Refuse what another net made, or this one of other images: some are embedded again."""
        origin = vars(origin_of(model, flip=model.preprocessing.flip_sum))
        stated = {key: str(columns[key]) for key in origin if key in columns}
        if any(stated[key] != str(origin[key]) for key in stated):
            raise ValueError(f"{self.path} was not made by {self.name}. {self._fix()}")
        chosen = there[np.linspace(0, len(there) - 1, min(_LOOKS, len(there))).astype(np.int64)]
        images = TrainingImages(self.config, self.source, model.preprocessing.size)
        made = embed_images(model, SelectedImages(images, chosen), self._options())
        held = table.take(chosen).numpy()
        if made.shape != held.shape:
            raise ValueError(
                f"{self.path} has embeddings of {held.shape[1]} numbers, {self.name} makes "
                f"{made.shape[1]}. {self._fix()}"
            )
        norms = np.linalg.norm(made, axis=1) * np.linalg.norm(held, axis=1)
        cosines = (made * held).sum(axis=1) / np.maximum(norms, 1e-12)
        if cosines.min() < _SAME:
            worst = self.keys[int(chosen[cosines.argmin()])]
            raise ValueError(
                f"{self.path} has another embedding of {worst} than {self.name} makes of it "
                f"(cosine {cosines.min():.3f}): the image has changed, or the net. {self._fix()}"
            )

    def _fix(self) -> str:
        if self.model is None:
            return "Embed the training data with arcface-plus embed, or name the model."
        return f"Remove it ({self.path.name}, {rows_file(self.path).name}) to have it made again."


def image_keys(source: ImageSource) -> list[str]:
    """Return what ``embed`` calls each image: its path, its record's key, or its place."""
    if isinstance(source, ImageFiles):
        return list(source.paths)
    if isinstance(source, RecordImages):
        return [str(key) for key in source.reader.keys]
    return [str(index) for index in range(len(source))]


def _stated(wanted: EmbeddedConfig) -> Preprocessing | None:
    text = wanted.preprocessing
    if text is None:
        return None
    return stated(text if isinstance(text, str) else json.dumps(text))


@contextmanager
def _alone(path: Path | None, world: World) -> Iterator[None]:
    """Wait until no other run makes the file ``path``; the system ends a dead run's claim."""
    if path is None or not world.is_main:
        yield
        return
    with path.with_name(path.name + ".lock").open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield
