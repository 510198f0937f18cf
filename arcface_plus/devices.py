"""How the host and the device work side by side: nothing in a training step makes one wait.

The host of a GPU runs ahead of it. Reading one number from the device, or copying to it from memory
that is not pinned, lets the queue run empty. So the parts of a step ask ``host_may_look`` before
they branch on values, and hand what they made on the host over with ``to_device``.
"""

from __future__ import annotations

import torch
from torch import Tensor


def host_may_look(device: torch.device) -> bool:
    """Return whether values on ``device`` are read without waiting for them: on the CPU alone."""
    return device.type == "cpu"


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host on ``device``; the host does not wait for the copy."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class SideCopies:
    """Copies pinned tensors of the host to ``device`` beside what it is still computing."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """Return ``tensors`` on the device; what is queued after this waits for the copies."""
        if self._stream is None:
            return [tensor.to(self.device) for tensor in tensors]
        with torch.cuda.stream(self._stream):
            copies = [tensor.to(self.device, non_blocking=True) for tensor in tensors]
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._stream)
        for copy in copies:
            copy.record_stream(current)  # its memory is not given away before current is done
        return copies


def rows_at_once(device: torch.device) -> int:
    """Return how many rows a loop takes in a turn: few fit a CPU's cache, many fill a GPU."""
    return 512 if device.type == "cpu" else 16_384
