"""The images of a record file as a sequence, with labels."""

from __future__ import annotations

import numpy as np

from arcface_plus.data.images import decode_image
from arcface_plus.data.lazy_images import ImageSource
from arcface_plus.data.records.reader import RecordReader


class RecordImages(ImageSource):
    """Images of an InsightFace ``train.rec``, decoded when asked for."""

    def __init__(self, reader: RecordReader, warnings: tuple[str, ...] = ()) -> None:
        self.reader, self.warnings = reader, warnings
        self.labels, self.num_classes = reader.labels, reader.num_classes

    def __getitem__(self, index: int, /) -> np.ndarray:
        return decode_image(self.reader[index].data, where=self.describe(index))

    def describe(self, index: int) -> str:
        return f"{self.reader.path}, record {self.reader.keys[index]}"

    def identity(self, index: int) -> bytes:
        return self.describe(index).encode()
