"""Align a folder of photographs, so that it can be stopped and continued."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from arcface_plus.data.alignment import TEMPLATE_SIZE
from arcface_plus.data.faces.detectors import DEFAULT
from arcface_plus.data.faces.outcomes import (
    Outcome,
    Status,
    as_line,
    read_outcomes,
    write_outcomes,
)
from arcface_plus.data.faces.photograph import Job, opened
from arcface_plus.data.faces.sheet import write_sheet
from arcface_plus.data.faces.workers import run_job
from arcface_plus.data.folder import IMAGE_SUFFIXES, folders_in
from arcface_plus.files import written_beside

TABLE, SETTINGS = "alignment.csv", "alignment.json"
FAILURES, SHEET = "failures.txt", "alignment.html"
FORMATS = ("jpg", "png")
MIN_FACE = 40.0
# Photographs in forms that are not read: they are listed as failures instead of passed over.
_UNREAD_SUFFIXES = frozenset({".heic", ".heif", ".avif", ".webp", ".tif", ".tiff", ".gif"})


@dataclass(frozen=True)
class AlignedFolder:
    """What ``align_folder`` did: the table's rows, how many of them were there before."""

    outcomes: list[Outcome]
    before: int

    @property
    def counts(self) -> dict[Status, int]:
        """How many photographs ended in which way, in the order of ``Status``."""
        found = Counter(outcome.status for outcome in self.outcomes)
        return {status: found[status] for status in Status if found[status]}


