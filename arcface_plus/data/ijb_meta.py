"""The lists of IJB-B and IJB-C as the evaluators of insightface ship them.

Files of a target (``IJBC``: prefix ``ijbc``) in one folder:

- ``ijbc_face_tid_mid.txt``: image, template id, medium id;
- ``ijbc_name_5pts_score.txt``: image, x y of five landmarks, the detector's score;
- ``ijbc_template_pair_label.txt``: template, template, 1 for one person or 0;
- ``ijbc_1N_gallery_G1.csv``, ``…_G2.csv`` (IJB-B: ``S1``, ``S2``), ``ijbc_1N_probe_mixed.csv``:
  TEMPLATE_ID, SUBJECT_ID and more, after a line of headings.
"""

from __future__ import annotations

import csv
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

GALLERIES = {"IJBB": ("S1", "S2"), "IJBC": ("G1", "G2")}
_LANDMARK_WORDS = 12


@dataclass(frozen=True)
class IjbFaces:
    """Hold the N images of a target in the order of its lists.

    ``names``; ``templates``, ``media`` (N,) int64; ``landmarks`` (N, 5, 2) and ``detector_scores``
    (N,) float64.
    """

    names: list[str]
    templates: np.ndarray
    media: np.ndarray
    landmarks: np.ndarray
    detector_scores: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class TemplatePairs:
    """Hold P pairs as rows of the sorted template ids: (P,) int32 each; ``is_same`` (P,) bool."""

    rows_a: np.ndarray
    rows_b: np.ndarray
    is_same: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.is_same)


class Subjects(NamedTuple):
    """Hold T templates of a gallery or of probes, sorted by id, and who they show; (T,) int64."""

    templates: np.ndarray
    subjects: np.ndarray
    source: str


def meta_file(folder: str | Path, target: str, rest: str) -> Path:
    """Return the path of a list, as ``ijbc_face_tid_mid.txt`` for ``face_tid_mid.txt``.

    Raises ValueError for an unknown target, FileNotFoundError naming what the folder lacks.
    """
    if target not in GALLERIES:
        raise ValueError(f"The target is {target!r}, but must be one of {', '.join(GALLERIES)}.")
    path = Path(folder) / f"{target.lower()}_{rest}"
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}: the lists of {target} (its meta folder) must hold {path.name}."
        )
    return path


def read_faces(folder: str | Path, target: str) -> IjbFaces:
    """Read which image belongs to which template and medium, its landmarks and score.

    Raises ValueError naming file and line for a malformed record, a score or landmark that is not
    finite, a negative score, and where the two lists do not name the same images in order.
    """
    face_path = meta_file(folder, target, "face_tid_mid.txt")
    point_path = meta_file(folder, target, "name_5pts_score.txt")
    faces = [
        (words[0], [_whole(word, where) for word in words[1:]])
        for where, words in _records(face_path, 3)
    ]
    names = [name for name, _ in faces]
    numbers: list[list[float]] = []
    expected = iter(names)
    for where, words in _records(point_path, _LANDMARK_WORDS):
        if words[0] != (name := next(expected, words[0])):  # what is too many is counted below
            raise ValueError(
                f"{where} names the image {words[0]}, but record {len(numbers) + 1} of {face_path} "
                f"names {name}; both must list the same images in one order."
            )
        numbers.append([_number(word, where) for word in words[1:]])
        if numbers[-1][-1] < 0:
            raise ValueError(f"{where}: the detector's score is {words[-1]}, below 0.")
    if len(numbers) != len(names) or not names:
        raise ValueError(
            f"{face_path} lists {len(names)} images and {point_path} {len(numbers)}; both must "
            "list the same images, at least one."
        )
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise ValueError(f"{face_path} lists the image {twice} more than once.")
    table = np.array([ids for _, ids in faces], dtype=np.int64)
    points = np.array(numbers)
    return IjbFaces(
        names=names,
        templates=table[:, 0].copy(),
        media=table[:, 1].copy(),
        landmarks=points[:, :-1].reshape(-1, 5, 2),
        detector_scores=points[:, -1].copy(),
        source=str(face_path),
    )


