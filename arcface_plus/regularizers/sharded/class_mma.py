"""MMA on the class weights of a run: sharded, sampled or exact, once an optimizer step."""

from __future__ import annotations

import torch
from torch import Tensor

from arcface_plus.distributed import Group, all_gather_rows, rank, shard_bounds, world_size
from arcface_plus.randomness import mma_row_generator
from arcface_plus.regularizers.nearest.cache import NeighbourCache
from arcface_plus.regularizers.sharded.mma import (
    MMATerms,
    attach_gradient,
    pick_rows,
    sharded_mma_value_and_gradient,
)

PERCENTILES = (1, 10, 50, 90)
_CLOSE = 1.0  # degrees; closer classes are all but one


class ClassMMA:
    """Computes the penalty of a (C, D) matrix of which each rank holds a shard.

    ``rows``: estimate from that many rows drawn anew from (seed, step), the same at any world size.
    ``refresh_every``: search for neighbours that often and reuse them between, an approximation
    (see ``NeighbourCache``).
    """

    def __init__(
        self,
        num_classes: int,
        *,
        rows: int | None = None,
        refresh_every: int = 1,
        seed: int = 0,
        group: Group = None,
    ) -> None:
        self.num_classes, self.rows, self.seed, self.group = num_classes, rows, seed, group
        self.sizes = [hi - lo for lo, hi in shard_bounds(num_classes, world_size(group))]
        self.cache = NeighbourCache(refresh_every) if refresh_every > 1 else None

    @property
    def samples(self) -> bool:
        """Whether rows are drawn anew at every step, rather than all taken."""
        return self.rows is not None and self.rows < self.num_classes

    def __call__(
        self, weight: Tensor, step: int, *, active: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Tensor:
        """Return MMA () of all classes, with its gradient with respect to this rank's ``weight``.

        ``active``: row numbers (p,), the rows (p, D) of ``weight`` picked by them, and factors
        (p,); the gradient then goes to those rows alone, each times its factor, the value is still
        that of all. A row without direction gives NaN.
        """
        terms = self.terms(weight, step, need_gradient=torch.is_grad_enabled())
        if active is None or terms.gradient is None:
            return attach_gradient(weight, terms)
        rows, picked, factors = active
        terms = pick_rows(terms, rows)
        assert terms.gradient is not None
        pull = terms.gradient * factors[:, None].to(terms.gradient.dtype)
        return attach_gradient(picked, terms._replace(gradient=pull))

    def terms(self, weight: Tensor, step: int, *, need_gradient: bool) -> MMATerms:
        """Return value, gradient, angles and neighbours outside autograd."""
        generator = mma_row_generator(self.seed, step) if self.samples else None
        return sharded_mma_value_and_gradient(
            weight.detach(),
            group=self.group,
            sizes=self.sizes,
            rows=self.rows,
            generator=generator,
            neighbours=self.cache if self.rows is None else None,
            need_gradient=need_gradient,
            on_bad_rows="nan",
        )

    def nearest(self, weight: Tensor, step: int = 0) -> tuple[Tensor, Tensor | None]:
        """Return the angle (C,) in degrees from each class to its nearest one, and that one (C,).

        With sampled rows the angles of those (r,), and None. Called on all ranks together.
        """
        cache, self.cache = self.cache, None  # what is logged is never a reused neighbour
        terms = self.terms(weight, step, need_gradient=False)
        self.cache = cache
        if self.samples:
            return torch.rad2deg(terms.angle.double()), None
        angle = torch.cat(all_gather_rows(terms.angle, self.group, sizes=self.sizes))
        index = torch.cat(all_gather_rows(terms.index, self.group, sizes=self.sizes))
        return torch.rad2deg(angle.double()), index

    def summary(
        self, weight: Tensor, step: int = 0, degrees: Tensor | None = None
    ) -> dict[str, float]:
        """Return figures of the class weights for logs: angles in degrees, and norms of the rows.

        ``nearest_angle`` (mean), its minimum and percentiles over the classes, or over ``rows``
        sampled ones; ``classes_under_1_degree`` from their nearest class; ``norm_min/mean/max``.
        ``degrees``: the angles that ``nearest`` returned, if they are known. Synchronises the host;
        called on all ranks together.
        """
        if degrees is None:
            degrees = self.nearest(weight, step)[0]
        norms = torch.linalg.vector_norm(weight.detach(), dim=1)
        norms = torch.cat(all_gather_rows(norms, self.group, sizes=self.sizes))
        points = torch.quantile(degrees, torch.tensor(PERCENTILES).to(degrees) / 100)
        return {
            "nearest_angle": degrees.mean().item(),
            "nearest_angle_min": degrees.min().item(),
            **{f"nearest_angle_p{p}": v for p, v in zip(PERCENTILES, points.tolist(), strict=True)},
            "classes_under_1_degree": int((degrees < _CLOSE).sum()),
            "norm_min": norms.min().item(),
            "norm_mean": norms.mean().item(),
            "norm_max": norms.max().item(),
        }

    def state_tensors(self, device: torch.device) -> dict[str, Tensor]:
        """Return what a checkpoint must hold, an integer a class; empty unless neighbours are
        reused.

        ``neighbours`` (C_r,): the class in use for each class, −1 before the first search.
        """
        if self.cache is None:
            return {}
        none = torch.full((self.sizes[rank(self.group)],), -1, dtype=torch.int64, device=device)
        return {"neighbours": none if self.cache.index is None else self.cache.index}

    def uses(self) -> int:
        """Return how often the neighbours in use have been used; 0 where none are kept."""
        return 0 if self.cache is None else self.cache.uses

    def restore(self, tensors: dict[str, Tensor], uses: int) -> None:
        """Take up what ``state_tensors`` and ``uses`` returned, at any world size."""
        if self.cache is not None:
            index = tensors["neighbours"]
            found = bool((index >= 0).all()) and uses > 0
            self.cache.index, self.cache.uses = index if found else None, uses
