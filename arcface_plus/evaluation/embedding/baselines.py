"""What can be had without learning: the floor under every trained model."""

from __future__ import annotations

import numpy as np

from arcface_plus.data.lazy_images import ImageSequence, describe_image


def raw_pixel_embeddings(images: ImageSequence) -> np.ndarray:
    """Describe faces by their own pixels: mean removed per image, added to the mirror image.

    ``images``: N images of one size, (H, W, 3) uint8 RGB; grey is the mean of the channels.
    Returns (N, H·W) float32, to be compared by cosine (as ``verify`` does).

    Raises ValueError naming an image of another size than the first, or of one colour throughout.
    """
    rows: list[np.ndarray] = []
    for i in range(len(images)):
        grey = np.asarray(images[i], dtype=np.float64).mean(axis=-1)
        if rows and grey.size != rows[0].size:
            raise ValueError(
                f"{describe_image(images, i)} is {grey.shape[0]} x {grey.shape[1]}, unlike the "
                "image before it; raw pixels compare images of one size."
            )
        centred = grey - grey.mean()
        summed = (centred + centred[:, ::-1]).astype(np.float32).ravel()
        if not summed.any():
            raise ValueError(f"{describe_image(images, i)} has one colour throughout: no face.")
        rows.append(summed)
    if not rows:
        raise ValueError("There are no images to describe.")
    return np.stack(rows)
