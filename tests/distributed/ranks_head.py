"""What each process of test_head.py runs, and the dense one-process reference."""

from __future__ import annotations

import contextlib
import math

import torch
from dense_margins import Run, dense_losses, first_state
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from arcface_plus.distributed import contiguous_part
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.head.initial import initial_class_weights
from arcface_plus.losses.head.sampling import class_draws
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.margins.uniface import UniFace
from arcface_plus.training.optim import build_optimizers, squared_gradient_norm
from arcface_plus.training.settings import OptimConfig

FEATURES, SEED = 12, 3
LR, MOMENTUM, DECAY = 0.1, 0.9, 5e-4


def make_backbone(dim: int, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(FEATURES, 24), nn.Tanh(), nn.Linear(24, dim))
    return net.to(dtype)


def make_batch(step: int, total: int, classes: int, dtype: torch.dtype):
    g = torch.Generator().manual_seed(100 + step)
    x = torch.randn(total, FEATURES, generator=g, dtype=torch.float64)
    y = torch.randint(0, classes, (total,), generator=g)
    y[:2] = y[0]  # a class twice in a batch
    return x.to(dtype), y


def make_margin(case: dict):
    return None if case.get("linear") else case.get("margin", Margin(s=16.0))


def local_part(total: int, rank: int, world: int, shares: list[int] | None):
    """Equal parts, or parts in proportion to ``shares`` (cycled over ranks)."""
    if shares is None:
        return contiguous_part(total, rank, world)
    weights = [shares[r % len(shares)] for r in range(world)]
    ends = [round(total * sum(weights[: r + 1]) / sum(weights)) for r in range(world)]
    return ([0, *ends])[rank], ends[rank]


def train_rank(rank: int, case: dict) -> dict:
    """Make ``case['steps']`` steps and return losses, first-step gradients and final weights."""
    from arcface_plus.distributed import world_size

    world, dtype = world_size(), getattr(torch, case["dtype"])
    torch.set_default_dtype(torch.float32)
    backbone = make_backbone(case["dim"], dtype)
    head = ClassifierHead(
        case["classes"],
        case["dim"],
        make_margin(case),
        bias=case.get("bias", False),
        mma_weight=case.get("mma_weight", 0.03),
        mma_rows=case.get("mma_rows"),
        sample_rate=case.get("rate", 1.0),
        dense_gradient=case.get("dense", False),
        class_chunk=case.get("chunk"),
        centres=case.get("centres", 1),
        seed=SEED,
    ).to(dtype)
    config = OptimConfig(lr=LR, momentum=MOMENTUM, weight_decay=DECAY, decay="all")
    optimizers = build_optimizers(backbone, head, config)
    ddp = DistributedDataParallel(backbone)
    learned = head.replicated_parameters()
    out: dict = {"losses": [], "lo": head.lo, "hi": head.hi, "mma": []}
    accumulate = case.get("accumulate", 1)
    for step in range(case["steps"]):
        x, y = make_batch(step, case["batch"], case["classes"], dtype)
        parts = [local_part(len(y), r, world, case.get("shares")) for r in range(world)]
        lo, hi = parts[rank]
        plan = head.plan_step(y[lo:hi], step)
        loss = 0.0
        for i in range(accumulate):
            a, b = contiguous_part(hi - lo, i, accumulate)
            micro = (contiguous_part(stop - start, i, accumulate) for start, stop in parts)
            sizes = [stop - start for start, stop in micro]
            last = i == accumulate - 1
            with contextlib.nullcontext() if last else ddp.no_sync():
                embeddings = ddp(x[lo + a : lo + b])
                embeddings.retain_grad()
                output = head(embeddings, y[lo + a : lo + b], plan=plan, sizes=sizes, with_mma=last)
                output.loss.backward()
            loss += output.loss.item()
            if output.mma is not None:
                out["mma"].append(output.mma.item())
        out["losses"].append(loss)
        if step == 0:
            if accumulate == 1:
                out["embedding_grad"] = embeddings.grad.clone()
            out["backbone_grads"] = [p.grad.clone() for p in backbone.parameters()]
            grad = head.weight.grad
            out["weight_grad"] = (grad.to_dense() if grad.is_sparse else grad).clone()
            if head.bias is not None:
                out["bias_grad"] = head.bias.grad.clone()
            out["learned_grads"] = {k: p.grad.item() for k, p in learned.items()}
            out["norm"] = math.sqrt(squared_gradient_norm(backbone, head).item())
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    out["backbone"] = [p.detach().clone() for p in backbone.parameters()]
    out["weight"] = head.weight.detach().clone()
    if head.bias is not None:
        out["bias"] = head.bias.detach().clone()
    out |= {name: value.clone() for name, value in head.sharded_state().items()}
    out["learned"] = {name: value.item() for name, value in learned.items()}
    out["state"] = {name: value.item() for name, value in head.state_tensors().items()}
    return out


def micro_batches(case: dict, world: int) -> list[list[int]]:
    """Return which samples of a global batch each micro-batch of ``world`` ranks has."""
    accumulate = case.get("accumulate", 1)
    micro: list[list[int]] = [[] for _ in range(accumulate)]
    for r in range(world):
        lo, hi = local_part(case["batch"], r, world, case.get("shares"))
        for i in range(accumulate):
            a, b = contiguous_part(hi - lo, i, accumulate)
            micro[i] += range(lo + a, lo + b)
    return micro


