"""Training steps to time, on a CPU or a GPU: ours, of the bare net, and of arcface_torch."""

from __future__ import annotations

import contextlib
import importlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.training.optim import build_optimizers, scale_gradients, squared_gradient_norm
from arcface_plus.training.precision import autocast_dtype
from arcface_plus.training.settings import OptimConfig

DIM, CLIP = 512, 5.0
Step = Callable[[], object]


def medians(runs: dict[str, Step], device: torch.device, repeats: int) -> dict[str, float]:
    """Return the median seconds of each of ``runs``, taking turns; the first two do not count."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 2):
        for name, run in runs.items():
            _wait(device)
            began = time.perf_counter()
            run()
            _wait(device)
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(times[2:]) for name, times in taken.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    enabled = precision in ("bf16", "fp16")
    return torch.autocast(device.type, dtype=autocast_dtype(precision), enabled=enabled)


def our_step(
    net: nn.Module,
    batch: int,
    *,
    classes: int,
    mma_weight: float,
    device: torch.device,
    precision: str,
) -> Step:
    """Return a step of ``net``, which may be compiled, with head, clipping and optimizers."""
    head = ClassifierHead(classes, DIM, Margin(), mma_weight=mma_weight).to(device)
    optimizers = build_optimizers(net, head, OptimConfig(lr=1e-4))
    images = torch.randint(256, (batch, 112, 112, 3), dtype=torch.uint8, device=device)
    labels = torch.randint(classes, (batch,), device=device)

    def step() -> None:
        with autocast(device, precision):
            embeddings = net(images.permute(0, 3, 1, 2).float().sub_(127.5).div_(128))
        head(embeddings, labels, sizes=[batch]).loss.backward()
        norm = squared_gradient_norm(net, head).sqrt()
        scale_gradients(net, head, (CLIP / (norm + 1e-6)).clamp_max(1.0))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def bare_step(net: nn.Module, batch: int, *, device: torch.device, precision: str) -> Step:
    """Return forward and backward of ``net`` alone.

    From random gradients: those of a sum vanish in the last batch normalisation, and arithmetic
    with denormal numbers takes longer.
    """
    images = torch.randn(batch, 3, 112, 112, device=device)
    images = images.to(memory_format=torch.channels_last)
    gradient = torch.randn(batch, DIM, device=device) / batch

    def step() -> None:
        with autocast(device, precision):
            embeddings = net(images)
        embeddings.float().backward(gradient)
        net.zero_grad(set_to_none=True)

    return step


def reference_mma(weight: Tensor) -> Tensor:
    """Return MMA's eq. (6) as its authors compute it: the full matrix, its diagonal set to −1."""
    unit = nn.functional.normalize(weight, dim=1)
    cosine = unit @ unit.t()
    cosine = cosine - 2 * torch.diag(torch.diag(cosine))
    return -torch.acos(cosine.max(dim=1)[0].clamp(-0.99999, 0.99999)).mean()


def peer_step(
    checkout: Path,
    batch: int,
    *,
    classes: int,
    mma_weight: float,
    device: torch.device,
    precision: str,
) -> Step:
    """Return a step of arcface_torch's IResNet-50 and PartialFC_V2, as its train_v2.py makes it.

    Inside ``one_process``. On a GPU in its own fp16; on the CPU, for which it has no mixed
    precision, ``precision`` is autocast's around its net. MMA is the authors' formulation.
    """
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    backbones, losses = importlib.import_module("backbones"), importlib.import_module("losses")
    partial = importlib.import_module("partial_fc_v2")
    on_gpu = device.type == "cuda"
    net = backbones.get_model("r50", dropout=0.0, fp16=on_gpu, num_features=DIM).to(device).train()
    margin = losses.CombinedMarginLoss(64, 1.0, 0.5, 0.0, 0)
    head = partial.PartialFC_V2(margin, DIM, classes, 1.0, False).train().to(device)
    optimizer = torch.optim.SGD(
        [{"params": net.parameters()}, {"params": head.parameters()}],
        lr=1e-4,
        momentum=0.9,
        weight_decay=5e-4,
    )
    scaler = torch.amp.GradScaler(device.type, growth_interval=100, enabled=on_gpu)
    images = torch.randn(batch, 3, 112, 112, device=device)
    labels = torch.randint(classes, (batch,), device=device)

    def step() -> None:
        with contextlib.nullcontext() if on_gpu else autocast(device, precision):
            embeddings = net(images)
        loss = head(embeddings.float(), labels)
        if mma_weight:
            loss = loss + mma_weight * reference_mma(head.weight)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


@contextlib.contextmanager
def one_process(device: torch.device) -> Iterator[None]:
    """Let arcface_torch believe it was launched; where there is no GPU, .cuda() does nothing."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    moved = torch.Tensor.cuda
    try:
        if device.type != "cuda":
            torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign,assignment]
            warnings.filterwarnings("ignore", message=".*torch.cuda.amp.*")
            warnings.filterwarnings("ignore", message=".*CUDA is not available.*")
        yield
    finally:
        torch.Tensor.cuda = moved  # type: ignore[method-assign]
        dist.destroy_process_group()
