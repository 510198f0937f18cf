"""Our margin losses beside the published modules: loss and gradients on random batches.

A folder holds copies of the public repositories in ``PEERS``, as checkouts (FOLDER/NAME or
FOLDER/OWNER+NAME) or bare clones (FOLDER/OWNER+NAME/repo). Their modules are EXECUTED: look at them
first. The loss and its gradients with respect to embeddings and class weights are compared in
float64 and in float32; the largest differences are shown, relative to the size of the number or to
the norm of the gradient.

Shapes: embeddings x (B, D), class weights w (C, D), labels y (B,).
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.losses.head import classifier as head_module
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.adacos import AdaCos
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.base import MarginLoss
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.elasticface import ElasticFace
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.losses.margins.mv_softmax import MVSoftmax
from arcface_plus.losses.margins.uniface import UniFace, first_threshold

CLASSES, DIM, BATCH = 200, 64, 32
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
# A module's result at embeddings and labels: logits, or the loss itself.
Call = Callable[[Any, Tensor, Tensor], Tensor]


class Case(NamedTuple):
    """One of our losses and theirs; samples whose own cosine is below the least are left out."""

    label: str
    ours: MarginLoss
    theirs: Loss
    least_cosine: float = -1.0


def _on_weight(
    module: nn.Module, name: str, call: Call = nn.Module.__call__, *, turned: bool = True
) -> Loss:
    """Return the loss of a module that holds the class weights, ``turned`` to (D, C), as ``name``.

    The weights take the place of its parameter; its random draws are those of seed 0.
    """

    def loss(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        torch.manual_seed(0)
        module._parameters.pop(name, None)
        setattr(module, name, w.t() if turned else w)
        result = call(module, x, y)
        return F.cross_entropy(result, y) if result.ndim else result

    return loss


def _on_cosines(module: nn.Module) -> Loss:
    """Return the loss of a module that takes the cosines."""
    return lambda x, w, y: F.cross_entropy(
        module((F.normalize(x) @ F.normalize(w).t()).clamp(-1, 1), y), y
    )


def insightface(peer: Any) -> Iterator[Case]:
    arc, cos = Margin(extension="raw", gradient="straight_through"), Margin(m2=0, m3=0.4)
    combined = peer.CombinedMarginLoss(64.0, 1.0, 0.5, 0.0)
    filtered = peer.CombinedMarginLoss(64.0, 1.0, 0.0, 0.4, interclass_filtering_threshold=0.0)
    yield Case("ArcFace 0.5", arc, _on_cosines(peer.ArcFace(s=64.0, margin=0.5)))
    yield Case("CosFace 0.4", cos, _on_cosines(peer.CosFace(s=64.0, m=0.4)))
    yield Case("combined (1, .5, 0)", arc, _on_cosines(combined))
    yield Case("combined (1, 0, .4)", cos, _on_cosines(filtered))


def curricularface(peer: Any) -> Iterator[Case]:
    for label, name, ours in (
        ("CurricularFace", "CurricularFace", CurricularFace()),
        ("ArcFace 0.5", "ArcFace", Margin()),
    ):
        module = getattr(peer, name)(DIM, CLASSES)
        yield Case(label, ours, _on_weight(module, "kernel", lambda module, x, y: module(x, y)[0]))


def magface(peer: Any) -> Iterator[Case]:
    mag_loss = peer.MagLoss(10, 110, 0.45, 0.8, scale=64.0)

    def call(module: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits, norm = module(x, lambda a: (0.8 - 0.45) / (110 - 10) * (a - 10) + 0.45, 10, 110)
        entropy, penalty, _ = mag_loss(logits, y, norm)
        return entropy + 35 * penalty

    for extension in ("easy", "hard"):
        module = peer.MagLinear(DIM, CLASSES, scale=64.0, easy_margin=extension == "easy")
        ours = MagFace(extension=extension)
        yield Case(f"MagFace, {extension}", ours, _on_weight(module, "weight", call))


def adaface(peer: Any) -> Iterator[Case]:
    module = peer.AdaFace(DIM, CLASSES, m=0.4, h=0.333, s=64.0, t_alpha=0.01)
    theirs = _on_weight(
        module, "kernel", lambda module, x, y: module(F.normalize(x), x.norm(dim=1)[:, None], y)
    )
    yield Case("AdaFace", AdaFace(), theirs)


def elasticface(peer: Any) -> Iterator[Case]:
    for base, name, m in (("arc", "ElasticArcFace", 0.5), ("cos", "ElasticCosFace", 0.35)):
        for plus in (False, True):
            module = getattr(peer, name)(DIM, CLASSES, s=64.0, m=m, std=0.05, plus=plus)
            order = "argsort" if plus else "drawn"
            ours = ElasticFace(base=base, m=m, std=0.05, order=order)  # type: ignore[arg-type]
            label = f"ElasticFace-{base.title()}{'+' if plus else ''}"
            yield Case(label, ours, _on_weight(module, "kernel"))


def uniface(peer: Any) -> Iterator[Case]:
    module = peer.Unified_Cross_Entropy_Loss(DIM, CLASSES, m=0.4, s=64, l=1.0, r=1.0)
    # Their exponents are held within ±s, which ours are not: only where that changes nothing.
    least = (first_threshold(CLASSES, 1.0) - 64) / 64 + 0.4
    theirs = _on_weight(
        module, "weight", lambda module, x, y: module(x, y, torch.arange(CLASSES)), turned=False
    )
    yield Case("UniFace within ±s", UniFace(), theirs, least)


def mv_softmax(peer: Any) -> Iterator[Case]:
    for base, kind, m in (("am", "MV-AM", 0.35), ("arc", "MV-Arc", 0.5)):
        for extension in ("easy", "raw"):
            module = peer.FC(kind, m, 0.2, 32, DIM, CLASSES, easy_margin=extension == "easy")
            ours = MVSoftmax(base=base, m=m, extension=extension)  # type: ignore[arg-type]
            theirs = _on_weight(module, "weight", lambda module, x, y: module(F.normalize(x), y))
            yield Case(f"{kind}, {extension}", ours, theirs)


def adacos(peer: Any) -> Iterator[Case]:
    module = peer.AdaCos(DIM, CLASSES)
    yield Case("AdaCos, dynamic", AdaCos(), _on_weight(module, "W", turned=False))


# Repository: module in it, what to compare.
PEERS: dict[str, tuple[str, Callable[[Any], Iterator[Case]]]] = {
    "deepinsight/insightface": ("recognition/arcface_torch/losses.py", insightface),
    "HuangYG123/CurricularFace": ("head/metrics.py", curricularface),
    "IrvingMeng/MagFace": ("models/magface.py", magface),
    "mk-minchul/AdaFace": ("head.py", adaface),
    "fdbtrs/ElasticFace": ("utils/losses.py", elasticface),
    "CVI-SZU/UniFace": ("head.py", uniface),
    "4uiiurz1/pytorch-adacos": ("metrics.py", adacos),
    "xiaoboCASIA/SV-X-Softmax": ("fc_layers.py", mv_softmax),
}


def compare(
    folder: Path, batches: int, tolerance: float, show: Callable[[str], object]
) -> list[str]:
    """Give ``show`` a line a loss, float64 then float32; return what differs by too much.

    Where there is nothing to compare, that is returned.
    """
    wrong = []
    sources = {name: source_of(folder, name, path) for name, (path, _) in PEERS.items()}
    show(f"{'':42} {'float64':>26}  {'float32':>26}")
    show(f"{'':42} " + "  ".join([f"{'loss':>8} {'∂x':>8} {'∂w':>8}"] * 2))
    for repository, source in sources.items():
        if source is None:
            show(f"{repository}: not in {folder}")
            continue
        found: dict[str, list[tuple[float, ...]]] = {}
        for dtype in (torch.float64, torch.float32):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as after:
                after.callback(torch.set_default_dtype, torch.get_default_dtype())
                torch.set_default_dtype(dtype)
                for case in PEERS[repository][1](load(source, repository)):
                    three = differences(case, dtype, batches)
                    found.setdefault(case.label, []).append(three)
        for label, numbers in found.items():
            cells = "  ".join(" ".join(f"{d:8.1e}" for d in three) for three in numbers)
            show(f"{repository.split('/')[1] + ': ' + label:42} {cells}")
            if not max(three[0] for three in numbers) <= tolerance:
                wrong.append(f"loss differs by more than {tolerance}: {repository}: {label}")
    return wrong if any(sources.values()) else [f"{folder} holds none of the repositories."]


def source_of(folder: Path, repository: str, path: str) -> str | None:
    """Return the text of a file of a repository, or None where ``folder`` has no copy of it."""
    owner, name = repository.split("/")
    for copy in (folder / f"{owner}+{name}" / "repo", folder / f"{owner}+{name}", folder / name):
        if (copy / path).is_file():
            return (copy / path).read_text(encoding="utf-8")
        if (copy / "HEAD").is_file():
            show = ["git", f"--git-dir={copy}", "show", f"HEAD:{path}"]
            return subprocess.run(show, capture_output=True, text=True, check=True).stdout
    return None


def load(source: str, name: str) -> ModuleType:
    """Execute a module's text, with empty stand-ins for what it imports but losses do not need."""
    module = ModuleType(name)
    unneeded = {n: mock.MagicMock() for n in ("models", "models.iresnet", "termcolor")}
    with mock.patch.dict(sys.modules, unneeded), mock.patch.object(sys, "path", list(sys.path)):
        exec(compile(source, name, "exec"), module.__dict__)
    return module


