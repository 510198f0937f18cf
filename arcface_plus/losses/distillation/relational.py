"""Relational knowledge distillation by distances: RKD-D of Park, Kim, Lu and Cho, CVPR 2019.

ψ(i, j) = ‖x_i − x_j‖/μ with μ the mean distance of the batch's pairs; the loss is Huber's (δ = 1)
of ψ of the student and of the teacher. Embeddings are normalised first, as in the paper's metric
learning. It is the mean over pairs, where the paper has the sum; the authors' code has a mean too.
Shapes: B embeddings of the student's and the teacher's own widths.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_plus.losses.directions import unit_directions


def relational_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the loss () of embeddings (B, D) against (B, T); 0 where there is no pair."""
    if len(student) < 2:
        return student.sum() * 0
    return F.huber_loss(_relations(student), _relations(teacher))


def _relations(x: Tensor) -> Tensor:
    """Return ψ of all pairs i < j; equal embeddings are at distance 0, with gradient 0."""
    distances = F.pdist(unit_directions(x))
    mean = distances.mean()
    return distances / torch.where(mean > 0, mean, 1)
