"""Write ``.rec``, ``.idx`` and ``property`` byte for byte as mxnet's indexed writer does."""

from __future__ import annotations

import os
from array import array
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from arcface_plus.data.records.headers import pack_header
from arcface_plus.data.records.recordio import frame_record
from arcface_plus.files import sync

Layout = Literal["insightface", "plain"]


class RecordWriter(AbstractContextManager["RecordWriter"]):
    """Write image records to ``path`` (a ``.rec`` file), its ``.idx`` and ``property``.

    ``layout="insightface"`` numbers images 1, 2, … and adds header-0 and one identity record a
    person at close; the images of a person must come one after another. ``layout="plain"`` writes
    what it is given under the keys it is given (default 0, 1, …).

    ``property`` gets ``num_classes`` (default: largest label + 1) and ``image_size`` (height,
    width); ``image_size=None`` or a file without classes leaves it out. Files appear under their
    names at `close`, or at the end of a ``with`` block that raised nothing; until then they have
    temporary names beside. Existing files are refused unless ``overwrite``.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        layout: Layout = "insightface",
        image_size: tuple[int, int] | None = (112, 112),
        num_classes: int | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        if layout not in ("insightface", "plain"):
            raise ValueError(f"layout {layout!r} is unknown; use 'insightface' or 'plain'")
        if self.path.suffix != ".rec":
            raise ValueError(f"{self.path}: record files must be named *.rec; use train.rec")
        self._layout, self._image_size, self._num_classes = layout, image_size, num_classes
        self._targets = (
            self.path.with_name("property"),
            self.path.with_suffix(".idx"),
            self.path,  # Last: where the .rec is, the others are too.
        )
        if existing := [str(t) for t in self._targets if t.exists() and not overwrite]:
            raise ValueError(f"{', '.join(existing)} exist(s); choose another place, or overwrite")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._offset = 0
        self._keys = array("q")
        self._max_label = -1
        self._starts: dict[int, int] = {}  # first key of each label, in the order of the file
        self._closed = False
        self._beside = [t.with_name(f".{t.name}.{os.getpid()}.tmp") for t in self._targets]
        self._rec: BinaryIO = self._beside[2].open("wb")
        self._idx: BinaryIO = self._beside[1].open("wb")
        if layout == "insightface":
            self._append(pack_header(np.zeros(2), 0), 0)

    def write(
        self,
        data: bytes,
        label: float | np.ndarray,
        *,
        key: int | None = None,
        record_id: int | None = None,
        id2: int = 0,
    ) -> int:
        """Append one image and return its key.

        ``record_id`` defaults to the key. Array labels are stored as float32; their first entry is
        the class. Raises ValueError for a class that float32 cannot hold or, in InsightFace's
        layout, that is no whole number or comes back after another one.
        """
        key = self._next_key(key)
        self._note_label(float(np.ravel(label)[0]) if np.size(label) else float("nan"), key)
        self._append(pack_header(label, key if record_id is None else record_id, id2) + data, key)
        return key

    def write_raw(self, payload: bytes, *, key: int | None = None) -> int:
        """Append a payload as it is, header included (plain layout only); return its key."""
        if self._layout != "plain":
            raise ValueError("write_raw needs layout='plain'; use write(data, label)")
        key = self._next_key(key)
        self._append(payload, key)
        return key

    def _next_key(self, key: int | None) -> int:
        if self._closed:
            raise ValueError(f"{self.path}: the writer is closed")
        if key is None:
            return self._keys[-1] + 1 if self._keys else 0
        if self._layout == "insightface":
            raise ValueError(f"key={key}: InsightFace's layout numbers images itself; leave it out")
        return key

    def _note_label(self, label: float, key: int) -> None:
        if not (0 <= label < 1 << 24 and label.is_integer()):
            if self._layout == "plain":
                return
            raise ValueError(f"image {key}: label {label} must be a whole number in [0, 2^24)")
        number = int(label)
        self._max_label = max(self._max_label, number)
        current = next(reversed(self._starts), None)
        if self._layout == "plain" or number == current:
            return
        if number in self._starts:
            raise ValueError(
                f"image {key}: label {number} comes back after {current}; write each person's "
                "images one after another, or use layout='plain'"
            )
        self._starts[number] = key

    def _append(self, payload: bytes, key: int) -> None:
        frame = frame_record(payload)
        self._rec.write(frame)
        self._idx.write(b"%d\t%d\n" % (key, self._offset))
        self._offset += len(frame)
        self._keys.append(key)

    def close(self) -> None:
        """Write identity records and ``property`` and give the files their names, once."""
        if not self._closed:
            try:
                self._finish()
            finally:
                self.abort()  # all that has no name of its own yet, which is nothing if all is well

    def _finish(self) -> None:
        num_classes = self._max_label + 1 if self._num_classes is None else self._num_classes
        if num_classes <= self._max_label:
            raise ValueError(f"num_classes={num_classes}, but label {self._max_label} was written")
        if len(np.unique(np.frombuffer(self._keys, dtype=np.int64))) != len(self._keys):
            raise ValueError(f"{self.path}: some key was written twice; keys must be unique")
        if self._layout == "insightface":
            self._append_identities()
        # Without any class known, a property file would say "0 people".
        if self._image_size is not None and num_classes > 0:
            height, width = self._image_size
            self._beside[0].write_text(f"{num_classes},{height},{width}\n", encoding="ascii")
        self._rec.close()
        self._idx.close()
        # A stale property beside new records would lie about them.
        self._targets[0].unlink(missing_ok=True)
        for source, target in zip(self._beside, self._targets, strict=True):
            if source.exists():
                sync(source)
                source.replace(target)

    def _append_identities(self) -> None:
        first = len(self._keys)
        for key, bounds in enumerate(pairwise([*self._starts.values(), first]), start=first):
            self._append(pack_header(np.array(bounds), key), key)
        self._rec.seek(0)
        self._rec.write(frame_record(pack_header(np.array([first, len(self._keys)]), 0)))

    def abort(self) -> None:
        """Drop everything written; no file appears. Harmless after `close`."""
        if self._closed:
            return
        self._closed = True
        self._rec.close()
        self._idx.close()
        for beside in self._beside:
            beside.unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
