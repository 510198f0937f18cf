"""Change training images by draws that depend on (seed, epoch, sample) alone.

Every number is drawn in a fixed order whether its change is switched on or not, so that switching
one change on leaves the draws of the others as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from arcface_plus import randomness
from arcface_plus.data.batches import auto_augment, recipes
from arcface_plus.data.settings import AugmentConfig

# Which numbers of an image are whose; those after the last that is needed are not drawn.
_OWN = 24
_POLICY = slice(_OWN, _OWN + auto_augment.DRAWS)
_RECIPE = slice(_POLICY.stop, _POLICY.stop + recipes.DRAWS)


class Draws(NamedTuple):
    """All random numbers that decide how one image is changed.

    ``uniform`` (24,), ``policy`` (5,), AutoAugment's own, and ``recipe`` (56,) in [0, 1); ``noise``
    (S, S, 3) float32 of standard normal numbers. All but the first are None where the settings need
    none. ``mirrors_only``: whether the settings ask for no more than mirroring; ``uniform`` is (1,)
    then.
    """

    uniform: np.ndarray
    policy: np.ndarray | None
    noise: np.ndarray | None
    recipe: np.ndarray | None
    mirrors_only: bool


def augmentation_draws(
    config: AugmentConfig, size: int, seed: int, epoch: int, samples: Iterable[int]
) -> Iterator[Draws]:
    """Yield the draws of each of ``samples``, images of side ``size``, in ``epoch``."""
    these = np.array([*samples], dtype=np.int64)
    uniform = randomness.augmentation_draws(seed, epoch, these, _count(config))
    return _draws(config, size, uniform)


def chosen_draws(
    config: AugmentConfig, size: int, seed: int, step: int, samples: Iterable[int], slot: int
) -> Iterator[Draws]:
    """Yield the draws of ``samples`` as images ``slot``, ``slot + 1``, … of a second pass."""
    these = np.array([*samples], dtype=np.int64)
    slots = np.arange(slot, slot + len(these))
    uniform = randomness.branch_augmentation_draws(seed, step, these, slots, _count(config))
    return _draws(config, size, uniform)


def _count(config: AugmentConfig) -> int:
    if _mirrors_only(config):
        return 1
    if config.recipe != "none":
        return _RECIPE.stop
    return _OWN if config.auto_augment == "none" else _POLICY.stop


def _mirrors_only(config: AugmentConfig) -> bool:
    changes = config.model_dump(exclude={"flip", "erase_area"})
    return all(not wanted or wanted == "none" for wanted in changes.values())


def _draws(config: AugmentConfig, size: int, uniform: np.ndarray) -> Iterator[Draws]:
    """Yield what each row of ``uniform`` (n, count) stands for; noise image by image."""
    if _mirrors_only(config):
        yield from (Draws(numbers, None, None, None, True) for numbers in uniform)
        return
    for numbers in uniform:
        noise = None
        if config.noise > 0:
            own = np.random.Generator(np.random.Philox(key=int(numbers[22] * 2**53)))
            noise = own.standard_normal((size, size, 3), dtype=np.float32)
        policy = None if config.auto_augment == "none" else numbers[_POLICY]
        recipe = None if config.recipe == "none" else numbers[_RECIPE]
        yield Draws(numbers[:_OWN], policy, noise, recipe, False)


def augment_into(place: np.ndarray, image: np.ndarray, config: AugmentConfig, draws: Draws) -> None:
    """Write the changed ``image`` (S, S, 3) uint8 to ``place``, an array of the same shape."""
    if not draws.mirrors_only:
        np.copyto(place, augment(image, config, draws))
    elif draws.uniform[0] < config.flip:
        cv2.flip(image, 1, place)  # a tenth of the time that a reversed copy takes
    else:
        np.copyto(place, image)


def augment(image: np.ndarray, config: AugmentConfig, draws: Draws) -> np.ndarray:
    """Return a changed copy of ``image`` (S, S, 3) uint8; itself where nothing changes.

    The recipe first, then geometry, AutoAugment, light, what a camera adds, and erasing.
    """
    u = draws.uniform
    if draws.mirrors_only:
        return cv2.flip(image, 1) if u[0] < config.flip else image
    if draws.recipe is not None:
        image = recipes.apply_recipe(image, config.recipe, draws.recipe)
    if config.pad_crop:
        image = _pad_and_crop(image, config.pad_crop, u[20:22])
    if u[0] < config.flip:
        image = cv2.flip(image, 1)
    if u[1] < config.affine:
        image = _affine(image, config, signed=2 * u[2:7] - 1)
    if draws.policy is not None:
        image = auto_augment.auto_augment(image, config.auto_augment, draws.policy)
    image = _light(image, config, signed=2 * u[7:10] - 1)
    if u[10] < config.blur:
        image = cv2.GaussianBlur(image, (0, 0), sigmaX=0.5 + u[11])
    if u[12] < config.low_resolution:
        image = _shrink_and_enlarge(image, fraction=0.3 + 0.6 * u[13])
    if draws.noise is not None:
        levels = draws.noise * (config.noise * u[14])
        image = np.clip(np.rint(image + levels), 0, 255).astype(np.uint8)
    if u[15] < config.erase:
        image = _erase(image, config.erase_area, u[16:20])
    return np.ascontiguousarray(image)


def _pad_and_crop(image: np.ndarray, pad: int, u: np.ndarray) -> np.ndarray:
    """Shift the image by up to ``pad`` pixels either way; what comes in from outside is black."""
    # Black, as the usual recipe pads the image itself: He et al. pad after subtracting the mean.
    side = image.shape[0]
    padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=0)
    top, left = (u * (2 * pad + 1)).astype(int)
    return padded[top : top + side, left : left + side]


def _affine(image: np.ndarray, config: AugmentConfig, signed: np.ndarray) -> np.ndarray:
    side = image.shape[0]
    angle = np.deg2rad(config.rotate * signed[0])
    scale = 1 + config.scale * signed[1]
    shift = config.shift * side * signed[2:4]
    cosine, sine = np.cos(angle) * scale, np.sin(angle) * scale
    linear = np.array([[cosine, -sine], [sine, cosine]]) @ [[1, config.shear * signed[4]], [0, 1]]
    centre = np.full(2, (side - 1) / 2)
    matrix = np.column_stack([linear, centre - linear @ centre + shift])
    # Edge pixels continue outwards: black wedges would tell the net how an image was turned.
    return cv2.warpAffine(
        image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _light(image: np.ndarray, config: AugmentConfig, signed: np.ndarray) -> np.ndarray:
    if not (config.brightness or config.contrast or config.gamma):
        return image
    # A table of 256 levels: the same change for every pixel, applied once.
    levels = np.arange(256, dtype=np.float64)
    if config.contrast:
        mean = float(image.mean())
        levels = mean + (levels - mean) * (1 + config.contrast * signed[0])
    levels = levels + 255 * config.brightness * signed[1]
    if config.gamma:
        exponent = (1 + config.gamma) ** signed[2]
        levels = 255 * np.clip(levels / 255, 0, 1) ** exponent
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)[image]


def _shrink_and_enlarge(image: np.ndarray, fraction: float) -> np.ndarray:
    side = image.shape[0]
    small = max(8, round(side * fraction))
    shrunk = cv2.resize(np.ascontiguousarray(image), (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_LINEAR)


def _erase(image: np.ndarray, area: tuple[float, float], u: np.ndarray) -> np.ndarray:
    side = image.shape[0]
    share = area[0] + (area[1] - area[0]) * u[0]
    aspect = 3.0 ** (2 * u[1] - 1)
    height = min(side, max(1, round(side * np.sqrt(share * aspect))))
    width = min(side, max(1, round(side * np.sqrt(share / aspect))))
    top, left = int(u[2] * (side - height + 1)), int(u[3] * (side - width + 1))
    image = image.copy()
    image[top : top + height, left : left + width] = 127
    return image
