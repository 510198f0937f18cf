"""How far a student's embeddings point from the teacher's.

Half the squared distance of the unit embeddings: the hint loss of Romero et al. (FitNets, ICLR
2015) on the sphere, where verification compares. ShrinkTeaNet (Duong et al., arXiv 1905.10620,
2019) has its square. Shapes: B embeddings of D numbers.
"""

from __future__ import annotations

from torch import Tensor

from arcface_plus.losses.directions import unit_directions


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean () of 1 − cos(student_i, teacher_i) over rows (B, D)."""
    return (1 - (unit_directions(student) * unit_directions(teacher)).sum(dim=1)).mean()
