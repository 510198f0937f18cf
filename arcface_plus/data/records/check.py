"""Find what is wrong with a ``.rec`` data set before training does."""

from __future__ import annotations

from collections.abc import Callable
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
    errors = [str(problem) for problem in problems if problem.severity == "error"]
    if errors:
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
        message: str | list[str],
        fix: str,
        *,
        keys: np.ndarray | None = None,
        warn: bool = False,
    ) -> None:
        """Add a problem of the file, or those of the records ``keys``.

        ``message`` is one for all, or one for each record that is listed.
        """
        index = self.reader.index
        for i, key in enumerate([None] if keys is None else keys[: self.listed].tolist()):
            last = keys is not None and i == self.listed - 1
            self.problems.append(
                RecordProblem(
                    file=str(self.reader.path),
                    rule=rule,
                    message=message if isinstance(message, str) else message[i],
                    fix=fix,
                    key=key,
                    offset=None if key is None else int(index.offsets[index.row(key)]),
                    count=len(keys) - self.listed + 1 if keys is not None and last else 1,
                    severity="warning" if warn else "error",
                )
            )

    def framing(self, table: HeaderTable) -> None:
        """Check that every listed record starts and ends where the framing says."""
        keys, offsets = self.reader.index.keys_array(), self.reader.index.offsets
        for code, (rule, message) in FAULT_RULES.items():
            fix = REINDEX if rule in ("idx-offset", "magic", "part-kind") else COPY_AGAIN
            self._add(rule, message, fix, keys=keys[table.fault == code])
        ends = offsets + 8 + table.length + -table.length % 4
        broken: dict[int, str] = {}
        for row in np.flatnonzero((table.fault == 0) & (table.kind == FIRST)).tolist():
            try:
                payload, ends[row] = read_record(self.reader.buffer, int(offsets[row]))
                unpack_payload(payload)
            except ValueError as error:
                broken[row] = str(error)
        messages = list(broken.values())
        rows = np.fromiter(broken, dtype=np.int64, count=len(broken))
        self._add("parts", messages, COPY_AGAIN, keys=keys[rows])
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
            message = (
                f"{unlisted} bytes, the first at {expected[at[0]]}, belong to no listed record"
            )
            self._add("idx-gap", message, REINDEX, warn=True)

    def labels(self, table: HeaderTable) -> None:
        """Check that every image has bytes and a whole-number label."""
        readable = table.fault == 0
        bad = np.flatnonzero(readable & ~valid_labels(table))
        messages = [
            f"label {label} is not a whole number in [0, 2^24)"
            for label in table.label[bad[: self.listed]]
        ]
        self._add("label", messages, RELABEL, keys=self.image_keys[bad])
        empty = readable & (table.kind == WHOLE) & (table.data_bytes < MIN_IMAGE_BYTES)
        self._add("empty", "no image follows the header", DROP_IMAGE, keys=self.image_keys[empty])

    def counts(self, table: HeaderTable, num_classes: int | None) -> None:
        """Check labels against the classes that the run and ``property`` announce."""
        good = np.flatnonzero(valid_labels(table))
        labels = table.label[good].astype(np.int64)
        if len(self.image_keys) == 0:
            self._add("count", "the file holds no image records", "pack a folder of images")
        known = self.reader.property
        declared = {"property": None if known is None else known.num_classes, "run": num_classes}
        for source, classes in declared.items():
            if classes is None:
                continue
            high = labels >= classes
            messages = [
                f"label {label} is outside the {classes} classes of the {source}"
                for label in labels[high][: self.listed]
            ]
            fix = f"correct the {source}'s number of classes, or {RELABEL}"
            self._add("label-range", messages, fix, keys=self.image_keys[good[high]])
        expected = num_classes if num_classes is not None else declared["property"]
        if known is not None and num_classes is not None and num_classes != known.num_classes:
            message = f"property says {known.num_classes} people, the run expects {num_classes}"
            # Too many classes train, with some that never see an image.
            surplus = num_classes > known.num_classes
            self._add("property", message, "correct the one that is wrong", warn=surplus)
        missing = max(expected or 0, int(labels.max(initial=-1)) + 1) - len(np.unique(labels))
        if missing > 0:
            message = f"{missing} classes have no image"
            self._add("empty-class", message, RELABEL, warn=True)

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
        other = np.flatnonzero((table.fault == 0) & (table.label != own) & valid_labels(table))
        messages = [
            f"label {table.label[row]:g}, but its person's first image has {own[row]:g}"
            for row in other[: self.listed]
        ]
        self._add("range-label", messages, "pack the data set anew", keys=self.image_keys[other])

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
            rows = np.fromiter(messages, dtype=np.int64, count=len(messages))
            self._add(rule, list(messages.values()), DROP_IMAGE, keys=self.image_keys[rows])
