"""Every margin loss once more: dense, for a whole matrix of cosines, straight from its formula.

Nothing here calls the library's margins; autograd makes the gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_plus.losses.margins.adacos import AdaCos
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.elasticface import ElasticFace
from arcface_plus.losses.margins.family import Margin, margin_logits
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.losses.margins.mv_softmax import MVSoftmax
from arcface_plus.losses.margins.uniface import UniFace


@dataclass
class Run:
    """What a loss carries along: its running averages, and the numbers seen in this step."""

    seed: int = 0
    step: int = 0
    state: dict[str, float] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    seen: list[Tensor] = field(default_factory=list)
    threshold: Tensor | None = None

    def begin(self, step: int) -> None:
        self.step, self.before, self.seen = step, dict(self.state), []


def first_state(margin, classes: int) -> dict[str, float]:
    if isinstance(margin, AdaCos):
        return {"s": float(np.float32(math.sqrt(2) * math.log(classes - 1)))}  # as stored
    if isinstance(margin, CurricularFace):
        return {"t": 0.0}
    if isinstance(margin, AdaFace):
        return {"mean": margin.start_mean, "deviation": margin.start_deviation}
    return {}


def dense_losses(margin, x: Tensor, weight: Tensor, y: Tensor, active: Tensor, run: Run, places):
    """Return the loss of each sample (B,), norm penalty and all, of the classes in ``active``.

    ``places``: the samples' places in the step's global batch.
    """
    cosine = F.normalize(x, dim=1) @ F.normalize(weight, dim=1).t()
    # Several centres a class, one after another: the nearest counts.
    cosine = cosine.view(len(x), len(active), -1).amax(dim=2)
    own = cosine[torch.arange(len(y)), y]
    if isinstance(margin, Margin):
        logits = margin_logits(cosine, y, margin).masked_fill(~active, -torch.inf)
        return F.cross_entropy(logits, y, reduction="none")
    norm, extra = x.norm(dim=1), 0.0
    one_hot = F.one_hot(y, cosine.shape[1]).bool()
    theta = own.acos()
    others = cosine
    if isinstance(margin, MVSoftmax):
        raw = own - margin.m if margin.base == "am" else torch.cos(theta + margin.m)
        target = torch.where(own > 0, raw, own) if margin.extension == "easy" else raw
        slope = margin.t + 1 if margin.weighting == "adaptive" else 1.0
        hard = cosine.detach() > raw.detach()[:, None]
        others = torch.where(hard, slope * cosine + margin.t, cosine)
    elif isinstance(margin, CurricularFace):
        raw = torch.cos(theta + margin.m)
        run.seen.append(own.detach())
        mean = torch.cat(run.seen).mean().item()
        t = run.state["t"] = 0.99 * run.before["t"] + 0.01 * mean
        target = torch.where(
            own > math.cos(math.pi - margin.m), raw, own - margin.m * math.sin(margin.m)
        )
        others = torch.where(cosine.detach() > raw.detach()[:, None], cosine * (t + cosine), cosine)
    elif isinstance(margin, MagFace):
        a = norm.clamp(margin.l_a, margin.u_a)
        m = (margin.u_m - margin.l_m) / (margin.u_a - margin.l_a) * (a - margin.l_a) + margin.l_m
        raw = own * torch.cos(m) - (1 - own * own).sqrt() * torch.sin(m)
        if margin.extension == "easy":
            target = torch.where(own > 0, raw, own)
        else:
            target = torch.where(own > torch.cos(math.pi - m), raw, own - m * torch.sin(m))
        extra = margin.penalty * (1 / a + a / margin.u_a**2)
    elif isinstance(margin, AdaFace):
        held = norm.detach().clamp(0.001, 100)
        run.seen.append(held)
        seen = torch.cat(run.seen)
        for name, value in (("mean", seen.mean()), ("deviation", seen.std())):
            run.state[name] = 0.99 * run.before[name] + 0.01 * value.item()
        z = margin.h * (held - run.state["mean"]) / (run.state["deviation"] + 1e-3)
        z = z.clamp(-1, 1)
        shifted = (theta - margin.m * z).clamp(1e-3, math.pi - 1e-3)
        target = torch.cos(shifted) - margin.m - margin.m * z
    elif isinstance(margin, ElasticFace):
        key = np.array([run.seed ^ (0xE1A5 << 32), run.step], dtype=np.uint64)
        draws = np.random.Generator(np.random.Philox(key=key))
        draws = draws.standard_normal(10_000, dtype=np.float32)[np.asarray(places)]
        m = margin.m + margin.std * torch.from_numpy(draws).to(x.dtype)
        if margin.order != "drawn":
            rising = m.sort().values.tolist()
            falling = sorted(range(len(y)), key=lambda i: -own[i].item())
            if margin.order == "rank":  # the k-th largest cosine has the k-th smallest margin
                m = torch.tensor([rising[falling.index(i)] for i in range(len(y))], dtype=x.dtype)
            else:
                m = torch.tensor([rising[falling[i]] for i in range(len(y))], dtype=x.dtype)
        target = torch.cos(theta + m) if margin.base == "arc" else own - m
    elif isinstance(margin, UniFace):
        positive = F.softplus(-(margin.s * (own - margin.m) - run.threshold), threshold=60)
        negative = F.softplus(margin.s * cosine - run.threshold, threshold=60)
        negative = negative.masked_fill(one_hot | ~active, 0).sum(dim=1)
        return positive + margin.negatives * negative
    elif isinstance(margin, AdaCos):
        s = run.before["s"]
        if margin.dynamic:
            terms = (s * cosine.detach()).exp().masked_fill(one_hot | ~active, 0)
            run.seen.append(torch.stack([terms.sum(dim=1), theta.detach()]))
            sums, angles = torch.cat(run.seen, dim=1)
            median = angles.sort().values[(len(angles) - 1) // 2].item()
            s = math.log(sums.mean()) / math.cos(min(math.pi / 4, median))
            run.state["s"] = s
        logits = (s * cosine).masked_fill(~active, -torch.inf)
        return F.cross_entropy(logits, y, reduction="none")
    logits = margin.s * torch.where(one_hot, target[:, None], others)
    logits = logits.masked_fill(~active, -torch.inf)
    return F.cross_entropy(logits, y, reduction="none") + extra
