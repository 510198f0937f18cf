"""The rules that a record file keeps, a method a family of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from arcface_plus.data.image_check import find_copies, look_at
from arcface_plus.data.problems import DROP_IMAGE, DataProblem
from arcface_plus.data.records.cut import find_cut
from arcface_plus.data.records.headers import (
    FAULT_RULES,
    MIN_IMAGE_BYTES,
    HeaderTable,
    unpack_payload,
    valid_labels,
)
from arcface_plus.data.records.identities import partition_keys
from arcface_plus.data.records.reader import RecordReader
from arcface_plus.data.records.recordio import FIRST, WHOLE, read_record

COPY_AGAIN = "copy the file again from its source, or pack it anew"
REINDEX = "delete the .idx to have the .rec scanned, or pack it anew"
RELABEL = "pack the data set anew with labels 0 … people − 1"


class _Encoded:
    """The stored images of a reader, whatever their labels are."""

    def __init__(self, reader: RecordReader) -> None:
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    def encoded(self, index: int) -> bytes:
        return self.reader[index].data

    def describe(self, index: int) -> str:
        return f"image {index}"


class RecordRules:
    """Collect problems of one reader, a method a family of rules."""

    def __init__(self, reader: RecordReader, listed: int) -> None:
        self.reader = reader
        self.listed = listed
        self.problems: list[DataProblem] = []
        self.image_keys = reader.keys

    def _add(
        self,
        rule: str,
        message: str | Callable[[int], str],
        fix: str,
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        keys: range | np.ndarray | None = None,
        warn: bool = False,
    ) -> None:
        """Add a problem of the file, or those of the records ``rows`` of ``keys``.

        ``keys`` are those of the images where they are not given. ``message`` is one for all, or
        says what is wrong with a row.
        """
        keys = self.image_keys if keys is None else keys
        for i, row in enumerate([None] if rows is None else rows[: self.listed]):
            key = None if row is None else int(keys[row])
            self.problems.append(
                DataProblem(
                    file=str(self.reader.path),
                    rule=rule,
                    message=message if isinstance(message, str) else message(row),
                    fix=fix,
                    key=key,
                    offset=None
                    if key is None
                    else int(self.reader.index.offsets_of(np.array([key]))[0]),
                    count=len(rows) - i if rows is not None and i == self.listed - 1 else 1,
                    severity="warning" if warn else "error",
                )
            )

    def framing(self, table: HeaderTable) -> bool:
        """Check that every listed record starts and ends where the framing says.

        Return False where records overlap, so that following them would not come to an end.
        """
        keys, offsets = self.reader.index.keys, self.reader.index.offsets
        cut = find_cut(self.reader.buffer, offsets, table)
        if cut is not None:
            self._add("cut", cut.message, COPY_AGAIN)
        told = np.zeros(len(offsets), dtype=bool) if cut is None else cut.missing
        for code, (rule, message) in FAULT_RULES.items():
            fix = REINDEX if rule in ("idx-offset", "magic", "part-kind") else COPY_AGAIN
            rows = np.flatnonzero((table.fault == code) & ~told)
            self._add(rule, message, fix, rows=rows, keys=keys)
        ends = offsets + 8 + table.length + -table.length % 4
        good = np.flatnonzero(table.fault == 0)
        good = good[np.argsort(offsets[good], kind="stable")]
        if (ends[good[:-1]] > offsets[good[1:]]).any():
            self._add("idx-overlap", "listed records overlap", REINDEX)
            return False
        broken: dict[int, str] = {}
        for row in np.flatnonzero((table.fault == 0) & (table.kind == FIRST) & ~told).tolist():
            try:
                payload, ends[row] = read_record(self.reader.buffer, int(offsets[row]))
                unpack_payload(payload)
            except ValueError as error:
                broken[row] = str(error)
        self._add("parts", broken.__getitem__, COPY_AGAIN, rows=list(broken), keys=keys)
        if not table.fault.any() and not broken and cut is None:
            self._gaps(offsets, ends)
        return True

    def _gaps(self, offsets: np.ndarray, ends: np.ndarray) -> None:
        """Check that the listed records lie end to end and fill the file."""
        order = np.argsort(offsets, kind="stable")
        starts = np.append(offsets[order], len(self.reader.buffer))
        expected = np.concatenate([[0], ends[order]])
        # The last padding may be missing where a file was cut there; its bytes carry nothing.
        at = np.flatnonzero(starts != expected)
        if len(at) and (starts[at] < expected[at]).any():
            self._add("idx-overlap", "listed records overlap, or the last padding is cut", REINDEX)
        elif len(at):
            unlisted = int((starts[at] - expected[at]).sum())
            self._add(
                "idx-gap",
                f"{unlisted} bytes, the first at {expected[at[0]]}, belong to no listed record",
                REINDEX,
                warn=True,
            )

    def labels(self, table: HeaderTable) -> None:
        """Check that every image has bytes and a whole-number label."""
        readable = table.fault == 0
        self._add(
            "label",
            lambda row: f"label {table.label[row]} is not a whole number in [0, 2^24)",
            RELABEL,
            rows=np.flatnonzero(readable & ~valid_labels(table)),
        )
        empty = readable & (table.kind == WHOLE) & (table.data_bytes < MIN_IMAGE_BYTES)
        rows = np.flatnonzero(empty)
        self._add("empty", "no image follows the header", DROP_IMAGE, rows=rows)

    def counts(self, table: HeaderTable, num_classes: int | None) -> None:
        """Check labels against the classes that the run and ``property`` announce."""
        if len(self.image_keys) == 0:
            self._add("count", "the file holds no image records", "pack a folder of images")
        known = self.reader.property
        stated = {} if known is None else {"property": known.num_classes}
        if num_classes is not None:
            stated["run"] = num_classes
        for source, classes in stated.items():
            self._label_range(table, source, classes)
        if len(set(stated.values())) == 2:
            self._add(
                "property",
                f"property says {stated['property']} people, the run expects {stated['run']}",
                "correct the one that is wrong",
                # Too many classes train, with some that never see an image.
                warn=stated["run"] > stated["property"],
            )
        present = np.unique(table.label[valid_labels(table)]).astype(np.int64)
        expected = stated.get("run", stated.get("property", 0))
        missing = max(expected, int(present.max(initial=-1)) + 1) - len(present)
        if missing > 0:
            self._add("empty-class", f"{missing} classes have no image", RELABEL, warn=True)

    def _label_range(self, table: HeaderTable, source: str, classes: int) -> None:
        self._add(
            "label-range",
            lambda row: (
                f"label {table.label[row]:.0f} is outside the {classes} classes of the {source}"
            ),
            f"correct the {source}'s number of classes, or {RELABEL}",
            rows=np.flatnonzero(valid_labels(table) & (table.label >= classes)),
        )

    def identities(self, table: HeaderTable) -> None:
        """Check the identity ranges against the images' own labels."""
        try:
            ranges = self.reader.identity_ranges
            if ranges is None:
                return
            disjoint = partition_keys(ranges, len(self.image_keys))
            if disjoint is None:
                raise ValueError("the identity ranges do not cover every image exactly once")
        except ValueError as error:
            self._add("ranges", str(error), "pack the data set anew")
            return
        own = np.repeat(table.label[disjoint[:, 0] - 1], disjoint[:, 1] - disjoint[:, 0])
        self._add(
            "range-label",
            lambda row: (
                f"label {table.label[row]:g}, but its person's first image has {own[row]:g}"
            ),
            "pack the data set anew",
            rows=np.flatnonzero((table.label != own) & valid_labels(table)),
        )

    def images(
        self,
        positions: np.ndarray,
        table: HeaderTable,
        *,
        copies: bool,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """Decode the images at ``positions``, compare their sizes and, if asked, find copies."""
        looks = look_at(_Encoded(self.reader), positions, progress)
        errors = {int(positions[i]): error for i, error in looks.errors.items()}
        self._add("image", errors.__getitem__, DROP_IMAGE, rows=list(errors))
        known, sizes = self.reader.property, dict(zip(positions.tolist(), looks.sizes, strict=True))
        if known is not None:
            self._add(
                "image-size",
                lambda row: (
                    f"{sizes[row][1]}×{sizes[row][0]} pixels, but property says "
                    f"{known.width}×{known.height}"
                ),
                DROP_IMAGE,
                rows=[
                    row
                    for row, size in sizes.items()
                    if row not in errors and tuple(size) != (known.height, known.width)
                ],
            )
        if not copies:
            return
        origin = dict(positions[find_copies(looks.digests)].tolist())
        rows = np.array(list(origin), dtype=np.int64)
        same = table.label[rows] == table.label[list(origin.values())]

        def message(row: int) -> str:
            return f"the same bytes as record {self.image_keys[origin[row]]}"

        self._add("copy", message, DROP_IMAGE, rows=rows[same], warn=True)
        self._add("copy-label", message, "correct the wrong label", rows=rows[~same])
