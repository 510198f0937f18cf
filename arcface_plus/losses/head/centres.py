"""Several centres a class (sub-centre ArcFace), and which of them is the dominant one.

Deng et al., "Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces", ECCV
2020. A sample's cosine with a class is that with the nearest of the class's K centres: clean images
gather at one, wrong labels and odd photographs at others. Centre k of a shard's class c is row
c·K + k of its weights. Shapes: C_r classes of this rank's shard, B samples of all ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOST_CENTRES = 255  # which one is nearest is kept in a byte
_MEMORY = 64  # images of a class after which older ones count half


class Centres(nn.Module):
    """Counts, for each of ``classes`` of a shard, the images to which each centre is the nearest.

    ``counts`` (C_r, K) float32: a checkpoint must hold it. They do not depend on the number of
    ranks or micro-batches.
    """

    counts: Tensor

    def __init__(self, classes: int, count: int) -> None:
        super().__init__()
        if not 1 <= count <= MOST_CENTRES:
            raise ValueError(f"centres is {count}, but must lie in 1 to {MOST_CENTRES}.")
        self.count = count
        self.register_buffer("counts", torch.zeros(classes, count if count > 1 else 0))

    @torch.no_grad()
    def begin_step(self) -> None:
        """Let the past of classes fade of which much has been seen."""
        if self.count > 1:
            full = self.counts.sum(dim=1, keepdim=True) >= _MEMORY
            self.counts.mul_(torch.where(full, 0.5, 1.0))

    @torch.no_grad()
    def observe(self, cosines: Tensor, classes: Tensor, mine: Tensor) -> None:
        """Count samples by their ``cosines`` (B, K) with their ``classes`` (B,) of this shard.

        ``mine`` (B,): whether this shard has a sample's class.
        """
        if self.counts.numel():
            rows = classes.clamp(0, len(self.counts) - 1) * self.count + cosines.argmax(dim=1)
            finite = mine & torch.isfinite(cosines).all(dim=1)
            self.counts.view(-1).index_add_(0, rows, finite.to(self.counts.dtype))

    def rows_of(self, classes: Tensor) -> Tensor:
        """Return the rows (n · K,) of ``classes`` (n,), class by class."""
        if self.count == 1:
            return classes
        offsets = torch.arange(self.count, device=classes.device)
        return (classes[:, None] * self.count + offsets).flatten()

    def per_row(self, classes: Tensor | None) -> Tensor | None:
        """Return what ``classes`` (n,) has of each class for each of its rows (n · K,)."""
        if classes is None or self.count == 1:
            return classes
        return classes.repeat_interleave(self.count)

    def by_class(self, rows: Tensor) -> Tensor:
        """Return ``rows`` (C_r · K, …) of the weights with one entry a class: (C_r, K, …)."""
        return rows if self.count == 1 else rows.unflatten(0, (len(self.counts), self.count))

    def dominant_rows(self, weight: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the dominant centre's row (n, D) of ``classes`` (n,), or of all C_r.

        ``weight`` (n · K, D) has their rows. Before any image it is a class's first.
        """
        if self.count == 1:
            return weight
        chosen = (self.counts if classes is None else self.counts[classes]).argmax(dim=1)
        places = torch.arange(len(chosen), device=chosen.device)
        return weight.unflatten(0, (len(chosen), self.count))[places, chosen]
