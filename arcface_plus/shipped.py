"""The configurations that come with the package, by name.

A name is the path below ``configs/`` without its ending: ``quickstart``, ``margins/cosface``. In
the source tree ``arcface_plus/configs`` is a link to ``configs/``; a wheel has the files there.
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from arcface_plus.files import written_beside

FOLDER = Path(__file__).resolve().with_name("configs")
_BASE = re.compile(r"^base: *(\S+)", re.MULTILINE)


def names() -> list[str]:
    """Return the name of every shipped configuration, those of ``configs/`` itself first."""
    found = [p.relative_to(FOLDER).with_suffix("").as_posix() for p in FOLDER.rglob("*.yaml")]
    return sorted(found, key=lambda name: (name.count("/"), name))


def shipped_path(name: str) -> Path:
    """Return the file of the shipped configuration ``name``.

    Raises FileNotFoundError that lists similar names.
    """
    known = names()
    if name in known:
        return FOLDER / f"{name}.yaml"
    word = name.removeprefix("configs/").removesuffix(".yaml")
    ends = {other: other.rpartition("/")[2] for other in known}
    near = [other for other, end in ends.items() if word in (other, end)]
    close = difflib.get_close_matches(word, known, n=4)
    close += [n for n, end in ends.items() if end in difflib.get_close_matches(word, ends.values())]
    listed = ", ".join(dict.fromkeys(near or close))
    hint = f"shipped ones with a similar name are {listed}" if listed else "no name is similar"
    raise FileNotFoundError(
        f"configuration {name} does not exist; {hint} (arcface-plus configs lists all)."
    )


def find_config(path: Path) -> Path:
    """Return ``path`` where it is a file, else the shipped configuration of that name.

    Raises FileNotFoundError that lists similar names.
    """
    return path if path.is_file() else shipped_path(path.as_posix())


def headline(name: str) -> str:
    """Return the first sentence of the comment at the head of a shipped configuration."""
    lines = []
    for line in shipped_path(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        lines.append(line[2:])
    return re.split(r"(?<=\.)\s", " ".join(lines), maxsplit=1)[0]


def copy_config(name: str, path: Path) -> None:
    """Write the shipped configuration ``name`` to ``path``; its base is named as a shipped one.

    Raises FileNotFoundError for an unknown name, ValueError where ``path`` exists.
    """
    source = shipped_path(name)
    if path.exists():
        raise ValueError(f"{path} exists; choose another place, or remove it.")

    def by_name(base: re.Match[str]) -> str:
        below = os.path.relpath((source.parent / base.group(1)).resolve(), FOLDER.resolve())
        return f"base: {below.removesuffix('.yaml')}"

    text = _BASE.sub(by_name, source.read_text(encoding="utf-8"))
    with written_beside(path) as beside:
        beside.write_text(text, encoding="utf-8")