def count_nearest(counts, embeddings, weight, y) -> None:
    """Add each sample to the centre of its class that is nearest to it, one after another."""
    unit = F.normalize(weight, dim=1).view(*counts.shape, -1)
    for x, label in zip(embeddings, y.tolist(), strict=True):
        counts[label, (unit[label] @ x).argmax()] += 1


def dense_mma(weight: torch.Tensor) -> torch.Tensor:
    unit = F.normalize(weight, dim=1)
    cosine = unit @ unit.t()
    cosine = cosine - 3 * torch.eye(len(weight), dtype=weight.dtype)
    return -torch.acos(cosine.max(dim=1).values).mean()


def dense_reference(case: dict, world: int = 1) -> dict:
    """The same training in float64, dense, in one process, without the library's head.

    ``world`` decides only which samples share a micro-batch.
    """
    dtype, classes = torch.float64, case["classes"]
    # Begin from the float32 numbers where the case does, so that only the arithmetic differs.
    given = getattr(torch, case["dtype"])
    backbone = make_backbone(case["dim"], given).to(dtype)
    centres = case.get("centres", 1)
    rows = classes * centres
    weight = initial_class_weights(SEED, 0, rows, case["dim"]).to(dtype).requires_grad_()
    counts = torch.zeros(classes, centres, dtype=dtype)
    margin, rate = make_margin(case), case.get("rate", 1.0)
    parameters = [*backbone.parameters()]
    bias = torch.zeros(classes, dtype=dtype, requires_grad=True)
    if case.get("bias"):
        parameters.append(bias)
    run = Run(SEED, state=first_state(margin, round(rate * classes)))
    if isinstance(margin, UniFace):
        first = torch.tensor(math.log(10 * rate * classes), dtype=torch.float32)
        run.threshold = first.to(dtype).requires_grad_()
        parameters.append(run.threshold)
    momenta = [torch.zeros_like(p) for p in [*parameters, weight]]
    out: dict = {"losses": [], "mma": []}
    for step in range(case["steps"]):
        x, y = make_batch(step, case["batch"], classes, given)
        run.begin(step)
        embeddings = backbone(x.to(dtype))
        embeddings.retain_grad()
        active = torch.ones(classes, dtype=torch.bool)
        if rate < 1:
            active = class_draws(SEED, step, 0, classes, torch.device("cpu")) < rate
            active[y] = True
        counts[counts.sum(1) >= 64] /= 2
        count_nearest(counts, embeddings.detach(), weight.detach(), y)
        dominant = weight.view(classes, centres, -1)[torch.arange(classes), counts.argmax(1)]
        mma = dense_mma(dominant)
        loss, pull = 0.0, torch.autograd.grad(mma, weight)[0] * case.get("mma_weight", 0.03)
        for some in micro_batches(case, world):
            if margin is None:
                logits = embeddings[some] @ weight.t() + bias
                losses = F.cross_entropy(logits, y[some], reduction="none")
            else:
                losses = dense_losses(margin, embeddings[some], weight, y[some], active, run, some)
            loss = loss + losses.sum() / len(y)
        loss.backward()
        in_sample = active.repeat_interleave(centres)
        assert not weight.grad[~in_sample].any()
        # A row that was drawn gets its pull by MMA for the steps in which it is not. One that takes
        # no part is untouched; with a dense gradient each gets its pull in each step.
        positive = torch.zeros(classes, dtype=torch.bool)
        positive[y] = True
        if not case.get("dense"):
            pull[in_sample & ~positive.repeat_interleave(centres)] /= rate
            pull[~in_sample] = 0
        weight.grad += pull
        out["losses"].append(loss.item() + case.get("mma_weight", 0.03) * mma.item())
        out["mma"].append(mma.item())
        if step == 0:
            out["embedding_grad"] = embeddings.grad.clone()
            out["backbone_grads"] = [p.grad.clone() for p in backbone.parameters()]
            out["bias_grad"] = bias.grad
            out["weight_grad"] = weight.grad.clone()
            if run.threshold is not None:
                out["learned_grads"] = {"threshold": run.threshold.grad.item()}
            out["norm"] = math.sqrt(
                sum(p.grad.square().sum().item() for p in [*parameters, weight])
            )
        with torch.no_grad():
            for p, buffer in zip([*parameters, weight], momenta, strict=True):
                rows = in_sample if p is weight and not case.get("dense") else ...
                buffer[rows] = MOMENTUM * buffer[rows] + p.grad[rows] + DECAY * p[rows]
                p[rows] -= LR * buffer[rows]
                p.grad = None
    out["backbone"] = [p.detach() for p in backbone.parameters()]
    out["weight"], out["bias"] = weight.detach(), bias.detach()
    out["centre_counts"] = counts
    out["state"] = run.state
    out["learned"] = {} if run.threshold is None else {"threshold": run.threshold.item()}
    return out


def train_cases(rank: int, cases: list[dict]) -> list[dict]:
    """Several cases in one set of processes: starting them costs more than running one."""
    return [train_rank(rank, case) for case in cases]
