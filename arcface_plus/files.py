"""Files that appear whole or not at all, logs cut to a step, and hashes of files."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_beside(path: str | Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; afterwards the file there is renamed to ``path``.

    Readers see the old content or the whole new one, also after a crash: the file is synced before
    it is renamed. Where the block raises, ``path`` stays as it was and nothing is left beside it.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield beside
        sync(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def keep_steps(path: Path, wanted: Callable[[int], bool]) -> list[dict[str, Any]]:
    """Drop the lines of a JSON-lines file whose ``step`` is not ``wanted``; return the others.

    So a resumed run forgets what it wrote after the step it is resumed from, and the last line of a
    run that was killed while writing it. No file is an empty one.
    """
    if not path.is_file():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            if wanted(entry["step"]):
                kept.append((line, entry))
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    with written_beside(path) as beside:
        beside.write_text("".join(line + "\n" for line, _ in kept), encoding="utf-8")
    return [entry for _, entry in kept]


def sync(path: Path) -> None:
    """Make a file, or the entries of a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
