"""Several record files that are one training set: ``train_0.rec``, ``train_1.rec``, …"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from arcface_plus.data.lazy_images import ImageSource
from arcface_plus.data.records.images import RecordImages


def find_parts(path: Path) -> list[Path]:
    """Return the record files of ``path``: itself, or those of a folder, in order of their numbers.

    A folder has one file, or several of one name but for a number. Raises FileNotFoundError or
    ValueError, which says what to do, where it is not clear which files are meant.
    """
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.rec"))
    if not found:
        raise FileNotFoundError(f"{path} has no .rec file; name one, or set data.source to folder")
    names = {re.sub(r"\d+", "", file.name) for file in found}
    if len(names) > 1:
        raise ValueError(
            f"{path} has {', '.join(f.name for f in found[:8])}: files of one set differ in a "
            "number alone. Name one of them, or list the parts: --data.path '[a.rec, b.rec]'."
        )
    return sorted(found, key=lambda file: [int(n) for n in re.findall(r"\d+", file.name)])


class RecordParts(ImageSource):
    """The images of several record files, one after the other; a label means the same in all."""

    def __init__(self, parts: Sequence[RecordImages]) -> None:
        self.parts = list(parts)
        self.labels = np.concatenate([part.labels for part in self.parts])
        self.num_classes = max(part.num_classes for part in self.parts)
        self._starts = [0, *np.cumsum([len(part) for part in self.parts]).tolist()]
        for part, start in zip(self.parts, self._starts, strict=False):
            part.labels = self.labels[start : start + len(part)]  # instead of a second copy
            part.reader.forget_labels()
        self.warnings = tuple(w for part in self.parts for w in part.warnings) + self._of_classes()

    def _of_classes(self) -> tuple[str, ...]:
        seen = np.zeros(self.num_classes, dtype=np.uint32)
        for part in self.parts:
            seen[np.unique(part.labels)] += 1
        warnings = []
        if missing := int((seen == 0).sum()):
            warnings.append(f"{missing} classes have no image in any of the record files")
        if shared := int((seen > 1).sum()):
            warnings.append(
                f"{shared} classes have images in several of the {len(self.parts)} record files: a "
                "label must be the same person in all of them"
            )
        return tuple(warnings)

    def _place(self, index: int) -> tuple[RecordImages, int]:
        if not 0 <= index < self._starts[-1]:
            raise IndexError(f"image {index} of {len(self)} in {len(self.parts)} record files")
        number = bisect_right(self._starts, index) - 1
        return self.parts[number], index - self._starts[number]

    def __getitem__(self, index: int, /) -> np.ndarray:
        part, place = self._place(index)
        return part[place]

    def encoded(self, index: int) -> bytes:
        """Return image ``index`` as it is stored."""
        part, place = self._place(index)
        return part.encoded(place)

    def describe(self, index: int) -> str:
        part, place = self._place(index)
        return part.describe(place)

    def read_ahead(self, runs: Sequence[tuple[int, int]]) -> None:
        for first, end in runs:
            for part, start in zip(self.parts, self._starts, strict=False):
                low, high = max(first - start, 0), min(end - start, len(part))
                if low < high:
                    part.read_ahead([(low, high)])
