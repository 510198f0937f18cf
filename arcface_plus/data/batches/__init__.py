"""Batches: which images, in which form, at which step.

- ``order``: the permutation of an epoch, a rank's part of a step.
- ``windows``: an order for sets larger than memory, shuffled in windows.
- ``loader``: ``TrainLoader``: batches decoded ahead by workers; unreadable images.
- ``ring``: the memory that workers and the trainer share.
- ``augmentation``: the draws of a batch (``augmentation_draws``) and what they do to an image.
- ``auto_augment``: AutoAugment's policies.
- ``recipes``: the augmentations of AdaFace and arcface_torch.
- ``score_sampling``: which images a second pass sees: easy and hard ones, by their scores.
- ``chosen_images``: reads those images beside the ordered batches.
"""
