"""Other trainers' augmentations: torchvision's operations in their order, from our draws."""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np
import pytest
from torchvision.transforms import functional as F

from arcface_plus.data.batches.augmentation import augment, augmentation_draws
from arcface_plus.data.batches.recipes import (
    DRAWS,
    apply_recipe,
    brightness,
    contrast,
    crop_box,
    saturation,
    twist_colour,
)
from arcface_plus.data.settings import AugmentConfig

NEVER = np.full(DRAWS, 0.999)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    coarse = np.random.default_rng(0).uniform(10, 240, (6, 6, 3))
    picture = cv2.resize(coarse, (40, 40), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    picture.setflags(write=False)
    return picture


def drawn(**numbers: float) -> np.ndarray:
    u = NEVER.copy()
    for place, number in numbers.items():
        u[int(place[1:])] = number
    return u


@pytest.mark.parametrize("factor", [0.5, 0.83, 1.0, 1.21, 1.5])
def test_light_and_colour_are_torchvisions(image, factor: float) -> None:
    picture = F.to_pil_image(image)
    for ours, theirs in (
        (brightness, F.adjust_brightness),
        (contrast, F.adjust_contrast),
        (saturation, F.adjust_saturation),
    ):
        want = np.asarray(theirs(picture, factor)).astype(int)
        assert np.abs(ours(image, factor).astype(int) - want).max() <= 1, ours.__name__


def test_adaface_crops_in_place_on_black(image) -> None:
    u = drawn(u0=0.1, u3=0.25, u4=0.5, u5=0.5, u6=0.2)  # area 0.4, square
    changed = apply_recipe(image, "adaface", u)
    side = round(math.sqrt(0.4 * 1600))
    top, left = int(0.5 * (40 - side + 1)), int(0.2 * (40 - side + 1))
    kept = np.zeros((40, 40), dtype=bool)
    kept[top : top + side, left : left + side] = True
    assert (changed[~kept] == 0).all() and np.array_equal(changed[kept], image[kept])


def test_crops_have_the_published_areas_and_ratios() -> None:
    rng = np.random.default_rng(1)
    boxes = np.array([crop_box(112, rng.random((10, 4))) for _ in range(4000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 112).all() and (left + width <= 112).all()
    area, ratio = height * width / 112**2, width / height
    assert area.min() < 0.22 and 0.5 < area.mean() < 0.62 and area.max() > 0.97
    assert 0.73 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.37
    assert crop_box(112, np.full((10, 4), 0.9999)) == (0, 0, 112, 112), "nothing fits: all of it"


def test_adaface_lowers_the_resolution_and_changes_light(image) -> None:
    low = apply_recipe(image, "adaface", drawn(u1=0.1, u43=0.25, u44=0.5, u45=0.7))
    small = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA)
    assert np.array_equal(low, cv2.resize(small, (40, 40), interpolation=cv2.INTER_CUBIC))
    u = drawn(u2=0.1, u46=0.9, u47=0.1, u48=0.5, u49=0.2, u50=0.6, u51=0.9)
    want = brightness(saturation(contrast(image, 1.1), 1.4), 0.7)  # in the order of the draws
    assert np.array_equal(apply_recipe(image, "adaface", u), want)


def test_arcface_torch_blurs_shrinks_and_greys(image) -> None:
    for number, window in ((0.2, 3), (0.8, 5)):
        blurred = apply_recipe(image, "arcface_torch", drawn(u2=0.1, u3=number))
        assert np.array_equal(blurred, cv2.GaussianBlur(image, (window, window), 0))
    low = apply_recipe(image, "arcface_torch", drawn(u0=0.05, u1=0.5))
    small = cv2.resize(image, (26, 26), interpolation=cv2.INTER_AREA)
    assert np.array_equal(low, cv2.resize(small, (40, 40), interpolation=cv2.INTER_LINEAR))
    grey = apply_recipe(image, "arcface_torch", drawn(u7=0.05)).astype(int)
    want = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - want[:, :, None]).max() <= 1.5
    coloured = apply_recipe(image, "arcface_torch", drawn(u4=0.1, u5=0.5, u6=0.5))
    assert np.array_equal(coloured, twist_colour(image, hue=10.0, saturation=1.1))


def test_colours_turn_and_grey_stays() -> None:
    grey = np.full((4, 4, 3), 90, dtype=np.uint8)
    assert np.abs(twist_colour(grey, hue=20, saturation=1.2).astype(int) - 90).max() <= 1
    muted = np.full((4, 4, 3), (140, 100, 90), dtype=np.uint8)
    assert np.abs(twist_colour(muted, hue=0, saturation=1).astype(int) - muted).max() <= 1
    before = colorsys.rgb_to_hsv(*(muted[0, 0] / 255))
    after = colorsys.rgb_to_hsv(*(twist_colour(muted, hue=20, saturation=1.0)[0, 0] / 255))
    turned = abs((after[0] - before[0] + 0.5) % 1 - 0.5) * 360
    assert 8 < turned < 35
    stronger = colorsys.rgb_to_hsv(*(twist_colour(muted, hue=0, saturation=1.2)[0, 0] / 255))
    assert stronger[1] > before[1] * 1.1


@pytest.mark.parametrize(
    ("recipe", "shares"), [("adaface", 1 - 0.8**3), ("arcface_torch", 1 - 0.9 * 0.8 * 0.8 * 0.9)]
)
def test_images_change_as_often_as_published_and_by_their_own_draws(image, recipe, shares) -> None:
    config = AugmentConfig(flip=0.0, recipe=recipe)

    def changed(seed: int, epoch: int, samples: range) -> list[np.ndarray]:
        return [
            augment(image, config, draws)
            for draws in augmentation_draws(config, 40, seed, epoch, samples)
        ]

    found = changed(0, 0, range(3000))
    assert np.mean([not np.array_equal(x, image) for x in found]) == pytest.approx(shares, abs=0.03)
    again = changed(0, 0, range(1000, 1010))
    assert all(np.array_equal(a, b) for a, b in zip(again, found[1000:1010], strict=True))
    for other in (changed(1, 0, range(10)), changed(0, 1, range(10))):
        assert any(not np.array_equal(a, b) for a, b in zip(other, found, strict=False))
    assert all(x.dtype == np.uint8 and x.shape == image.shape for x in found[:50])


def test_a_recipe_leaves_the_draws_of_other_changes_as_they_were(image) -> None:
    plain = AugmentConfig(flip=0.5, noise=3, auto_augment="cifar10")
    with_recipe = plain.model_copy(update={"recipe": "adaface"})
    for a, b in zip(
        augmentation_draws(plain, 40, 3, 1, range(5)),
        augmentation_draws(with_recipe, 40, 3, 1, range(5)),
        strict=True,
    ):
        assert np.array_equal(a.uniform, b.uniform) and np.array_equal(a.policy, b.policy)
        assert np.array_equal(a.noise, b.noise) and a.recipe is None and b.recipe.shape == (DRAWS,)
