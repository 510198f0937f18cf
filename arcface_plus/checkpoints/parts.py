"""What gives its state to a snapshot and takes it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor


class ClassRows(NamedTuple):
    """This rank's rows of a (``total``, …) tensor that ``shard_bounds`` cuts over all ranks."""

    local: Tensor
    total: int


Stored = Tensor | ClassRows  # plain tensors are equal on all ranks


def local_tensor(stored: Stored) -> Tensor:
    """Return what this rank holds of ``stored``."""
    return (stored.local if isinstance(stored, ClassRows) else stored).detach()


class Part:
    """What gives its state to a checkpoint and takes it back; overrides what it has.

    Names are unique among the parts of a run. An ``optional`` part that a checkpoint does not hold
    stays as it is.
    """

    optional: ClassVar[bool] = False

    def tensors(self) -> dict[str, Stored]:
        """Return the tensors by name; loading writes into them."""
        return {}

    def numbers(self) -> dict[str, Any]:
        """Return everything else by name, JSON-able."""
        return {}

    def restore(self, tensors: Mapping[str, Stored], numbers: Mapping[str, Any]) -> None:
        """Take up ``tensors``, which hold what was saved, and what is needed of ``numbers``."""
