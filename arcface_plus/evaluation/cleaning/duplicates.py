"""Near-duplicates: one photograph encoded anew, scaled, brightened or mirrored.

Pixels and embeddings must agree. Thumbnails of aligned faces alone take strangers for copies, for
faces of one pose and light correlate above 0.95; embeddings alone take two photographs of one
session for copies, and miss small coarse ones. (OpenCV's perceptual hashes are not in
opencv-python, and a hash of 64 bits is coarser than the thumbnail that it is made from.)
"""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 24  # of a thumbnail, in pixels: too small for JPEG's noise, large enough for an expression
_DARK, _BRIGHT = 12, 243  # grey levels beyond which a change of exposure may have cut
_BLACK, _FRAMED = 2, 0.05  # a larger share of black is the frame of a tightly cut photograph
_CUT = 0.1  # what cut pixels may take from a correlation
_ENTRIES = 2**26  # of the matrix of cosines that is held at once
_PAIRS = 2**14  # whose pixels are compared at once


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return ``image`` (H, W, 3) uint8 RGB as grey levels (SIDE²,) uint8."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small).ravel()


def near_duplicates(
    unit: np.ndarray, thumbnails: np.ndarray, *, cosine: float, correlation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of rows (n, 2), first < second, and the correlation (n,) of either's pixels.

    ``unit`` (N, D): unit embeddings, at least ``cosine`` between the two. ``thumbnails`` (N, SIDE²)
    as ``thumbnail`` makes them: their correlation, which neither brightness nor contrast moves, is
    at least ``correlation``, as they are or with one mirrored, over all pixels or those that no
    exposure cut; the latter alone where a black frame around a face would pass for likeness.
    Compares all pairs, N² D multiplications, a block at a time.
    """
    even, even_mirrored = _evened(thumbnails), _evened(_mirrored(thumbnails))
    framed = (thumbnails <= _BLACK).mean(axis=1) > _FRAMED
    thumbnails = _unframed(thumbnails, framed)
    mirrored = _mirrored(thumbnails)
    pairs, found = [np.empty((0, 2), dtype=np.int64)], [np.empty(0)]
    rows = max(1, _ENTRIES // len(unit))
    for start in range(0, len(unit), rows):
        near = unit[start : start + rows] @ unit[start:].T >= cosine
        candidates = np.argwhere(np.triu(near, 1)) + start
        for part in range(0, len(candidates), _PAIRS):
            first, second = candidates[part : part + _PAIRS].T
            whole = np.maximum(
                np.einsum("nd,nd->n", even[first], even[second]),
                np.einsum("nd,nd->n", even[first], even_mirrored[second]),
            )
            close = whole >= correlation - _CUT  # few are left for what takes longer
            first, second = first[close], second[close]
            uncut = np.maximum(
                _uncut_correlation(thumbnails[first], thumbnails[second]),
                _uncut_correlation(thumbnails[first], mirrored[second]),
            )
            pixels = np.maximum(np.where(framed[first] | framed[second], -1, whole[close]), uncut)
            alike = pixels >= correlation
            pairs.append(np.stack([first, second], axis=1)[alike])
            found.append(pixels[alike])
    return np.concatenate(pairs), np.concatenate(found)


def _mirrored(thumbnails: np.ndarray) -> np.ndarray:
    return thumbnails.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(thumbnails.shape)


def _unframed(thumbnails: np.ndarray, framed: np.ndarray) -> np.ndarray:
    """Return ``thumbnails`` with the pixels beside the black ones black too, where ``framed``.

    They are means of frame and face, and black ones are left out of a correlation.
    """
    cut = thumbnails.copy()
    for row in np.flatnonzero(framed):
        black = (cut[row].reshape(SIDE, SIDE) <= _BLACK).astype(np.uint8)
        cut[row][cv2.dilate(black, np.ones((3, 3), np.uint8)).ravel() > 0] = 0
    return cut


def _evened(thumbnails: np.ndarray) -> np.ndarray:
    """Return grey levels (N, d) with mean 0 and norm 1; those of one colour are all the same."""
    grey = thumbnails.astype(np.float32)
    grey -= grey.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(grey, axis=1, keepdims=True)
    return np.asarray(np.where(norm > 0, grey / np.maximum(norm, 1e-6), 1 / SIDE))


def _uncut_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlation (n,) of grey levels (n, d) over what no exposure cut in either.

    A face that was made much brighter is white in places. −1 where less than a quarter is left.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    uncut = ((np.minimum(a, b) > _DARK) & (np.maximum(a, b) < _BRIGHT)).astype(np.float32)
    count = np.maximum(uncut.sum(axis=1, keepdims=True), 1)
    a = (a - (a * uncut).sum(axis=1, keepdims=True) / count) * uncut
    b = (b - (b * uncut).sum(axis=1, keepdims=True) / count) * uncut
    variances = np.square(a).sum(axis=1) * np.square(b).sum(axis=1)
    correlation = (a * b).sum(axis=1) / np.sqrt(np.maximum(variances, 1e-6))
    return np.where(count[:, 0] >= first.shape[1] / 4, correlation, -1)


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
