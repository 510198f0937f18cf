"""The copy of a run's tensors on the host that a snapshot is written from.

Its buffers are kept from one save to the next: they take the memory of all that this rank saves,
once (pinned where the run is on a GPU).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Set

import torch
from torch import Tensor


class HostCopy:
    """Copies tensors into kept buffers, beside the training that goes on.

    ``begin`` in the training thread, ``finish`` in the thread that writes, and ``before_update`` in
    the training thread before an optimizer changes what is being copied.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[str, Tensor] = {}
        self._sources: dict[str, Tensor] = {}
        self._read = threading.Event()  # on the CPU: the sources have been read
        self._read.set()
        on_cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if on_cuda else None
        self._copied = torch.cuda.Event() if on_cuda else None

    def begin(self, live: Mapping[str, Tensor], updated: Set[str]) -> dict[str, Tensor]:
        """Begin to copy ``live``; return the buffers, to be read after ``finish``.

        Tensors named in ``updated`` must stay as they are until ``before_update``; the others (a
        batch norm's forward pass changes its statistics) are cloned at once.
        """
        self._sources = {n: t if n in updated else t.clone() for n, t in live.items()}
        self._buffers = {name: self._buffer(name, t) for name, t in self._sources.items()}
        if self._stream is None or self._copied is None:
            self._read.clear()
        else:
            # What is queued so far made the values; the copies run beside what is queued from now.
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                self._copy()
                self._copied.record()
        return self._buffers

    def finish(self) -> None:
        """Wait until the buffers hold the copy; on the CPU, make it."""
        try:
            if self._copied is None:
                self._copy()
            else:
                self._copied.synchronize()
        finally:
            self._sources = {}
            self._read.set()

    def before_update(self) -> None:
        """Let nothing that comes after change what is still being copied.

        The host waits on the CPU only; a GPU's own queue does.
        """
        self._read.wait()
        if self._copied is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied)

    def bytes(self) -> int:
        """Return the memory that the buffers take."""
        return sum(buffer.nbytes for buffer in self._buffers.values())

    def _copy(self) -> None:
        buffers, sources = list(self._buffers.values()), list(self._sources.values())
        if self._stream is None:
            with torch.no_grad():
                torch._foreach_copy_(buffers, sources)  # one call, which holds up no other thread
            return
        for buffer, source in zip(buffers, sources, strict=True):
            buffer.copy_(source, non_blocking=True)

    def _buffer(self, name: str, like: Tensor) -> Tensor:
        kept = self._buffers.get(name)
        if kept is not None and (kept.shape, kept.dtype, kept.stride()) == (
            like.shape,
            like.dtype,
            like.stride(),
        ):
            return kept
        # Its own layout (channels last, say): a snapshot stores it too.
        return torch.empty_like(like, device="cpu", pin_memory=self._stream is not None)


def on_device(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return a context in which a new thread works with ``device``, not with the first GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
