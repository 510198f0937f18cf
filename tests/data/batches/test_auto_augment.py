"""AutoAugment: torchvision's own result, from draws that are ours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.functional import to_pil_image

from arcface_plus.data.batches.auto_augment import DRAWS, auto_augment

POLICIES = {"cifar10": AutoAugmentPolicy.CIFAR10, "imagenet": AutoAugmentPolicy.IMAGENET}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    coarse = np.random.default_rng(0).uniform(10, 240, (6, 6, 3))
    picture = cv2.resize(coarse, (32, 32), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    picture.setflags(write=False)
    return picture


@pytest.mark.parametrize("policy", POLICIES)
def test_equals_torchvision_for_its_own_draws(image, policy):
    """Seed torch, note what torchvision draws, and hand the same to ours."""
    theirs = AutoAugment(POLICIES[policy])
    chosen = set()
    for seed in range(300):
        torch.manual_seed(seed)
        number, probabilities, signs = AutoAugment.get_params(len(theirs.policies))
        torch.manual_seed(seed)
        expected = np.asarray(theirs(to_pil_image(image.copy())))
        u = np.array([(number + 0.5) / 25, *probabilities.tolist(), *(signs * 0.5).tolist()])
        np.testing.assert_array_equal(auto_augment(image, policy, u), expected)
        chosen.add(number)
    assert chosen == set(range(25))


@pytest.mark.parametrize("policy", POLICIES)
def test_draws_decide_alone(image, policy):
    u = np.random.default_rng(1).random((60, DRAWS))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    once = [auto_augment(image, policy, row) for row in u]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    again = [auto_augment(image, policy, row) for row in u[::-1]][::-1]
    np.testing.assert_array_equal(once, again)
    assert len({changed.tobytes() for changed in once}) > 20
    assert all(changed.shape == image.shape and changed.dtype == np.uint8 for changed in once)


def test_every_draw_is_used(image):
    """Sub-policy 1 of cifar10: rotate by a sign with p 0.7, then shift by a sign with p 0.3."""

    def change(*u: float) -> bytes:
        return auto_augment(image, "cifar10", np.array([1.5 / 25, *u])).tobytes()

    neither, both = change(0.9, 0.9, 0, 0), change(0.1, 0.1, 0, 0)
    assert neither == image.tobytes()
    looks = {both, change(0.1, 0.1, 0.6, 0), change(0.1, 0.1, 0, 0.6), change(0.1, 0.9, 0, 0)}
    assert len(looks | {change(0.9, 0.1, 0, 0), neither}) == 6
    assert change(0.1, 0.1, 0.49, 0.01) == both and change(0.69, 0.29, 0, 0) == both
    assert change(0.71, 0.31, 0, 0) == neither


@pytest.mark.parametrize("u", [0.0, 1 - 2**-53])
def test_extreme_draws(image, u):
    assert auto_augment(image, "cifar10", np.full(DRAWS, u)).shape == image.shape


def test_images_that_are_views(image):
    u = np.random.default_rng(2).random((20, DRAWS))
    for row in u:
        mirrored = image[:, ::-1]
        np.testing.assert_array_equal(
            auto_augment(mirrored, "imagenet", row),
            auto_augment(mirrored.copy(), "imagenet", row),
        )
