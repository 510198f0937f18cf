"""Embeddings of named images, as ``arcface-plus embed`` exports them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from arcface_plus.evaluation.embedding.set_files import (
    ORIGIN,
    PAIRS,
    Origin,
    origin_of,
    read_columns,
)
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.onnx_model import OnnxModel

IDENTITIES = ("folder", "label", "prefix")
_SHOWN = 3


@dataclass(frozen=True)
class EmbeddingSet:
    """Hold ``keys`` (N,) text, ``embeddings`` (N, D) and ``labels`` (N,) integers or None.

    ``origin``: what made the embeddings, where the file states it. ``has_pairs``: whether it holds
    the pairs of a pair set, too.
    """

    keys: np.ndarray
    embeddings: np.ndarray
    labels: np.ndarray | None
    source: str
    origin: Origin | None = None
    has_pairs: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    def describe(self, row: int) -> str:
        """Name row ``row`` for messages."""
        return f"The embedding of {self.keys[row]} in {self.source}"

    def names(self) -> np.ndarray:
        """Return what to call the person of each row, (N,) text.

        It is the folder of the key, else the label, else nothing.
        """
        folders = [str(PurePosixPath(key).parent) for key in self.keys.tolist()]
        labels = [-1] * len(folders) if self.labels is None else self.labels.tolist()
        numbers = ["" if label < 0 else str(label) for label in labels]
        return np.array([n if f == "." else f for f, n in zip(folders, numbers, strict=True)])

    def check_made_by(self, model: EmbeddingModel) -> Origin:
        """Return the origin of the rows; ValueError where ``model`` makes other embeddings."""
        if self.origin is None:
            raise ValueError(
                f"{self.source} does not say which model made it; embed its photographs again."
            )
        made = origin_of(model, flip=self.origin.flip)
        if made != self.origin:
            what = "preprocessing" if made.model_hash == self.origin.model_hash else "weights"
            exported = ""
            if isinstance(model, OnnxModel) and model.source is None:
                exported = " (Of ONNX files, those that export writes in fp32 are their source.)"
            raise ValueError(
                f"{self.source} was made by another model (its {what} differ): search with that "
                f"model, or embed the photographs again with this one.{exported}"
            )
        return self.origin

    def people(self, identity: str) -> np.ndarray:
        """Return who each row shows, (N,).

        ``identity``: ``folder``, the folder of the key (PERSON/IMAGE.jpg); ``label``, the stored
        number, which means the same in two files only if one collection numbered both;
        ``prefix``, the name up to its first underscore (TinyFace's 12_3.jpg).

        Raises ValueError for another identity, and naming a row that does not say who it shows.
        """
        if identity == "label":
            if self.labels is None or (self.labels < 0).any():
                raise ValueError(
                    f"{self.source} does not state a label for every row; use the identity folder "
                    "or prefix."
                )
            return self.labels
        if identity == "folder":
            people = [str(PurePosixPath(key).parent) for key in self.keys.tolist()]
            wanting, what = ".", "lies in no folder"
        elif identity == "prefix":
            stems = [PurePosixPath(key).stem.partition("_") for key in self.keys.tolist()]
            people = [stem if underscore else "" for stem, underscore, _ in stems]
            wanting, what = "", "has no underscore in its name"
        else:
            raise ValueError(
                f"The identity is {identity!r}, but must be one of {', '.join(IDENTITIES)}."
            )
        if wanting in people:
            raise ValueError(
                f"{self.source}: {self.keys[people.index(wanting)]} {what}, so it does not say who "
                f"it shows; use another identity than {identity}."
            )
        return np.array(people)

    def rows_of(self, names: list[str], wanted_by: str) -> np.ndarray:
        """Return the row of each of ``names``; ValueError for one missing or there twice."""
        row = {name: i for i, name in enumerate(self.keys.tolist())}
        if len(row) != len(self.keys):
            unique, counts = np.unique(self.keys, return_counts=True)
            raise ValueError(f"{self.source} holds {unique[counts > 1][0]} more than once.")
        missing = [name for name in names if name not in row]
        if missing:
            raise ValueError(
                f"{self.source} lacks {len(missing)} of the {len(names)} images of {wanted_by}: "
                f"{', '.join(missing[:_SHOWN])}{', …' if len(missing) > _SHOWN else ''}."
            )
        return np.array([row[name] for name in names], dtype=np.int64)


def read_embedding_set(path: str | Path) -> EmbeddingSet:
    """Read a file that ``arcface-plus embed`` wrote (``set_files``), or an .npz of files and emb.

    Raises FileNotFoundError, and ValueError naming the file for what is missing or does not fit.
    """
    path = Path(path)
    columns = read_columns(path)
    keys, embeddings, labels = columns["key"], columns["embedding"], columns.get("label")
    fits = (
        keys.ndim == 1
        and keys.dtype.kind in "US"
        and embeddings.ndim == 2
        and embeddings.dtype.kind == "f"
        and len(keys) == len(embeddings)
        and (labels is None or (labels.shape == keys.shape and labels.dtype.kind in "iu"))
    )
    if not fits or not len(keys):
        raise ValueError(
            f"{path}: N names, N embeddings (N, D) and, if any, N whole labels are expected, N >= "
            f"1, but they are {keys.dtype} {keys.shape}, {embeddings.dtype} {embeddings.shape}"
            f"{'' if labels is None else f' and {labels.dtype} {labels.shape}'}."
        )
    origin = None
    if set(ORIGIN) <= set(columns):
        weights, preprocessing, flip = (str(columns[name]) for name in ORIGIN)
        origin = Origin(weights, preprocessing, flip == "True")
    has_pairs = any(name in columns for name in PAIRS)
    return EmbeddingSet(keys.astype(str), embeddings, labels, str(path), origin, has_pairs)