def batch(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings, class weights and labels; own cosines go from far below 0 to near 1."""
    g = torch.Generator().manual_seed(number)
    weight = torch.randn(CLASSES, DIM, generator=g, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=g)
    pull = torch.linspace(-0.5, 2.0, BATCH, dtype=torch.float64)[:, None]
    x = pull * F.normalize(weight[labels]) * 8 + torch.randn(BATCH, DIM, generator=g).double()
    norm = torch.linspace(5, 120, BATCH, dtype=torch.float64)[:, None]
    return F.normalize(x) * norm, weight, labels


def differences(case: Case, dtype: torch.dtype, batches: int) -> tuple[float, ...]:
    """Return the largest relative differences of loss, embedding and weight gradients."""

    def their_draws(seed: int, step: int, places: np.ndarray) -> np.ndarray:
        """ElasticFace's margins as its module draws them."""
        assert isinstance(case.ours, ElasticFace)
        torch.manual_seed(0)
        drawn = torch.normal(case.ours.m, case.ours.std, size=(len(places), 1))
        return ((drawn - case.ours.m) / case.ours.std).squeeze(1).numpy()

    head = ClassifierHead(CLASSES, DIM, case.ours, mma_weight=0.0).to(dtype)
    worst: tuple[float, ...] = (0.0, 0.0, 0.0)
    for number in range(batches):
        x, w, y = (t.to(dtype) if t.is_floating_point() else t for t in batch(number))
        keep = F.cosine_similarity(x, w[y]) > case.least_cosine
        x, w, y = x[keep].requires_grad_(), w.requires_grad_(), y[keep]
        with torch.no_grad():
            head.weight.copy_(w)
        with mock.patch.object(head_module, "normal_draws", their_draws):
            loss = head(x, y, number).loss
        other = case.theirs(x, w, y)
        found = [abs(loss.item() - other.item()) / max(1.0, abs(other.item()))]
        ours = torch.autograd.grad(loss, (x, head.weight))
        for a, b in zip(ours, torch.autograd.grad(other, (x, w)), strict=True):
            found.append(((a - b).norm() / b.norm()).item())
        worst = tuple(map(max, worst, found))
    return worst
