"""Write pair sets: lists in LFW's form or by path, and insightface's ``.bin``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from arcface_plus.data.pairs.building import BuiltPairs, Image
from arcface_plus.data.pairs.lists import locate_images, read_pair_list
from arcface_plus.data.pairs.sets import save_pairs_bin
from arcface_plus.data.records.packing import encode_face
from arcface_plus.files import written_beside


def write_pair_list(path: Path, built: BuiltPairs, root: Path) -> str:
    """Write ``built`` as text, and return the form: ``lfw`` or ``path``.

    LFW's form (with folds, tabs between fields) is used where a reader finds every image by it: all
    are ``PERSON/PERSON_0001.jpg`` below ``root``, and no two of a person have one number.
    Else lines are ``PERSON/IMAGE PERSON/IMAGE 1``, which state no folds but keep their order.

    Raises ValueError for names that no list can hold (tabs, line ends, blanks at an end).
    """
    by_path = [
        f"{'/'.join(a)}\t{'/'.join(b)}\t{int(same)}"
        for (a, b), same in zip(built.pairs, built.is_same.tolist(), strict=True)
    ]
    with written_beside(path) as beside:
        for form, lines in (("lfw", _lfw_lines(built)), ("path", by_path)):
            if lines is not None:
                beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
                if _reads_back(beside, built, root):
                    return form
        raise ValueError(
            f"{path}: a list of pairs cannot hold some names of people or images: it has no "
            "place for tabs, line ends and blanks at an end; rename those files."
        )


def write_pair_bin(
    path: Path,
    built: BuiltPairs,
    root: Path,
    *,
    size: int = 112,
    quality: int = 95,
    resize: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the images of ``built`` below ``root`` in insightface's form.

    JPEGs of ``size`` × ``size`` keep their bytes, others are encoded. Raises ValueError naming the
    image that is corrupt, or of another size without ``resize``.
    """
    blobs: dict[Image, bytes] = {}
    ordered = [image for pair in built.pairs for image in pair]
    for done, image in enumerate(ordered, start=1):
        if image not in blobs:
            blobs[image], _ = encode_face(
                root / image[0] / image[1],
                size=size,
                quality=quality,
                resize=resize,
                reencode=False,
            )
        if progress is not None:
            progress(done, len(ordered))
    save_pairs_bin(path, [blobs[image] for image in ordered], built.is_same)


def _lfw_lines(built: BuiltPairs) -> list[str] | None:
    """Return lines of LFW's form, or None where some name is not NAME_0001."""
    numbers: dict[Image, int] = {}
    for person, file in {image for pair in built.pairs for image in pair}:
        stem = file.rpartition(".")[0]
        digits = stem.removeprefix(f"{person}_")
        if not (digits.isascii() and digits.isdigit()) or stem != f"{person}_{int(digits):04d}":
            return None  # other evaluators would look for NAME_0001 and find nothing
        numbers[person, file] = int(digits)
    lines = [f"{built.folds}\t{built.pairs_per_fold}"]
    for a, b in built.pairs:
        other = [] if a[0] == b[0] else [b[0]]
        lines.append("\t".join([a[0], str(numbers[a]), *other, str(numbers[b])]))
    return lines


def _reads_back(path: Path, built: BuiltPairs, root: Path) -> bool:
    try:
        listed = read_pair_list(path)
        found = locate_images(listed.images, root, source=path)
    except ValueError:
        return False
    pairs = [(found[a], found[b]) for a, b in zip(listed.index_a, listed.index_b, strict=True)]
    return pairs == [("/".join(a), "/".join(b)) for a, b in built.pairs] and bool(
        (listed.is_same == built.is_same).all()
    )
