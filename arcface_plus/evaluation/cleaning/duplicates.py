"""Near-duplicates: one photograph encoded anew, scaled, brightened or mirrored.

Pixels and embeddings must agree. Thumbnails of aligned faces alone take strangers for copies, for
faces of one pose and light correlate above 0.95; embeddings alone take two photographs of one
session for copies. (OpenCV's perceptual hashes are not in opencv-python, and a hash of 64 bits is
coarser than the thumbnail that it is made from.)
"""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 24  # of a thumbnail, in pixels: too small for JPEG's noise, large enough for an expression
_ENTRIES = 2**26  # of the matrix of cosines that is held at once


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return ``image`` (H, W, 3) uint8 RGB as grey (SIDE², ) float32 of mean 0 and norm 1.

    So neither brightness nor contrast counts. An image of one colour gives a constant vector.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    centred = small - small.mean()
    norm = np.linalg.norm(centred)
    if norm < SIDE:  # a standard deviation below one grey level
        return np.full(SIDE**2, 1 / SIDE, dtype=np.float32)
    return np.asarray(centred / norm)


def near_duplicates(
    unit: np.ndarray, thumbnails: np.ndarray, *, cosine: float, correlation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of rows (n, 2), first < second, and the correlation (n,) of either's pixels.

    ``unit`` (N, D): unit embeddings, at least ``cosine`` between the two. ``thumbnails`` (N, SIDE²)
    as ``thumbnail`` makes them: correlation at least ``correlation``, as they are or with one
    mirrored. Compares all pairs, N² D multiplications, a block at a time.
    """
    mirrored = thumbnails.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(thumbnails.shape)
    pairs, found = [np.empty((0, 2), dtype=np.int64)], [np.empty(0, dtype=np.float32)]
    rows = max(1, _ENTRIES // len(unit))
    for start in range(0, len(unit), rows):
        near = unit[start : start + rows] @ unit[start:].T >= cosine
        first, second = np.nonzero(np.triu(near, 1))
        first, second = first + start, second + start
        pixels = np.maximum(
            np.einsum("nd,nd->n", thumbnails[first], thumbnails[second]),
            np.einsum("nd,nd->n", thumbnails[first], mirrored[second]),
        )
        alike = pixels >= correlation
        pairs.append(np.stack([first, second], axis=1)[alike])
        found.append(pixels[alike])
    return np.concatenate(pairs), np.concatenate(found)


def choose_kept(pairs: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return for every photograph the one kept in its place (N,): itself, or the copy it is of.

    ``pairs`` (n, 2) of near-duplicates; ``order`` (N,): photographs, those to keep first. Each
    one is kept unless it is a copy of one kept before it, so copies of copies do not form chains.
    """
    copies: dict[int, list[int]] = {}
    for first, second in pairs.tolist():
        copies.setdefault(first, []).append(second)
        copies.setdefault(second, []).append(first)
    kept = np.full(len(order), -1)
    for row in order.tolist():
        if kept[row] < 0:
            kept[row] = row
            for copy in copies.get(row, ()):
                if kept[copy] < 0:
                    kept[copy] = row
    return kept
