"""The images of a record file as a sequence, with labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arcface_plus.data.images import decode_pixels
from arcface_plus.data.lazy_images import ImageSource
from arcface_plus.data.records.reader import RecordReader


class RecordImages(ImageSource):
    """Images of an InsightFace ``train.rec``, decoded when asked for."""

    def __init__(self, reader: RecordReader, warnings: tuple[str, ...] = ()) -> None:
        self.reader, self.warnings = reader, warnings
        self.labels, self.num_classes = reader.labels, reader.num_classes

    def __getitem__(self, index: int, /) -> np.ndarray:
        data = self.reader[index].data
        try:
            return decode_pixels(data)
        except ValueError as error:  # named only now: names take as long as a copy of the image
            raise ValueError(f"{self.describe(index)}: {error}") from error

    def encoded(self, index: int) -> bytes:
        """Return image ``index`` as it is stored."""
        return self.reader[index].data

    def read_ahead(self, runs: Sequence[tuple[int, int]]) -> None:
        for first, end in runs:
            self.reader.read_ahead(first, end)

    def names(self) -> list[str] | None:
        """Return the folder that each person's images came from, as the ``.lst`` beside tells.

        None without a list that has exactly one for each label (``data pack`` writes it).
        """
        listing = self.reader.path.with_suffix(".lst")
        if not listing.is_file():
            return None
        found: dict[int, str] = {}
        with listing.open(encoding="utf-8") as lines:
            for line in lines:
                parts = line.rstrip("\n").split("\t")
                folder = parts[-1].rpartition("/")[0].rpartition("/")[2]
                if len(parts) != 3 or not parts[1].isdecimal() or not folder:
                    return None
                if found.setdefault(int(parts[1]), folder) != folder:
                    return None
        if sorted(found) != list(range(self.num_classes)) or len(set(found.values())) < len(found):
            return None
        return [found[label] for label in range(self.num_classes)]

    def describe(self, index: int) -> str:
        return f"{self.reader.path}, record {self.reader.keys[index]}"

    def identity(self, index: int) -> bytes:
        return self.describe(index).encode()
