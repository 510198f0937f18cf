"""Augmentations that other face trainers publish, by name, with their settings.

``adaface``: Kim et al., CVPR 2022, as its code has it: a crop left in its place on black, low
resolution, and light and colour, each with probability 0.2. ``arcface_torch``: what insightface's
trainer does under ``dali_aug``: low resolution 0.1, blur 0.2, hue and saturation 0.2, grey 0.1.
Mirroring is a setting of its own. Images are (S, S, 3) uint8 RGB; ``u``: numbers in [0, 1).
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

Recipe = Literal["none", "adaface", "arcface_torch"]
DRAWS = 56
_TRIES = 10  # at a crop, as torchvision's RandomResizedCrop
_INTERPOLATIONS = (
    cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4,
)  # fmt: skip
# Colour as NVIDIA's DALI turns it: brightness apart from two numbers of colour.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.321], [0.211, -0.523, 0.311]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def apply_recipe(image: np.ndarray, recipe: Recipe, u: np.ndarray) -> np.ndarray:
    """Return ``image`` changed as ``recipe`` says by ``u`` (DRAWS,)."""
    return _adaface(image, u) if recipe == "adaface" else _arcface_torch(image, u)


def _adaface(image: np.ndarray, u: np.ndarray) -> np.ndarray:
    side = image.shape[0]
    if u[0] < 0.2:
        top, left, height, width = crop_box(side, u[3 : 3 + 4 * _TRIES].reshape(_TRIES, 4))
        kept = (slice(top, top + height), slice(left, left + width))
        whole, image = image, np.zeros_like(image)
        image[kept] = whole[kept]
    if u[1] < 0.2:
        small = int((0.2 + 0.8 * u[43]) * side)
        shrink, enlarge = (_INTERPOLATIONS[int(5 * number)] for number in u[44:46])
        shrunk = cv2.resize(image, (small, small), interpolation=shrink)
        image = cv2.resize(shrunk, (side, side), interpolation=enlarge)
    if u[2] < 0.2:
        changes = (brightness, contrast, saturation)
        for index in np.argsort(u[46:49]):
            image = changes[index](image, 0.5 + u[49 + index])
    return image


def crop_box(side: int, u: np.ndarray) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a part of a square.

    0.2 to 1 of its area, width 3/4 to 4/3 of the height; the first of ``u`` (tries, 4) that fits,
    or all of it.
    """
    for area, ratio, down, right in u:
        pixels = side * side * (0.2 + 0.8 * area)
        aspect = (4 / 3) ** (2 * ratio - 1)
        width, height = round(np.sqrt(pixels * aspect)), round(np.sqrt(pixels / aspect))
        if 0 < width <= side and 0 < height <= side:
            return int(down * (side - height + 1)), int(right * (side - width + 1)), height, width
    return 0, 0, side, side


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Return the image at ``factor`` of its levels, as Pillow has it."""
    return _blend(np.zeros_like(image), image, factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Return the image with ``factor`` of its differences from its mean grey, as Pillow has it."""
    grey = np.full_like(image, int(_grey(image).mean() + 0.5))
    return _blend(grey, image, factor)


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Return the image with ``factor`` of its differences from grey, as Pillow has it."""
    grey = np.repeat(_grey(image)[:, :, None], 3, axis=2)
    return _blend(grey, image, factor)


def _grey(image: np.ndarray) -> np.ndarray:
    weighted = image.astype(np.int64) @ np.array([19595, 38470, 7471])
    return ((weighted + 0x8000) >> 16).astype(np.uint8)


def _blend(start: np.ndarray, end: np.ndarray, factor: float) -> np.ndarray:
    first = start.astype(np.float32)
    levels = first + np.float32(factor) * (end.astype(np.float32) - first)
    return np.clip(levels, 0, 255).astype(np.uint8)  # cut off, as Pillow does


def _arcface_torch(image: np.ndarray, u: np.ndarray) -> np.ndarray:
    side = image.shape[0]
    if u[0] < 0.1:
        small = round((0.5 + 0.3 * u[1]) * side)
        # DALI's linear filter is as wide as the shrinking asks for; so is OpenCV's area.
        shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_LINEAR)
    if u[2] < 0.2:
        window = 3 if u[3] < 0.5 else 5
        image = cv2.GaussianBlur(image, (window, window), 0)
    if u[4] < 0.2:
        image = twist_colour(image, hue=20 * u[5], saturation=1 + 0.2 * u[6])
    if u[7] < 0.1:
        image = twist_colour(image, hue=0.0, saturation=0.0)
    return image


def twist_colour(image: np.ndarray, *, hue: float, saturation: float) -> np.ndarray:
    """Return the image with its colours turned by ``hue`` degrees and ``saturation`` times as far
    from grey.
    """
    angle = np.deg2rad(hue)
    cosine, sine = saturation * np.cos(angle), saturation * np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]])
    return cv2.transform(image, _FROM_YIQ @ turn @ _TO_YIQ)
