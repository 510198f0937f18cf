"""People made of numbers: embeddings about a direction each, and images nobody confuses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from arcface_plus.evaluation.cleaning.duplicates import SIDE
from arcface_plus.evaluation.cleaning.photographs import Looks


@dataclass(frozen=True)
class Crowd:
    """Hold embeddings (N, D), labels (N,) and what is seen of N photographs."""

    embeddings: np.ndarray
    labels: np.ndarray
    looks: Looks

    @property
    def unit(self) -> np.ndarray:
        norms = np.linalg.norm(self.embeddings, axis=1, keepdims=True)
        return (self.embeddings / norms).astype(np.float32)

    def with_labels(self, labels: np.ndarray) -> Crowd:
        return replace(self, labels=labels)


@pytest.fixture
def crowd():
    """Return ``crowd(people, photographs)``: so many of each, of noise 0.8 of their direction."""

    def make(people: int, photographs: int, *, seed: int = 0, dim: int = 64) -> Crowd:
        rng = np.random.default_rng(seed)
        directions = rng.standard_normal((people, dim))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        labels = np.repeat(np.arange(people), photographs)
        noise = rng.standard_normal((len(labels), dim)) * 0.8 / np.sqrt(dim)
        thumbnails = rng.integers(0, 256, (len(labels), SIDE**2), dtype=np.uint8)
        looks = Looks(thumbnails, np.full(len(labels), 112**2), np.full(len(labels), 5000), "")
        return Crowd(7 * (directions[labels] + noise), labels, looks)

    return make
