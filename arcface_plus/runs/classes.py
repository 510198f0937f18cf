"""What the classes of a run are called: read from its data, kept in its folder."""

from __future__ import annotations

from pathlib import Path

from arcface_plus.data.sources.image_source import ImageSource

CLASSES = "classes.txt"
_FIX = "give --head.from_names FILE, one name a line, or --head.from_names labels"


def write_classes(source: ImageSource, folder: Path) -> None:
    """Write the names of the classes into ``folder``, one a line, where the data has names."""
    names = source.names()
    if names is not None and not any("\n" in name for name in names):
        (folder / CLASSES).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def names_of_head(folder: Path, given: str | None, count: int) -> list[str]:
    """Return what the ``count`` classes of the head in ``folder`` are called.

    ``given``: a file of names, or the word labels, by which class c is called c; None takes those
    that the run in ``folder`` left. Raises ValueError where there are none, or not ``count``
    different ones, FileNotFoundError for a file that is not there.
    """
    if given == "labels":
        return [str(label) for label in range(count)]
    path = folder / CLASSES if given is None else Path(given)
    if given is None and not path.is_file():
        raise ValueError(f"{folder} does not say what its people are called: {_FIX}")
    try:
        names = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file ({error}); {_FIX}") from error
    if len(names) != count:
        raise ValueError(f"{path} has {len(names)} names, but the head has {count} classes; {_FIX}")
    if len(set(names)) != count:
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path} names {twice!r} more than once; every class needs its own name")
    return names


def names_of_data(source: ImageSource, given: str | None) -> list[str]:
    """Return what the classes of ``source`` are called; ValueError where the data does not say."""
    if given == "labels":
        return [str(label) for label in range(source.num_classes)]
    names = source.names()
    if names is None:
        raise ValueError(
            "head.from_head keeps people by name, but the training data has no names (records have "
            "them in the .lst beside them, which data pack writes); if class c is the same person "
            "there and here, give --head.from_names labels"
        )
    return names
