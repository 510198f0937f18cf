"""Small record files, good and bad, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.records.check import find_record_problems
from arcface_plus.data.records.reader import RecordReader, RecordWriter
from arcface_plus.data.records.recordio import frame_record


class RecordFiles:
    """Make record files; ``people`` are images of each person in the usual one."""

    people = (3, 1, 4, 2)

    def jpeg(self, value: int, size: int = 112) -> bytes:
        """Return a JPEG of one grey value."""
        return encode_jpeg(np.full((size, size, 3), value % 256, dtype=np.uint8))

    def write(self, path: Path, counts=people, **options) -> Path:
        """Write ``counts[i]`` images of person i, with the options of RecordWriter."""
        with RecordWriter(path, **options) as writer:
            for label, count in enumerate(counts):
                for i in range(count):
                    writer.write(self.jpeg(20 * label + i), label)
        return path

    def write_frames(self, folder: Path, payloads, keys, offsets=None) -> Path:
        """Write payloads as they are, with an .idx of any keys and offsets, valid or not."""
        frames = [frame_record(payload) for payload in payloads]
        (folder / "train.rec").write_bytes(b"".join(frames))
        starts = np.cumsum([0, *map(len, frames)])[: len(keys)] if offsets is None else offsets
        lines = [f"{key}\t{start}\n" for key, start in zip(keys, starts, strict=True)]
        (folder / "train.idx").write_text("".join(lines))
        return folder / "train.rec"

    def broken_rules(self, path: Path, *args, **options) -> set[str]:
        """Return the names of the rules that the check finds broken."""
        with RecordReader(path) as reader:
            return {problem.rule for problem in find_record_problems(reader, *args, **options)}


@pytest.fixture(scope="session")
def files() -> RecordFiles:
    return RecordFiles()
