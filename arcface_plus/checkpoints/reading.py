"""Which snapshots a folder has, what is wrong with one, and its state.

Nothing here trusts what it reads: sizes are bounded before a file is read, and a manifest can name
only the files that a snapshot has.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from arcface_plus.files import file_sha256

MANIFEST, STATE, METADATA = "manifest.json", "state.json", ".metadata"
TEMPORARY = ".tmp-"  # begins the names of folders that are not finished, or no longer wanted
SHARD = re.compile(r"__\d+_\d+\.distcp")
MAX_TEXT = 64 << 20  # bytes of a JSON file or of .metadata, in any run that can be
_NAME = re.compile(r"step-(\d{8,})")


def snapshot_folders(folder: Path) -> dict[int, Path]:
    """Return everything in ``folder`` that has the name of a snapshot, by ascending step."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("step-*"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def fingerprint(path: Path) -> dict[str, Any]:
    """Return the size and the hash of a file, as a manifest states them."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def damage(snapshot: Path) -> str | None:
    """Return what is wrong with the files of a snapshot, or None. Reads all of them."""
    if not (snapshot / MANIFEST).is_file():
        return f"{snapshot} is not a whole checkpoint: {MANIFEST} is missing."
    try:
        files = _manifest(snapshot)
    except ValueError as error:
        return f"{error}; resume from an older checkpoint."
    for name, expected in files.items():
        path = snapshot / name
        if not path.is_file():
            return f"checkpoint {snapshot}: {name} is missing; resume from an older checkpoint."
        # The size first: a file that has grown is not worth hashing.
        if path.stat().st_size != expected.get("bytes") or fingerprint(path) != expected:
            return (
                f"checkpoint {snapshot}: {name} is damaged (size or sha256 differ from its "
                "manifest); resume from an older checkpoint."
            )
    return None


def _manifest(snapshot: Path) -> dict[str, dict[str, Any]]:
    """Return what the manifest says of each file; raise ValueError where it is no manifest."""
    content = read_json(snapshot / MANIFEST)
    named, stated = _NAME.fullmatch(snapshot.name), content.get("step")
    if named and stated is not None and stated != int(named[1]):
        raise ValueError(
            f"checkpoint {snapshot} is of step {str(stated)[:80]}, not of its name's; remove it, "
            "or give it its name back"
        )
    files = content.get("files")
    if not isinstance(files, dict) or not {METADATA, STATE} <= files.keys():
        raise ValueError(f"checkpoint {snapshot}: {MANIFEST} lists no files of a checkpoint")
    for name, expected in files.items():
        if not (name in (METADATA, STATE) or SHARD.fullmatch(name)) or not isinstance(
            expected, dict
        ):
            raise ValueError(
                f"checkpoint {snapshot}: {MANIFEST} lists {name[:80]!r}, which no checkpoint has"
            )
    return files


def read_state(snapshot: Path) -> dict[str, Any]:
    """Return the state of a snapshot; raise ValueError where it is not what a snapshot has."""
    return read_json(snapshot / STATE)


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; raise ValueError where there is none, or a huge one."""
    try:
        content = json.loads(read_bounded(path))
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a JSON object")
    return content


def read_bounded(path: Path) -> bytes:
    """Return the content of a file; raise ValueError where it has more than ``MAX_TEXT`` bytes."""
    with path.open("rb") as file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise ValueError(f"{path} has more than {MAX_TEXT >> 20} MiB, which no checkpoint's has")
    return content
