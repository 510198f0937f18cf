"""What is known of a step that went wrong, kept on the device until the next log step, then in a
file.

``RUN/forensics/step-000123.json`` names every image of the step with the norm of its embedding and
the angle to its own class; docs/training_health.md describes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from arcface_plus.data.batches.loader import TrainLoader
from arcface_plus.distributed import World, contiguous_part
from arcface_plus.files import written_beside
from arcface_plus.losses.head.output import HeadOutput
from arcface_plus.losses.head.plan import StepPlan

FOLDER = "forensics"
MOST = 20  # files in a run; a net that diverges would fill a disk
KINDS = NOT_FINITE, LOSS_SPIKE = "not finite", "loss spike"


class Forensics:
    """Keeps one step of each of ``KINDS`` since the last look; rank 0 writes them.

    ``accumulate`` micro-batches a step, whose samples come rank by rank.
    """

    def __init__(self, folder: Path, loader: TrainLoader, world: World, accumulate: int) -> None:
        self.folder, self.loader, self.keeps = folder / FOLDER, loader, world.is_main
        batch = loader.steps.global_batch
        self.places = _places(batch, world.size, accumulate)
        kept = torch.zeros(len(KINDS), 4 + 2 * batch, dtype=torch.float64)
        self.kept = kept.to(world.device)
        self.rates: dict[int, float] = {}

    def keep(
        self,
        step: int,
        taken: Sequence[Tensor],
        numbers: Sequence[Tensor],
        outputs: Sequence[HeadOutput],
        learning_rate: float,
    ) -> None:
        """Keep a step under each of ``KINDS`` for which ``taken`` () is true, without asking.

        ``numbers``, () each: loss, median loss before, squared norm of the gradient, loss scale.
        """
        norms = torch.cat([o.embedding_norm for o in outputs]).double()
        cosines = torch.cat([o.target_cosine for o in outputs]).double()
        fresh = torch.cat([torch.stack([n.detach().double() for n in numbers]), norms, cosines])
        self.kept = torch.where(torch.stack(list(taken))[:, None], fresh, self.kept)
        self.rates[step] = learning_rate

    def write(self, kind: str, step: int) -> str:
        """Write what is known of ``step``, kept as ``kind``; return words that say where."""
        path = self.folder / f"step-{step:06d}.json"
        if not self.keeps:
            return "Rank 0 keeps its numbers"
        others = [p for p in self.folder.glob("step-*.json") if p != path]
        if len(others) >= MOST:
            return f"{self.folder} has {MOST} files already: its numbers were not kept"
        try:
            self.folder.mkdir(exist_ok=True)
            with written_beside(path) as beside:
                beside.write_text(json.dumps(self._facts(kind, step), indent=1), encoding="utf-8")
        except OSError as error:  # what is being reported matters more than its details
            return f"Its numbers could not be written to {path}: {error}"
        return f"Its images, norms and angles: {path}"

    def forget(self) -> None:
        """Begin a new stretch of steps after a look."""
        self.rates.clear()

    def _facts(self, kind: str, step: int) -> dict[str, Any]:
        source, row = self.loader.source, self.kept[KINDS.index(kind)].cpu().numpy()
        (loss, usual, squared, scale), each = row[:4], row[4:].reshape(2, -1)
        with np.errstate(invalid="ignore"):
            angles = np.degrees(np.arccos(np.clip(each[1], -1, 1)))
            norm = float(np.sqrt(squared))
        indices = self.loader.steps.global_indices(step)[self.places]
        classes = source.labels[indices]
        # Samples that are not finite first, then those farthest from their own class.
        order = np.argsort(np.where(np.isfinite(each).all(axis=0), -angles, -math.inf))
        images = [
            {
                "image": source.describe(int(indices[i])),
                "index": int(indices[i]),
                "class": int(classes[i]),
                "embedding_norm": _plain(each[0, i]),
                "own_class_angle": _plain(angles[i]),
            }
            for i in order
        ]
        return {
            "step": step,
            "reason": kind,
            "loss": _plain(loss),
            "usual_loss": _plain(usual),
            "gradient_norm": _plain(norm),
            "learning_rate": self.rates[step],
            "loss_scale": _plain(scale),
            "images": images,
        }


def _plain(value: float) -> float | str:
    """Return ``value`` for JSON, which has neither NaN nor infinity: these are words there."""
    return float(value) if math.isfinite(value) else str(float(value))


def _places(batch: int, ranks: int, accumulate: int) -> np.ndarray:
    """Return the place (B,) in the global batch of each sample, in the order the head has them."""
    parts = [contiguous_part(batch, rank, ranks) for rank in range(ranks)]
    plan = StepPlan(tuple(hi - lo for lo, hi in parts), 0, None)
    taken = []
    for part in range(accumulate):
        cut = (contiguous_part(size, part, accumulate) for size in plan.sizes)
        taken.append(plan.take([hi - lo for lo, hi in cut]))
    return np.concatenate(taken)
