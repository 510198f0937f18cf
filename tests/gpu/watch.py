"""Find what would make the host wait for a GPU, on a machine without one.

``as_on_a_gpu`` runs code on the CPU down the paths that it takes on a GPU, with real numbers, and
``NoWaits`` refuses every operation that hands values or sizes to the host. Only the launch of the
search kernel is missing: what it leaves open is ranked by the CPU's code, unwatched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.distributed.fsdp.sharded_grad_scaler import ShardedGradScaler
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from arcface_plus import devices
from arcface_plus.regularizers.nearest import search
from arcface_plus.regularizers.nearest.ranking import nearest_from_table

# Values become Python's, or the size of a result depends on values.
WAITS = {
    "_local_scalar_dense", "equal", "is_nonzero", "nonzero", "nonzero_numpy", "argwhere",
    "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "repeat_interleave", "_coalesce", "histc",
}  # fmt: skip


# What reads the memory of a tensor without an operation that a dispatch mode would see.
READS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.__array__}


class HostWaits(AssertionError):
    """An operation of a training step makes the host wait for the device."""


class _NoReads(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in READS:
            raise HostWaits(f"Tensor.{func.__name__} makes the host wait")
        return func(*args, **(kwargs or {}))


class NoWaits(TorchDispatchMode):
    """Refuses what waits: reading values, sizes from values, and copies that are not asynchronous.

    With tensors of FakeTensorMode, which have a device but no values, copies are seen as well.
    """

    def __enter__(self) -> NoWaits:
        self._reads = _NoReads()
        self._reads.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._reads.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if name in WAITS and not (name == "repeat_interleave" and kwargs.get("output_size")):
            raise HostWaits(f"{func} makes the host wait")
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            _refuse_masks(func, args)
        result = func(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            given = args[1] if name == "copy_" else args[0]
            into = args[0] if name == "copy_" else result
            crosses = given.device.type != into.device.type
            if crosses and not (kwargs.get("non_blocking") or True in args[2:]):
                raise HostWaits(f"{func} from {given.device} to {into.device} makes the host wait")
        return result


def _refuse_masks(func: Any, args: tuple[Any, ...]) -> None:
    """A mask as an index is a ``nonzero``, except to write one number."""
    masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
    writes_one = len(args) > 2 and args[2].numel() == 1
    if masks and not writes_one:
        raise HostWaits(f"{func} with a mask makes the host wait")


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Take the paths of a GPU on the CPU."""

    def unwatched(call):  # type: ignore[no-untyped-def]
        def run(*args):  # type: ignore[no-untyped-def]
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                return call(*args)

        return run

    # The scale of fp16 has an operator of its own on a GPU.
    scale_on_cpu = ShardedGradScaler._amp_update_scale_cpu_
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "host_may_look", lambda device: False)
        patch.setattr(search, "_ranking", lambda unit: unwatched(nearest_from_table))
        patch.setattr(ShardedGradScaler, "_amp_update_scale_cpu_", unwatched(scale_on_cpu))
        yield