def read_template_pairs(folder: str | Path, target: str, known: np.ndarray) -> TemplatePairs:
    """Read the 1:1 pairs; ``known`` (T,) are the sorted ids of templates with images.

    Raises ValueError naming file and line for a malformed record, a label other than 0 and 1, and a
    template without images.
    """
    path = meta_file(folder, target, "template_pair_label.txt")
    table = read_integers(path, 3)
    if not len(table):
        raise ValueError(f"{path} holds no pairs.")
    odd = np.flatnonzero((table[:, 2] != 0) & (table[:, 2] != 1))
    if odd.size:
        raise ValueError(
            f"{path}, line {_line_of(path, odd[0])}: the label is {table[odd[0], 2]}, but must be "
            "1 (one person) or 0."
        )
    rows = [_rows_of(table[:, column], known, path) for column in (0, 1)]
    return TemplatePairs(rows[0], rows[1], table[:, 2] == 1, str(path))


def read_integers(path: Path, columns: int) -> np.ndarray:
    """Return the whole numbers (n, ``columns``) int64 of a text file, a record a line.

    Raises ValueError naming file and line where a line does not hold ``columns`` of them.
    """
    # Warnings: a file without numbers, and from NumPy before 2.1, which reads on, 1.5 taken for 1.
    with suppress(ValueError, Warning), warnings.catch_warnings(action="error"):
        table = np.loadtxt(path, dtype=np.int64, comments=None, ndmin=2, encoding="utf-8")
        if table.shape[1] == columns:
            return table
    # Line by line is slower, but names the line that does not fit.
    rows = [[_whole(word, where) for word in words] for where, words in _records(path, columns)]
    return np.array(rows, dtype=np.int64).reshape(-1, columns)


def read_subjects(path: str | Path, known: np.ndarray | None = None) -> Subjects:
    """Read a gallery or the probes: each template once, with its subject.

    ``known``: sorted ids of templates with images. Raises ValueError naming file and line for
    missing columns, ids that are no whole numbers, a template of two subjects or without images.
    """
    found: dict[int, int] = {}
    with Path(path).open(encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
        reader = csv.reader(file)
        headings = [word.strip().upper() for word in next(reader, [])]
        if headings[:2] != ["TEMPLATE_ID", "SUBJECT_ID"]:
            raise ValueError(
                f"{path}: its first line must begin TEMPLATE_ID,SUBJECT_ID, but begins "
                f"{','.join(headings[:2])!r}."
            )
        for words in reader:
            where = f"{path}, line {reader.line_num}"
            if len(words) < 2:
                raise ValueError(f"{where}: a template and a subject are expected.")
            template, subject = _whole(words[0], where), _whole(words[1], where)
            if found.setdefault(template, subject) != subject:
                raise ValueError(
                    f"{where}: template {template} is of subject {subject}, but of "
                    f"{found[template]} in an earlier line."
                )
    if not found:
        raise ValueError(f"{path} lists no template.")
    templates = np.array(sorted(found), dtype=np.int64)
    if known is not None:
        absent = templates[~np.isin(templates, known)]
        if absent.size:
            raise ValueError(
                f"{path}: {absent.size} of its {len(templates)} templates have no image, such as "
                f"{absent[0]}."
            )
    return Subjects(templates, np.array([found[t] for t in templates.tolist()]), str(path))


def _rows_of(ids: np.ndarray, known: np.ndarray, path: Path) -> np.ndarray:
    rows = np.searchsorted(known, ids).astype(np.int32)
    absent = np.flatnonzero(known[np.minimum(rows, len(known) - 1)] != ids)
    if absent.size:
        raise ValueError(
            f"{path}, line {_line_of(path, absent[0])}: template {ids[absent[0]]} has no image in "
            "the list of images."
        )
    return rows


def _line_of(path: Path, record: int) -> int:
    """Return the line of a record, counted from 0; empty lines are none."""
    return next(islice(_filled_lines(path), int(record), None))[0]


def _records(path: Path, words: int) -> Iterator[tuple[str, list[str]]]:
    for number, line in _filled_lines(path):
        found = line.split()
        where = f"{path}, line {number}"
        if len(found) != words:
            raise ValueError(
                f"{where}: {words} words are expected, but it has {len(found)}: "
                f"{line.strip()[:80]!r}."
            )
        yield where, found


def _filled_lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8", errors="backslashreplace") as file:
        yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())


def _whole(word: str, where: str) -> int:
    text = word.strip()
    if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 19):
        raise ValueError(f"{where}: {word[:40]!r} is no whole number.")
    return int(text)


def _number(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ValueError(f"{where}: {word[:40]!r} is no finite number.")
    return value
