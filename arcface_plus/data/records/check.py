"""Find what is wrong with a ``.rec`` data set before training does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from arcface_plus.data.images import decode_image
from arcface_plus.data.records.headers import (
    FAULT_RULES,
    MIN_IMAGE_BYTES,
    HeaderTable,
    gather_headers,
    unpack_payload,
    valid_labels,
)
from arcface_plus.data.records.identities import partition_keys
from arcface_plus.data.records.reader import RecordReader
from arcface_plus.data.records.recordio import FIRST, WHOLE, read_record

COPY_AGAIN = "copy the file again from its source, or pack it anew"
REINDEX = "delete the .idx to have the .rec scanned, or pack it anew"
RELABEL = "pack the data set anew with labels 0 … people − 1"
DROP_IMAGE = "replace the image, or pack the data set without it"


@dataclass(frozen=True, kw_only=True)
class RecordProblem:
    """Describe one broken rule; ``count`` records break it, the first of them named here."""

    file: str
    rule: str
    message: str
    fix: str
    key: int | None = None
    offset: int | None = None
    count: int = 1
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = "" if self.key is None else f" record {self.key} at byte {self.offset}:"
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        return (
            f"{self.severity}: {self.file}:{place} [{self.rule}] {self.message}{more}; {self.fix}"
        )


def check_records(
    reader: RecordReader,
    num_classes: int | None = None,
    *,
    decode: str = "headers",
    sample: int = 256,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[RecordProblem]:
    """Raise ValueError listing every error `find_record_problems` finds; return the warnings."""
    problems = find_record_problems(
        reader, num_classes, decode=decode, sample=sample, on_progress=on_progress
    )
    if errors := [str(problem) for problem in problems if problem.severity == "error"]:
        raise ValueError("\n".join(errors))
    return problems


def find_record_problems(
    reader: RecordReader,
    num_classes: int | None = None,
    *,
    decode: str = "headers",
    sample: int = 256,
    listed: int = 20,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[RecordProblem]:
    """Return every broken rule: framing, offsets, labels, counts, and images as ``decode`` says.

    ``num_classes`` is what the run expects; ``decode`` "headers" reads headers alone, "sample"
    decodes ``sample`` images spread over the file, "all" decodes every one. At most ``listed``
    records a rule are named, the last with the count of the rest. ``on_progress(done, total)``
    follows decoding.
    """
    if decode not in ("headers", "sample", "all"):
        raise ValueError(f"decode={decode!r} is unknown; use 'headers', 'sample' or 'all'")
    check = _Check(reader, listed)
    check.framing(gather_headers(reader.buffer, reader.index.offsets))
    images = reader.headers()
    check.labels(images)
    check.counts(images, num_classes)
    check.identities(images)
    if decode != "headers":
        good = np.flatnonzero(images.fault == 0)
        if decode == "sample" and len(good) > sample:
            good = good[np.linspace(0, len(good) - 1, sample).astype(np.int64)]
        check.images(good, on_progress)
    return check.problems


class _Check:
    """Collect problems of one reader, a method a family of rules."""

    def __init__(self, reader: RecordReader, listed: int) -> None:
        self.reader = reader
        self.listed = listed
        self.problems: list[RecordProblem] = []
        self.image_keys = np.asarray(reader.keys, dtype=np.int64)

    def _add(
        self,
        rule: str,
        message: str | Callable[[int], str],
        fix: str,
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        keys: np.ndarray | None = None,
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
                RecordProblem(
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

    def framing(self, table: HeaderTable) -> None:
        """Check that every listed record starts and ends where the framing says."""
        keys, offsets = np.asarray(self.reader.index.keys), self.reader.index.offsets
        for code, (rule, message) in FAULT_RULES.items():
            fix = REINDEX if rule in ("idx-offset", "magic", "part-kind") else COPY_AGAIN
            self._add(rule, message, fix, rows=np.flatnonzero(table.fault == code), keys=keys)
        ends = offsets + 8 + table.length + -table.length % 4
        broken: dict[int, str] = {}
        for row in np.flatnonzero((table.fault == 0) & (table.kind == FIRST)).tolist():
            try:
                payload, ends[row] = read_record(self.reader.buffer, int(offsets[row]))
                unpack_payload(payload)
            except ValueError as error:
                broken[row] = str(error)
        self._add("parts", broken.__getitem__, COPY_AGAIN, rows=list(broken), keys=keys)
        if not table.fault.any() and not broken:
            self._gaps(offsets, ends)

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

    def images(self, positions: np.ndarray, progress: Callable[[int, int], None] | None) -> None:
        """Decode the images at ``positions`` and compare their sizes with ``property``."""
        found: dict[str, dict[int, str]] = {"image": {}, "image-size": {}}
        known = self.reader.property
        for done, position in enumerate(positions.tolist(), start=1):
            try:
                data = self.reader[position].data
                height, width = decode_image(data, where=f"image {position}").shape[:2]
                if known is not None and (height, width) != (known.height, known.width):
                    found["image-size"][position] = (
                        f"{width}×{height} pixels, but property says {known.width}×{known.height}"
                    )
            except ValueError as error:
                found["image"][position] = str(error)
            if progress is not None:
                progress(done, len(positions))
        for rule, messages in found.items():
            self._add(rule, messages.__getitem__, DROP_IMAGE, rows=list(messages))
