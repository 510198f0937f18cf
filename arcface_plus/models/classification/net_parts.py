"""What the classification nets have in common: their features.

Such a net ends at the features that its one linear layer would read; that layer is the trainer's
classifier. So ``embedding_dim`` is not a choice but a property of the net.
"""

from __future__ import annotations

from torch import Tensor, nn


def check_features(name: str, embedding_dim: int | None, features: int) -> int:
    """Return ``features``, the net's own number, which ``embedding_dim`` must be if it is given."""
    if embedding_dim is not None and embedding_dim != features:
        raise ValueError(
            f"{name} of this width gives {features} features, so embedding_dim cannot be "
            f"{embedding_dim!r}; leave it unset, or set it to {features}"
        )
    return features


def average_positions(x: Tensor, like: nn.Conv2d) -> Tensor:
    """Return the mean (N, C) over the positions of (N, C, H, W), in the precision of the weights.

    Under autocast ``x`` is of a smaller type, which neither a mean nor a classifier should be in.
    """
    return x.to(like.weight.dtype).mean(dim=(2, 3))
