"""Find what is wrong with a ``.rec`` data set before training does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from arcface_plus.data.folder_check import Checked
from arcface_plus.data.problems import DataProblem
from arcface_plus.data.records.headers import gather_headers, valid_labels
from arcface_plus.data.records.reader import RecordReader
from arcface_plus.data.records.recordio import WHOLE_RECORDS, CutRecordError
from arcface_plus.data.records.rules import COPY_AGAIN, RecordRules
from arcface_plus.data.records.sound import sound_labels, sound_table


def check_record_file(
    path: Path,
    num_classes: int | None = None,
    *,
    decode: str = "all",
    on_progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Return every broken rule of a record file, also of one that is cut too short to be opened.

    Raises as ``RecordReader`` for a file that cannot be opened for another reason.
    """
    try:
        with RecordReader(path) as reader:
            problems = find_record_problems(
                reader, num_classes, decode=decode, on_progress=on_progress
            )
            readable = valid_labels(table := reader.headers())
            return Checked(problems, len(reader), len(np.unique(table.label[readable])))
    except CutRecordError as error:
        file, _, message = str(error).partition(": ")
        message = message.partition(WHOLE_RECORDS)[0] + WHOLE_RECORDS
        cut = DataProblem(file=file, rule="cut", message=message, fix=COPY_AGAIN)
        return Checked([cut], 0, 0)


def check_records(
    reader: RecordReader,
    num_classes: int | None = None,
    *,
    decode: str = "headers",
    sample: int = 256,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[DataProblem]:
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
) -> list[DataProblem]:
    """Return every broken rule: framing, offsets, labels, counts, and images as ``decode`` says.

    ``num_classes`` is what the run expects; ``decode`` "headers" reads headers alone, "sample"
    decodes ``sample`` images spread over the file, "all" decodes every one. At most ``listed``
    records a rule are named, the last with the count of the rest. ``on_progress(done, total)``
    follows decoding. Exact copies are looked for where every image is decoded.
    """
    if decode not in ("headers", "sample", "all"):
        raise ValueError(f"decode={decode!r} is unknown; use 'headers', 'sample' or 'all'")
    check = RecordRules(reader, listed)
    if decode == "headers" and (labels := sound_labels(reader)) is not None:
        check.counts(sound_table(labels), num_classes)
        check.identities(sound_table(labels))
        reader.keep_labels(labels)
        return check.problems
    if not check.framing(gather_headers(reader.buffer, reader.index.offsets)):
        return check.problems
    images = reader.headers()
    check.labels(images)
    check.counts(images, num_classes)
    check.identities(images)
    if decode != "headers":
        good = np.flatnonzero(images.fault == 0)
        if decode == "sample" and len(good) > sample:
            good = good[np.linspace(0, len(good) - 1, sample).astype(np.int64)]
        check.images(good, images, copies=decode == "all", progress=on_progress)
    return check.problems
