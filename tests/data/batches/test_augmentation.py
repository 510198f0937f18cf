"""Each change of an image, and that it depends on its own draw alone."""

from __future__ import annotations

import hashlib
import random

import cv2
import numpy as np
import pytest
import torch

from arcface_plus.data.batches.augmentation import (
    augment,
    augment_into,
    augmentation_draws,
    chosen_draws,
)
from arcface_plus.data.batches.auto_augment import auto_augment
from arcface_plus.data.settings import AugmentConfig
from arcface_plus.randomness import augmentation_draws as numbers_of
from arcface_plus.randomness import branch_augmentation_draws

EVERYTHING = AugmentConfig(
    pad_crop=4,
    flip=0.5,
    auto_augment="imagenet",
    affine=0.8,
    rotate=15,
    scale=0.1,
    shift=0.1,
    shear=0.1,
    brightness=0.2,
    contrast=0.3,
    gamma=0.3,
    blur=0.5,
    noise=5,
    low_resolution=0.5,
    erase=0.5,
)
ALWAYS = {"rotate": 15, "scale": 0.1, "shift": 0.1, "shear": 0.1}


def options(**changes) -> AugmentConfig:
    return AugmentConfig(**{"flip": 0.0, **changes})


def draw(image, config, sample=0, seed=0, epoch=0):
    return augment(image, config, next(draws_of(len(image), config, [sample], seed, epoch)))


def draws_of(size, config, samples, seed=0, epoch=0):
    return augmentation_draws(config, size, seed, epoch, samples)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """A smooth picture without any symmetry, levels 30 to 220."""
    coarse = np.random.default_rng(0).uniform(30, 220, (6, 6, 3))
    smooth = cv2.resize(coarse, (112, 112), interpolation=cv2.INTER_LINEAR)
    smooth = smooth.astype(np.uint8)
    smooth.setflags(write=False)  # whoever changes it in place fails
    return smooth


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    return np.full((112, 112, 3), 100, dtype=np.uint8)


# -- draws ---------------------------------------------------------------------------------------


def test_same_key_same_image(image):
    for sample in range(20):
        once, again = draw(image, EVERYTHING, sample), draw(image, EVERYTHING, sample)
        np.testing.assert_array_equal(once, again)


def test_a_batch_has_the_draws_of_its_samples(image):
    """However samples are put together; a second pass has draws of its own, by slot."""
    for drawn, sample in zip(draws_of(8, EVERYTHING, [5, 2, 9]), [5, 2, 9], strict=True):
        (alone,) = draws_of(8, EVERYTHING, [sample])
        for one, other in zip(drawn, alone, strict=True):
            np.testing.assert_array_equal(one, other)
    slots = list(chosen_draws(EVERYTHING, 8, 0, 0, [5, 5], 3))
    (again,) = chosen_draws(EVERYTHING, 8, 0, 0, [5], 4)
    (first,) = branch_augmentation_draws(0, 0, np.array([5]), np.array([3]), 24)
    np.testing.assert_array_equal(slots[0].uniform, first)
    np.testing.assert_array_equal(slots[1].noise, again.noise)
    assert not np.array_equal(slots[0].uniform, slots[1].uniform)


def test_order_of_calls_does_not_matter(image):
    forwards = [draw(image, EVERYTHING, s) for s in range(12)]
    backwards = [draw(image, EVERYTHING, s) for s in reversed(range(12))][::-1]
    np.testing.assert_array_equal(forwards, backwards)