def align_folder(
    source: str | Path,
    output: str | Path,
    detector: str | Path = DEFAULT,
    *,
    size: int = TEMPLATE_SIZE,
    min_face: float = MIN_FACE,
    image_format: str = "jpg",
    workers: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> AlignedFolder:
    """Write an aligned crop of every photograph ``source/PERSON/NAME`` below ``output``.

    Beside the people's folders: ``alignment.csv`` (``outcomes.COLUMNS``), ``failures.txt``, the
    contact sheet ``alignment.html``, and ``alignment.json``, the settings. Photographs that are in
    the table already, with the same number of bytes, are not looked at again, whether they failed
    or not, and whether their crop is still there; ``overwrite`` removes the crops of the table and
    starts over. ``workers``: processes.
    ``on_progress(done, total)`` counts photographs.

    Raises ValueError where there is no photograph, where ``output`` holds crops made with other
    settings or files that are not of an alignment, and, after all is written, where no crop could
    be made at all; FileNotFoundError without ``source``; OSError where a process died.
    """
    source, output = Path(source), Path(output)
    if image_format not in FORMATS:
        raise ValueError(f"format {image_format!r} is unknown; use one of {', '.join(FORMATS)}")
    photographs = find_photographs(source)
    if output.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{output} is inside {source}: its crops would be taken for photographs")
    name = opened(str(detector)).name
    settings = {"detector": name, "size": size, "min_face": min_face, "format": image_format}
    known = _open_output(output, settings, overwrite=overwrite)
    todo = [name for name in photographs if not _is_done(source, name, known.get(name))]
    before = len(photographs) - len(todo)
    crops = name_crops(todo, known, f".{image_format}")
    outcomes = run_job(Job(source, output, str(detector), size, min_face), todo, crops, workers)
    with (output / TABLE).open("a", encoding="utf-8", errors="surrogateescape", newline="") as file:
        for done, outcome in enumerate(outcomes, start=before + 1):
            known[outcome.photograph] = outcome
            file.write(as_line(outcome.row()))
            file.flush()
            if on_progress is not None:
                on_progress(done, len(photographs))
    return _finished(source, output, AlignedFolder(list(known.values()), before))


def find_photographs(source: Path) -> list[str]:
    """Return ``PERSON/NAME`` of the photographs in ``source``, by folder, then name.

    Formats that cannot be read are among them, hidden files and other kinds of files are not.
    Raises FileNotFoundError without ``source``, ValueError without photographs.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder")
    photographs = [
        f"{p}/{name}" for p in folders_in(source) for name in _photographs_in(source / p)
    ]
    if not photographs:
        loose = len(_photographs_in(source))
        there = f"it holds {loose} itself; move them into one" if loose else "make one"
        raise ValueError(
            f"{source}: no sub-folder holds photographs ({', '.join(sorted(IMAGE_SUFFIXES))}); "
            f"{there} sub-folder a person: {source.name}/PERSON/NAME.jpg"
        )
    return photographs


def _photographs_in(folder: Path) -> list[str]:
    suffixes = IMAGE_SUFFIXES | _UNREAD_SUFFIXES
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_file()
        and not entry.name.startswith(".")
        and os.path.splitext(entry.name)[1].lower() in suffixes
    )


def name_crops(photographs: Sequence[str], known: dict[str, Outcome], suffix: str) -> list[str]:
    """Return a path for the crop of each photograph: with ``suffix``, and its own.

    Where ``a.jpg`` and ``a.png`` would share one, the later gets ``a.png.jpg``. ``known``: the
    crops there are by photograph, which keep their paths.
    """
    taken = {outcome.crop.lower() for outcome in known.values() if outcome.crop}
    crops = []
    for photograph in photographs:
        crop = known[photograph].crop if photograph in known else ""
        if not crop:
            crop = os.path.splitext(photograph)[0] + suffix
            if crop.lower() in taken:
                crop = photograph + suffix
            while crop.lower() in taken:
                crop += suffix
            taken.add(crop.lower())
        crops.append(crop)
    return crops


def _open_output(
    output: Path, settings: dict[str, object], *, overwrite: bool
) -> dict[str, Outcome]:
    """Make ``output`` ready for rows to be appended; return those that are there."""
    table, stated = output / TABLE, output / SETTINGS
    known: dict[str, Outcome] = {}
    if table.exists() and stated.exists():
        known = {outcome.photograph: outcome for outcome in read_outcomes(table)}
        before = json.loads(stated.read_text(encoding="utf-8"))
        if before != settings and not overwrite:
            differing = ", ".join(
                f"{name} {before.get(name)!r}, now {value!r}"
                for name, value in settings.items()
                if before.get(name) != value
            )
            raise ValueError(
                f"{output} was aligned with other settings ({differing}); choose another folder, "
                "or --overwrite to align anew"
            )
    elif output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty and holds no {TABLE}; choose another folder")
    if overwrite:
        for outcome in known.values():
            if outcome.crop:
                (output / outcome.crop).unlink(missing_ok=True)
        known = {}
    output.mkdir(parents=True, exist_ok=True)
    with written_beside(stated) as beside:
        beside.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    write_outcomes(table, known.values())
    return known


def _is_done(source: Path, photograph: str, outcome: Outcome | None) -> bool:
    # Also where the crop is gone: somebody removed it, or cleaning moved it out of the way.
    return outcome is not None and outcome.bytes == (source / photograph).stat().st_size


def _finished(source: Path, output: Path, done: AlignedFolder) -> AlignedFolder:
    """Write table, list of failures and contact sheet in their last form."""
    write_outcomes(output / TABLE, done.outcomes)
    listed = [outcome for outcome in done.outcomes if outcome.status != Status.ALIGNED]
    listed.sort(key=lambda outcome: (outcome.status, outcome.photograph))
    with written_beside(output / FAILURES) as beside:
        lines = [f"{o.status}\t{o.photograph}\t{o.note}\n" for o in listed]
        beside.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    write_sheet(output / SHEET, done.outcomes, source, output)
    if not any(outcome.crop for outcome in done.outcomes):
        counts = ", ".join(f"{count} {status}" for status, count in done.counts.items())
        raise ValueError(
            f"{source}: none of the {len(done.outcomes)} photographs could be aligned ({counts}); "
            f"see {output / FAILURES}"
        )
    return done
