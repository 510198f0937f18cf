"""The exclusive regularization of RegularFace: each class away from its nearest other class."""

from __future__ import annotations

from torch import Tensor

from arcface_plus.regularizers.energies import cosine_loss


def regularface_loss(weight: Tensor) -> Tensor:
    """Return (1/C) Σ_i max_{j≠i} cos θ_ij of class weights (C, d): ``cosine_loss``, eq. (5).

    K. Zhao, J. Xu, M.-M. Cheng, "RegularFace: Deep Face Recognition via Exclusive Regularization",
    CVPR 2019. The example that its authors publish normalises the rows and lets gradient flow to
    both of a pair: value and gradient are those of eq. (5). What differs is around it. The formula
    on their page divides by squared norms, which is a cosine for unit rows only; we follow their
    code. And they apply it to the classifier alone. Arguments and errors as ``cosine_loss``.
    """
    return cosine_loss(weight)