def test_every_part_of_the_key_matters(image):
    seen = {
        draw(image, EVERYTHING, sample, seed, epoch).tobytes()
        for sample in (0, 1)
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(seen) == 8


def test_global_generators_are_left_alone(image):
    def states() -> str:
        numpy_state = np.random.get_state()  # noqa: NPY002
        return repr((random.getstate(), numpy_state, torch.get_rng_state().tolist()))

    before = states()
    draw(image, EVERYTHING)
    assert states() == before


def test_threads_of_opencv_do_not_change_a_pixel(image):
    usual = cv2.getNumThreads()
    many = [draw(image, EVERYTHING, s) for s in range(30)]
    try:
        cv2.setNumThreads(0)
        one = [draw(image, EVERYTHING, s) for s in range(30)]
    finally:
        cv2.setNumThreads(usual)
    np.testing.assert_array_equal(many, one)


@pytest.mark.parametrize("size", [16, 32, 112, 160])
def test_shape_and_type_stay(size):
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    for sample in range(40):
        changed = draw(image, EVERYTHING, sample)
        assert changed.shape == image.shape and changed.dtype == np.uint8
        assert changed.flags.c_contiguous


@pytest.mark.parametrize(
    "change",
    [
        {"pad_crop": 8},
        {"flip": 1.0},
        {"auto_augment": "imagenet"},
        {"affine": 1.0, **ALWAYS},
        {"brightness": 0.3},
        {"contrast": 0.3},
        {"gamma": 0.5},
        {"blur": 1.0},
        {"noise": 8},
        {"low_resolution": 1.0},
        {"erase": 1.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_change_changes_and_leaves_the_original(image, change):
    before = image.copy()
    assert not np.array_equal(draw(image, options(**change), 1), image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("config", [options(), options(flip=0.5), options(flip=1.0), EVERYTHING])
def test_written_in_place_is_the_same(image, config):
    batch = np.full((3, *image.shape), 7, dtype=np.uint8)
    for sample in range(20):
        (draws,) = draws_of(len(image), config, [sample])
        augment_into(batch[1], image, config, draws)
        np.testing.assert_array_equal(batch[1], augment(image, config, draws))
    assert (batch[[0, 2]] == 7).all()


def test_nothing_switched_on_changes_nothing(image):
    for sample in range(20):
        assert draw(image, options(), sample) is image


def test_switching_one_change_on_keeps_the_draws_of_the_others(image):
    """The flip decided for a sample stays when a brightness is added, and the other way round."""
    for sample in range(20):
        flipped = draw(image, options(flip=0.5), sample)
        light = draw(image, options(brightness=0.2), sample)
        both = draw(image, options(flip=0.5, brightness=0.2), sample)
        was_flipped = not np.array_equal(flipped, image)
        np.testing.assert_array_equal(both, light[:, ::-1] if was_flipped else light)


@pytest.mark.parametrize("added", [{"pad_crop": 6}, {"auto_augment": "cifar10"}])
def test_new_changes_leave_noise_and_erasing_as_they_were(added):
    black = np.zeros((112, 112, 3), dtype=np.uint8)
    for sample in range(30):
        alone = draw(black, options(noise=3, erase=1.0), sample)
        more = draw(black, options(noise=3, erase=1.0, **added), sample)
        # Neither crop nor policy makes black grey.
        np.testing.assert_array_equal(alone == 127, more == 127)
        if "pad_crop" in added:
            np.testing.assert_array_equal(alone, more)


def test_draws_that_runs_already_rely_on():
    """Images look as they did when version 2 of the stream came: checkpoints resume alike."""
    ramp = np.arange(16 * 16 * 3, dtype=np.uint32).reshape(16, 16, 3)
    ramp = (ramp * 37 % 251).astype(np.uint8)
    changes = options(flip=0.5, noise=6, erase=0.5)
    digest = hashlib.sha256(b"".join(draw(ramp, changes, s).tobytes() for s in range(50)))
    assert digest.hexdigest()[:16] == "89aa74b62f2306bb"


# -- one change after the other ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flip", "affine", "blur", "low_resolution", "erase"])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_probabilities(image, name, probability):
    extra = {"rotate": 15.0} if name == "affine" and probability else {}
    config = options(**{name: probability}, **extra)
    count = sum(not np.array_equal(draw(image, config, s), image) for s in range(300))
    assert abs(count / 300 - probability) < 0.11  # more than four standard deviations


def test_flip_mirrors(image):
    np.testing.assert_array_equal(draw(image, options(flip=1.0)), image[:, ::-1])


def test_padded_crop_shifts_and_uncovers_black(image):
    seen = set()
    for sample in range(300):
        changed = draw(image, options(pad_crop=2), sample)
        rows, columns = np.nonzero(changed.any(axis=2))
        down, right = rows.min() or rows.max() - 111, columns.min() or columns.max() - 111
        seen.add((int(down), int(right)))
        expected = np.zeros_like(image)
        height, width = 112 - abs(down), 112 - abs(right)
        expected[max(0, down) :, max(0, right) :][:height, :width] = image[
            max(0, -down) :, max(0, -right) :
        ][:height, :width]
        np.testing.assert_array_equal(changed, expected)
    # All 25 shifts of two pixels either way, as torchvision's RandomCrop(112, padding=2) has them.
    assert seen == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def test_crop_comes_before_auto_augment(image):
    """The crop uncovers black, which an inverted image shows white."""
    own = numbers_of(0, 0, np.arange(400), 29)[:, 24:]
    for sample, u in enumerate(own):
        config = options(pad_crop=20, auto_augment="imagenet")
        cropped = draw(image, options(pad_crop=20), sample)
        expected = auto_augment(cropped, "imagenet", u)
        np.testing.assert_array_equal(draw(image, config, sample), expected)


def spot(row: float, column: float) -> np.ndarray:
    """A bright spot on black, its centre at (row, column)."""
    y, x = np.mgrid[:112, :112]
    light = 250 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 18)
    return np.repeat(light.astype(np.uint8)[:, :, None], 3, axis=2)


def centre(image: np.ndarray) -> np.ndarray:
    """Return the spot's (row, column) from the middle of the image."""
    light = image[:, :, 0].astype(float)
    y, x = np.mgrid[:112, :112]
    return np.array([(light * y).sum(), (light * x).sum()]) / light.sum() - 55.5


def test_rotation_is_about_the_middle_and_within_its_bound():
    angles = []
    for sample in range(60):
        row, column = centre(draw(spot(55.5, 85.5), options(affine=1, rotate=20), sample))
        assert np.hypot(row, column) == pytest.approx(30, abs=0.3)
        angles.append(np.degrees(np.arctan2(row, column)))
    assert max(np.abs(angles)) < 20.5 and min(angles) < -10 and max(angles) > 10


def test_scale_is_about_the_middle_and_within_its_bound():
    factors = []
    for sample in range(60):
        row, column = centre(draw(spot(55.5, 85.5), options(affine=1, scale=0.2), sample))
        assert row == pytest.approx(0, abs=0.2)
        factors.append(column / 30)
    assert 0.79 < min(factors) < 0.88 and 1.12 < max(factors) < 1.21


def test_shift_is_a_fraction_of_the_side():
    moves = np.array(
        [centre(draw(spot(55.5, 55.5), options(affine=1, shift=0.1), s)) for s in range(60)]
    )
    assert np.abs(moves).max() < 11.4 and (moves.min(0) < -6).all() and (moves.max(0) > 6).all()


def test_shear_moves_rows_sideways_only():
    moves = []
    for sample in range(60):
        row, column = centre(draw(spot(85.5, 55.5), options(affine=1, shear=0.2), sample))
        assert row == pytest.approx(30, abs=0.2)
        moves.append(column / 30)
    assert -0.21 < min(moves) < -0.1 and 0.1 < max(moves) < 0.21


def test_geometry_leaves_no_black_corners(grey):
    for sample in range(30):
        changed = draw(grey, options(affine=1.0, **ALWAYS), sample)
        assert changed.min() == changed.max() == 100


def test_brightness_adds_to_every_pixel(grey):
    levels = [int(draw(grey, options(brightness=0.2), s)[0, 0, 0]) for s in range(200)]
    assert 49 <= min(levels) < 65 and 135 < max(levels) <= 151


def test_contrast_stretches_about_the_mean(image):
    mean = image.mean()
    ratios = []
    for sample in range(60):
        changed = draw(image, options(contrast=0.15), sample)
        assert changed.mean() == pytest.approx(mean, abs=0.6)
        ratios.append(changed.std() / image.std())
    assert 0.845 < min(ratios) < 0.9 and 1.1 < max(ratios) < 1.155


def test_gamma_keeps_black_and_white_and_lies_within_its_bound():
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    exponents = []
    for sample in range(60):
        changed = draw(ramp, options(gamma=0.5), sample)
        assert (changed[0, 0] == 0).all() and (changed[-1, -1] == 255).all()
        assert (np.diff(changed[:, :, 0].ravel().astype(int)) >= 0).all()
        exponents.append(np.log(changed[7, 15, 0] / 255) / np.log(127 / 255))
    assert 1 / 1.52 < min(exponents) < 0.8 and 1.25 < max(exponents) < 1.52


def test_blur_smooths_and_keeps_the_mean(image):
    noisy = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    for sample in range(10):
        changed = draw(noisy, options(blur=1.0), sample)
        assert changed.std() < 0.9 * noisy.std()
        assert changed.mean() == pytest.approx(noisy.mean(), abs=1)


def test_noise_has_no_bias_and_is_bounded(grey):
    deviations = []
    for sample in range(60):
        change = draw(grey, options(noise=6), sample).astype(float) - 100
        assert change.mean() == pytest.approx(0, abs=0.15)  # cutting off would take half a level
        deviations.append(change.std())
    assert max(deviations) < 6.1 and min(deviations) < 1 and max(deviations) > 5


def test_noise_does_not_wrap_round():
    for level in (0, 255):
        flat = np.full((64, 64, 3), level, dtype=np.uint8)
        for sample in range(10):
            assert np.abs(draw(flat, options(noise=20), sample).astype(int) - level).max() < 128


def test_low_resolution_loses_detail_but_not_the_picture(image):
    for sample in range(20):
        changed = draw(image, options(low_resolution=1.0), sample)
        assert np.abs(changed.astype(float) - image).mean() < 6
    stripes = np.zeros((112, 112, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert draw(stripes, options(low_resolution=1.0)).std() < 0.6 * stripes.std()


def test_erase_covers_its_share_and_nothing_else(image):
    shares = []
    for sample in range(150):
        changed = draw(image, options(erase=1.0, erase_area=(0.1, 0.3)), sample)
        rows, columns = np.nonzero((changed != image).any(axis=2))
        top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        assert (changed[top : bottom + 1, left : right + 1] == 127).all()
        shares.append((bottom + 1 - top) * (right + 1 - left) / 112**2)
    assert 0.095 < min(shares) < 0.13 and 0.27 < max(shares) < 0.305


def test_erase_may_cover_everything(image):
    changed = [draw(image, options(erase=1.0, erase_area=(1.0, 1.0)), s) for s in range(20)]
    assert all((c == 127).any() for c in changed)
