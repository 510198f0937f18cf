"""AutoAugment by torchvision's policies and operations, with draws of our own.

Source: Cubuk et al., AutoAugment, CVPR 2019. torchvision draws from torch's global generator, whose
numbers would depend on the worker and on what ran before.
"""

from __future__ import annotations

import numpy as np

DRAWS = 5  # the sub-policy, and for each of its two operations whether it takes place and its sign


def auto_augment(image: np.ndarray, policy: str, u: np.ndarray) -> np.ndarray:
    """Return ``image`` (H, W, 3) uint8 changed by one sub-policy of ``policy``.

    ``policy``: "cifar10" or "imagenet", the data it was learned on. ``u`` (5,): numbers in [0, 1).
    The operations are those of torchvision on PIL images, as in the AutoAugment authors' code; what
    they uncover is black.
    """
    # Late: torchvision costs seconds at import, and most runs do without it.
    import torch
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy
    from torchvision.transforms.functional import to_pil_image

    transform = AutoAugment(AutoAugmentPolicy(policy))
    chosen = int(u[0] * len(transform.policies))
    probabilities = torch.from_numpy(u[1:3].copy())
    signs = torch.from_numpy((u[3:5] >= 0.5).astype(np.int64))
    # The one place where it draws: which sub-policy, two probabilities, two signs.
    transform.get_params = lambda count: (chosen, probabilities, signs)
    return np.asarray(transform(to_pil_image(np.ascontiguousarray(image))))
