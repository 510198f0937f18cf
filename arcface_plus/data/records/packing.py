"""Turn a folder of face images (one sub-folder a person) into a ``.rec``, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from arcface_plus.data.faces.crops import align_image
from arcface_plus.data.faces.face import FaceDetector
from arcface_plus.data.folder import IMAGE_SUFFIXES, folders_in, images_in
from arcface_plus.data.image_headers import image_format, image_size
from arcface_plus.data.images import decode_image, encode_jpeg, read_image_bytes, resized
from arcface_plus.data.records.reader import RecordReader, RecordWriter

EXTENSIONS = {"jpeg": ".jpg", "png": ".png", "bmp": ".bmp", "pnm": ".pgm"}
_IMAGES_AT_ONCE = 256

Progress = Callable[[int, int], None]
Encoded = tuple[bytes, bool] | ValueError


class PackSummary(NamedTuple):
    """Count what was packed; ``rejected`` lists the errors of images left out."""

    path: Path
    people: int
    images: int
    kept: int
    rejected: list[str]


def pack_folder(
    source: Path,
    output: Path,
    *,
    size: int = 112,
    quality: int = 95,
    resize: bool = False,
    detector: FaceDetector | None = None,
    reencode: bool = False,
    on_error: str = "stop",
    overwrite: bool = False,
    threads: int = 4,
    on_progress: Progress | None = None,
) -> PackSummary:
    """Write the images below ``source`` to ``output`` in InsightFace's layout; return the counts.

    Sub-folders, sorted by name, are people 0, 1, …; a ``.lst`` file beside the records notes key,
    label and file of each image. JPEGs of ``size`` × ``size`` keep their bytes unless
    ``reencode``; other formats become JPEG of ``quality``. Images of another size are errors
    unless ``resize``. With a ``detector`` they are photographs: the aligned face is packed, and
    none is an error. ``on_error="skip"`` leaves bad images out; a person without any image left
    gets no label. Raises ValueError naming the file.
    """
    _check_options(size, on_error, threads)
    output = output if output.suffix == ".rec" else output / "train.rec"
    listing_path = output.with_suffix(".lst")
    if listing_path.exists() and not overwrite:
        raise ValueError(f"{listing_path} exists; choose another place, or overwrite")
    files = list_faces(source)

    change = partial(encode_face, size=size, quality=quality, resize=resize, reencode=reencode)
    encode = partial(change, detector=detector)
    with (
        RecordWriter(output, image_size=(size, size), overwrite=overwrite) as writer,
        ThreadPoolExecutor(threads) as pool,
    ):
        encoded = _encoded(pool, encode, source, files, on_error == "stop", on_progress)
        listing, people, kept, rejected = _write_faces(writer, encoded)
        if not listing:
            raise ValueError(
                f"{source}: none of the {len(files)} images could be packed: {rejected[0]}"
            )
    listing_path.write_text("".join(listing), encoding="utf-8")
    return PackSummary(output, people, len(listing), kept, rejected)


def _check_options(size: int, on_error: str, threads: int) -> None:
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error={on_error!r} is unknown; use 'stop' or 'skip'")
    if size < 1 or threads < 1:
        raise ValueError(f"size={size} and threads={threads} must be at least 1")


def _encoded(
    pool: ThreadPoolExecutor,
    encode: Callable[[Path], tuple[bytes, bool]],
    source: Path,
    files: list[str],
    stop: bool,
    on_progress: Progress | None,
) -> Iterator[tuple[str, Encoded]]:
    """Yield each file, in order, and its bytes or why there are none."""

    def attempt(file: str) -> Encoded:
        try:
            return encode(source / file)
        except ValueError as error:
            if stop:
                raise
            return error

    # In blocks: a bounded number of results is in memory at once.
    blocks = (files[i : i + _IMAGES_AT_ONCE] for i in range(0, len(files), _IMAGES_AT_ONCE))
    results = chain.from_iterable(pool.map(attempt, block) for block in blocks)
    for done, (file, result) in enumerate(zip(files, results, strict=True), start=1):
        yield file, result
        if on_progress is not None:
            on_progress(done, len(files))


def _write_faces(
    writer: RecordWriter, encoded: Iterable[tuple[str, Encoded]]
) -> tuple[list[str], int, int, list[str]]:
    """Write images under their people's labels.

    Return the lines of the listing, the number of people, how many images kept their own bytes,
    and why the others are left out.
    """
    labels: dict[str, int] = {}
    listing: list[str] = []
    rejected: list[str] = []
    kept = 0
    for file, result in encoded:
        if isinstance(result, ValueError):
            rejected.append(str(result))
            continue
        label = labels.setdefault(file.partition("/")[0], len(labels))
        key = writer.write(result[0], label)
        kept += result[1]
        listing.append(f"{key}\t{label}\t{file}\n")
    return listing, len(labels), kept, rejected


def list_faces(source: Path) -> list[str]:
    """Return ``PERSON/IMAGE`` of the images below ``source``, by folder name, then file name."""
    if not source.is_dir():
        raise FileNotFoundError(f"{source}: no such folder")
    files = [f"{p}/{name}" for p in folders_in(source) for name in images_in(source / p)]
    if not files:
        raise ValueError(
            f"{source}: no sub-folder holds images ({', '.join(sorted(IMAGE_SUFFIXES))}); "
            "one sub-folder a person is expected"
        )
    return files


def encode_face(
    path: Path,
    *,
    size: int,
    quality: int,
    resize: bool,
    reencode: bool,
    detector: FaceDetector | None = None,
) -> tuple[bytes, bool]:
    """Return the bytes to store for one image file, and whether they are the file's own.

    Every image is decoded, so that no corrupt file gets into a data set.
    """
    data = read_image_bytes(path)
    pixels = decode_image(data, where=str(path))
    if detector is not None:
        crop = align_image(pixels, detector, size=size, where=str(path)).crop
        return encode_jpeg(crop, quality), False
    height, width = pixels.shape[:2]
    if (height, width) != (size, size):
        if not resize:
            raise ValueError(
                f"{path}: {width}×{height} pixels, but records of {size}×{size} are written; "
                "align the faces first (arcface-plus data align, or --align), or allow resizing"
            )
        pixels = resized(pixels, size)
    elif image_format(data) == "jpeg" and image_size(data) == (height, width) and not reencode:
        return data, True
    return encode_jpeg(pixels, quality), False


def unpack_records(
    reader: RecordReader,
    output: Path,
    *,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> int:
    """Write each image, bytes unchanged, to ``output/<label>/<key>.<ext>``; return the count.

    Labels and keys are zero-padded, so that sorted folder names keep the labels' order. An
    existing, non-empty folder is refused unless ``overwrite``.
    """
    if output.exists() and not overwrite and any(output.iterdir()):
        raise ValueError(f"{output}: the folder is not empty; choose another one, or overwrite")
    labels = reader.labels
    label_digits = len(str(labels.max(initial=0)))
    key_digits = len(str(np.max(reader.keys, initial=0)))
    for position, record in enumerate(reader):
        folder = output / f"{labels[position]:0{label_digits}d}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            extension = EXTENSIONS[image_format(record.data)]
        except ValueError as error:
            raise ValueError(f"{reader.path}: record {record.key}: {error}") from error
        (folder / f"{record.key:0{key_digits}d}{extension}").write_bytes(record.data)
        if on_progress is not None:
            on_progress(position + 1, len(reader))
    return len(reader)
