"""Compare our margin losses with the published modules, for developers.

python tools/compare_margins.py FOLDER [--batches 5] [--tolerance 1e-5]

FOLDER holds copies of the public repositories below, as checkouts (FOLDER/NAME or
FOLDER/OWNER+NAME) or bare clones (FOLDER/OWNER+NAME/repo). Their modules are EXECUTED: look at them
first. On random batches, the loss and its gradients with respect to embeddings and class weights
are compared, in float64 and in float32; the largest differences are shown, relative to the size of
the number or to the norm of the gradient. Exit 1 where a loss differs by more than the tolerance.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_plus.losses.head import classifier as head_module
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.base import MarginLoss
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.elasticface import ElasticFace
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.losses.margins.mv_softmax import MVSoftmax
from arcface_plus.losses.margins.uniface import (
    UniFace,
    first_threshold,
)

CLASSES, DIM, BATCH = 200, 64, 32
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # embeddings, class weights (C, D), labels


@dataclass
class Case:
    label: str
    ours: MarginLoss
    theirs: Loss
    least_cosine: float = -1.0  # samples with a lower own cosine are left out


def _with_weight(module: torch.nn.Module, name: str, weight: Tensor) -> torch.nn.Module:
    """Make ``weight`` a plain attribute of the module in place of its parameter."""
    module._parameters.pop(name, None)
    setattr(module, name, weight)
    return module


def insightface(peer: ModuleType) -> Iterator[Case]:
    def dense(loss: torch.nn.Module) -> Loss:
        def call(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
            cosine = F.linear(F.normalize(x), F.normalize(w)).clamp(-1, 1)
            return F.cross_entropy(loss(cosine, y), y)

        return call

    arc = Margin(extension="raw", gradient="straight_through")
    yield Case("ArcFace 0.5", arc, dense(peer.ArcFace(s=64.0, margin=0.5)))
    yield Case("CosFace 0.4", Margin(m2=0, m3=0.4), dense(peer.CosFace(s=64.0, m=0.4)))
    combined = peer.CombinedMarginLoss
    yield Case("combined (1, .5, 0)", arc, dense(combined(64.0, 1.0, 0.5, 0.0)))
    filtered = dense(combined(64.0, 1.0, 0.0, 0.4, interclass_filtering_threshold=0.0))
    yield Case("combined (1, 0, .4)", Margin(m2=0, m3=0.4), filtered)


def curricularface(peer: ModuleType) -> Iterator[Case]:
    def dense(module: torch.nn.Module) -> Loss:
        def call(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(_with_weight(module, "kernel", w.t())(x, y)[0], y)

        return call

    yield Case("CurricularFace", CurricularFace(), dense(peer.CurricularFace(DIM, CLASSES)))
    yield Case("ArcFace 0.5", Margin(), dense(peer.ArcFace(DIM, CLASSES)))


def magface(peer: ModuleType) -> Iterator[Case]:
    loss = peer.MagLoss(10, 110, 0.45, 0.8, scale=64.0)

    def margin(a: Tensor) -> Tensor:
        return (0.8 - 0.45) / (110 - 10) * (a - 10) + 0.45

    for easy in (True, False):
        module = peer.MagLinear(DIM, CLASSES, scale=64.0, easy_margin=easy)

        def call(x: Tensor, w: Tensor, y: Tensor, module: torch.nn.Module = module) -> Tensor:
            logits, norm = _with_weight(module, "weight", w.t())(x, margin, 10, 110)
            entropy, penalty, _ = loss(logits, y, norm)
            return entropy + 35 * penalty

        yield Case(
            f"MagFace, {'easy' if easy else 'hard'}",
            MagFace(extension="easy" if easy else "hard"),
            call,
        )


def adaface(peer: ModuleType) -> Iterator[Case]:
    module = peer.AdaFace(DIM, CLASSES, m=0.4, h=0.333, s=64.0, t_alpha=0.01)

    def call(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        norm = x.norm(dim=1, keepdim=True)
        return F.cross_entropy(_with_weight(module, "kernel", w.t())(x / norm, norm, y), y)

    yield Case("AdaFace", AdaFace(), call)


def elasticface(peer: ModuleType) -> Iterator[Case]:
    for base, name, m in (("arc", "ElasticArcFace", 0.5), ("cos", "ElasticCosFace", 0.35)):
        for plus in (False, True):
            module = getattr(peer, name)(DIM, CLASSES, s=64.0, m=m, std=0.05, plus=plus)

            def call(x: Tensor, w: Tensor, y: Tensor, module: torch.nn.Module = module) -> Tensor:
                torch.manual_seed(0)  # _their_draws makes the same ones for ours
                return F.cross_entropy(_with_weight(module, "kernel", w.t())(x, y), y)

            ours = ElasticFace(base, m=m, std=0.05, order="argsort" if plus else "drawn")
            yield Case(f"ElasticFace-{base.title()}{'+' if plus else ''}", ours, call)


def uniface(peer: ModuleType) -> Iterator[Case]:
    module = peer.Unified_Cross_Entropy_Loss(DIM, CLASSES, m=0.4, s=64, l=1.0, r=1.0)

    def call(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
        return _with_weight(module, "weight", w)(x, y, torch.arange(CLASSES))

    # Their exponents are held within ±s, which ours are not: only where that changes nothing.
    least = (first_threshold(CLASSES, 1.0) - 64) / 64 + 0.4
    yield Case("UniFace within ±s", UniFace(), call, least)


def mv_softmax(peer: ModuleType) -> Iterator[Case]:
    for base, kind, m in (("am", "MV-AM", 0.35), ("arc", "MV-Arc", 0.5)):
        for easy in (True, False):
            module = peer.FC(kind, m, 0.2, 32, DIM, CLASSES, easy_margin=easy)

            def call(x: Tensor, w: Tensor, y: Tensor, module: torch.nn.Module = module) -> Tensor:
                return F.cross_entropy(_with_weight(module, "weight", w.t())(F.normalize(x), y), y)

            ours = MVSoftmax(base, m=m, extension="easy" if easy else "raw")
            yield Case(f"{kind}, {'easy' if easy else 'raw'}", ours, call)


# Repository, module in it, what to compare.
PEERS: dict[str, tuple[str, Callable[[ModuleType], Iterator[Case]]]] = {
    "deepinsight/insightface": ("recognition/arcface_torch/losses.py", insightface),
    "HuangYG123/CurricularFace": ("head/metrics.py", curricularface),
    "IrvingMeng/MagFace": ("models/magface.py", magface),
    "mk-minchul/AdaFace": ("head.py", adaface),
    "fdbtrs/ElasticFace": ("utils/losses.py", elasticface),
    "CVI-SZU/UniFace": ("head.py", uniface),
    "xiaoboCASIA/SV-X-Softmax": ("fc_layers.py", mv_softmax),
}


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
    return (
        F.normalize(x) * torch.linspace(5, 120, BATCH, dtype=torch.float64)[:, None],
        weight,
        labels,
    )


def _their_draws(seed: int, step: int, places: np.ndarray, *, margin: ElasticFace) -> np.ndarray:
    torch.manual_seed(0)
    drawn = torch.normal(margin.m, margin.std, size=(len(places), 1))
    return ((drawn - margin.m) / margin.std).squeeze(1).numpy()


def differences(case: Case, dtype: torch.dtype, batches: int) -> tuple[float, float, float]:
    """Return the largest relative differences of loss, embedding and weight gradients."""
    head = ClassifierHead(CLASSES, DIM, case.ours, mma_weight=0.0).to(dtype)
    patch = contextlib.nullcontext()
    if isinstance(case.ours, ElasticFace):

        def draws(seed: int, step: int, places: np.ndarray) -> np.ndarray:
            return _their_draws(seed, step, places, margin=case.ours)

        patch = mock.patch.object(head_module, "normal_draws", draws)
    worst = (0.0, 0.0, 0.0)
    for number in range(batches):
        x, w, y = (t.to(dtype) if t.is_floating_point() else t for t in batch(number))
        keep = F.cosine_similarity(x, w[y]) > case.least_cosine
        x, y = x[keep], y[keep]
        theirs = [t.clone().requires_grad_() for t in (x, w)]
        mine = x.clone().requires_grad_()
        with torch.no_grad():
            head.weight.copy_(w)
        head.weight.grad = None
        with patch:
            loss = head(mine, y, number).loss
        other = case.theirs(*theirs, y)
        loss.backward()
        other.backward()
        gradients = ((mine.grad, theirs[0].grad), (head.weight.grad, theirs[1].grad))
        found = [abs(loss.item() - other.item()) / max(1.0, abs(other.item()))]
        found += [((a - b).norm() / b.norm()).item() for a, b in gradients]
        worst = tuple(map(max, worst, found))
    return worst


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    known = parser.parse_args(words)
    wrong, compared = [], 0
    print(f"{'':42} {'float64':>26}  {'float32':>26}")
    print(f"{'':42} " + "  ".join([f"{'loss':>8} {'∂x':>8} {'∂w':>8}"] * 2))
    for repository, (path, cases) in PEERS.items():
        source = source_of(known.folder, repository, path)
        if source is None:
            print(f"{repository}: not in {known.folder}")
            continue
        found: dict[str, list[tuple[float, float, float]]] = {}
        for dtype in (torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    for case in cases(load(source, repository)):
                        found.setdefault(case.label, []).append(
                            differences(case, dtype, known.batches)
                        )
            finally:
                torch.set_default_dtype(torch.float32)
        for label, numbers in found.items():
            compared += 1
            cells = "  ".join(" ".join(f"{d:8.1e}" for d in three) for three in numbers)
            print(f"{repository.split('/')[1] + ': ' + label:42} {cells}")
            if not max(three[0] for three in numbers) <= known.tolerance:
                wrong.append(f"{repository}: {label}")
    for name in wrong:
        print(f"loss differs by more than {known.tolerance}: {name}", file=sys.stderr)
    return 1 if wrong or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
