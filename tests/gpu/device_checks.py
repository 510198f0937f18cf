"""What must hold on a device, as plain functions: ``make gpu`` runs them, and so do the tests.

Each takes the device to check and returns what it measured, in words; it fails by an assertion. The
reference is the CPU. ``CHECKS`` has the most important ones first.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from launch import join_as_under_torchrun, start_ranks
from torch import Tensor, nn
from torch.nn import functional as F

from arcface_plus.distributed import contiguous_part, start_world
from arcface_plus.evaluation.embedding.embed import embed
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.base import MarginLoss
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.elasticface import ElasticFace
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.losses.margins.mv_softmax import MVSoftmax
from arcface_plus.losses.margins.uniface import UniFace
from arcface_plus.models import build_model
from arcface_plus.models.autocast import fp32_products
from arcface_plus.models.weights import load_model
from arcface_plus.regularizers.geometry.sphere import UnitRows
from arcface_plus.regularizers.nearest.search import (
    nearest_neighbors,
    search_between,
    search_few,
)
from arcface_plus.runs.train import train
from arcface_plus.training.optim import build_optimizers
from arcface_plus.training.settings import OptimConfig
from arcface_plus.training.trainer import Trainer

CPU = torch.device("cpu")
TINY = """
name: tiny
seed: 1
data: {source: synthetic, num_classes: 13, images_per_class: 6, size: 32, workers: 0}
model: {name: iresnet18, embedding_dim: 16, width: 8, dropout: 0.0}
head: {margin: {s: 16}}
optim: {lr: 0.05}
train: {steps: 6, global_batch: 12, log_every: 3, checkpoint_every: 3, precision: fp32}
"""


# -- neighbours --------------------------------------------------------------------------------


def unit_rows(kind: str, n: int, d: int) -> Tensor:
    """Return rows (n, d) that are hard in the way their name says."""
    generator = torch.Generator().manual_seed(0)
    rows, noise = (torch.randn(n, d, generator=generator) for _ in range(2))
    half = rows[: -(-n // 2)].repeat(2, 1)[:n]
    rows = {
        "random": rows,
        "pairs": half + 1e-2 * noise,
        "tight": half + 1e-5 * noise,
        "duplicates": half,
        "clusters": rows[: -(-n // 12)].repeat(12, 1)[:n] + 0.3 * noise,
        "cone": rows + 5 * torch.randn(d, generator=generator),
        "collapsed": rows[:1] + 1e-6 * noise,
    }[kind]
    return F.normalize(rows.double(), dim=1).float()


def excess(a: Tensor, b: Tensor, index: Tensor, *, own: bool) -> float:
    """Return by how much the chord to the found rows exceeds the shortest one, at most."""
    worst = 0.0
    columns = torch.arange(len(b), device=b.device)
    for low in range(0, len(a), 1024):
        part = slice(low, low + 1024)
        chord = torch.cdist(
            a[part].double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        if own:
            chord[columns[None] == columns[part][:, None]] = math.inf
        found = chord.gather(1, index[part, None])[:, 0]
        worst = max(worst, float((found - chord.amin(1)).max()))
    return worst


def neighbours(kind: str) -> Callable[[torch.device], str]:
    def check(device: torch.device) -> str:
        """The search finds the nearest row, in either precision and between sets."""
        rows = unit_rows(kind, 2500, 96).to(device)
        worst = {}
        for precision in ("fp32", "bf16", "auto"):
            index = nearest_neighbors(rows, precision=precision).index
            worst[precision] = excess(rows, rows, index, own=True)
        a, b = rows[:700], rows[700:]
        of_a, of_b = search_between(UnitRows(a), UnitRows(b), precision="bf16")
        few = search_few(a[:9], UnitRows(3 * b, torch.full((len(b),), 3.0, device=device)), None)
        worst["between"] = max(
            excess(a, b, of_a, own=False),
            excess(b, a, of_b, own=False),
            excess(a[:9], b, few, own=False),
        )
        assert max(worst.values()) < 1e-6, worst
        return f"chords at most {max(worst.values()):.1e} above the shortest"

    return check


# -- steps -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What three optimizer steps are made of."""

    margin: MarginLoss | None = None
    precision: str = "fp32"
    accumulate: int = 1
    sample_rate: float = 1.0
    dense_gradient: bool = False
    mma_rows: int | None = None


@dataclass
class Outcome:
    losses: Tensor
    gradients: list[Tensor]
    weights: list[Tensor]


def make_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.PReLU(8), nn.Flatten(),
        nn.Linear(8 * 49, 16),
    )  # fmt: skip


def three_steps(case: Case, device: torch.device) -> Outcome:
    """Return losses, the first step's gradients, and the weights after three steps, on the CPU."""
    torch.manual_seed(0)
    classes, batch = 61, 24
    net = make_net().to(device)
    head = ClassifierHead(
        classes,
        16,
        case.margin,
        mma_weight=0.3,
        mma_rows=case.mma_rows,
        sample_rate=case.sample_rate,
        dense_gradient=case.dense_gradient,
    ).to(device)
    optimizers = build_optimizers(net, head, OptimConfig(lr=0.05))
    scaler = torch.amp.GradScaler(device.type, enabled=case.precision == "fp16", init_scale=2.0**10)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(case.precision)
    images = torch.randn(3, batch, 3, 16, 16)
    labels = torch.randint(classes, (3, batch))
    outcome = Outcome(torch.zeros(3), [], [])
    for step in range(3):
        x, y = images[step].to(device), labels[step].to(device)
        plan = head.plan_step(y, step, sizes=[batch])
        parts = list(zip(x.chunk(case.accumulate), y.chunk(case.accumulate), strict=True))
        for number, (some, own) in enumerate(parts):
            with torch.autocast(device.type, dtype=half, enabled=half is not None):
                embeddings = net(some)
            last = number == len(parts) - 1
            output = head(embeddings, own, plan=plan, sizes=[len(own)], with_mma=last)
            scaler.scale(output.loss).backward()
            outcome.losses[step] += output.loss.detach().cpu()
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        if step == 0:
            grads = [p.grad for p in [*net.parameters(), *head.parameters()]]
            outcome.gradients = [
                (g.to_dense() if g.is_sparse else g).cpu().clone() for g in grads if g is not None
            ]
        for optimizer in optimizers:
            optimizer.grad_scale = None
            optimizer.found_inf = torch.zeros((), device=device)
            optimizer.step()
            optimizer.zero_grad()
        scaler.update()
    outcome.weights = [p.detach().cpu() for p in [*net.parameters(), *head.parameters()]]
    return outcome


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    """Return ‖a − b‖/‖b‖ of all numbers together."""
    one, other = (torch.cat([t.flatten().double() for t in tensors]) for tensors in (a, b))
    return float((one - other).norm() / other.norm())


# Relative distance of losses, gradients and weights from the CPU's in fp32, by precision.
TOLERANCE = {"fp32": 1e-5, "tf32": 5e-3, "bf16": 5e-2, "fp16": 1e-2}


def steps(case: Case) -> Callable[[torch.device], str]:
    def check(device: torch.device) -> str:
        """Losses, gradients and three steps are the CPU's."""
        with fp32_products(tf32=case.precision == "tf32"):
            found = three_steps(case, device)
            expected = three_steps(replace(case, precision="fp32"), CPU)
        off = {
            "losses": distance([found.losses], [expected.losses]),
            "gradients": distance(found.gradients, expected.gradients),
            "weights": distance(found.weights, expected.weights),
        }
        limit = TOLERANCE[case.precision]
        assert max(off.values()) <= limit, f"{off}, but at most {limit} is allowed"
        return f"relative distance from the CPU {max(off.values()):.1e}, at most {limit}"

    return check


# -- runs --------------------------------------------------------------------------------------


@contextlib.contextmanager
def configuration() -> Iterator[Path]:
    """Give the path of a tiny configuration in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.yaml"
        path.write_text(TINY + f"output: {folder}/runs\n")
        yield path


def run(path: Path, device: torch.device, *words: str, resume: str = "never") -> Path:
    return train(path, ["--train.device", device.type, *words], resume=resume)


def weights_of(folder: Path) -> list[Tensor]:
    return [value.float().cpu() for value in load_model(folder).state_dict().values()]


def no_waits(*words: str) -> Callable[[torch.device], str]:
    def check(device: torch.device) -> str:
        """Steps between log lines run under set_sync_debug_mode("error")."""
        original, watched = Trainer.train_step, []

        def step(trainer: Trainer, batch) -> None:  # type: ignore[no-untyped-def]
            # The first step sets libraries up, which waits.
            watch = device.type == "cuda" and batch.step > 0
            if watch:
                torch.cuda.set_sync_debug_mode("error")
            try:
                original(trainer, batch)
                watched.append(batch.step)
            finally:
                if watch:
                    torch.cuda.set_sync_debug_mode("default")

        Trainer.train_step = step  # type: ignore[method-assign]
        try:
            with configuration() as path:
                run(path, device, *words)
        finally:
            Trainer.train_step = original  # type: ignore[method-assign]
        assert watched == list(range(6))
        return "5 steps without a synchronisation"

    return check


def checkpoints_cross(device: torch.device) -> str:
    """A checkpoint of the device is resumed on the CPU, and the reverse, as the CPU's run goes."""
    with configuration() as path:
        expected = weights_of(run(path, CPU, "--name", "whole"))
        off = []
        for name, first, then in (("there", device, CPU), ("back", CPU, device)):
            folder = run(path, first, "--name", name)
            shutil.rmtree(folder / "checkpoints" / "step-00000006")
            again = run(path, then, "--name", name, resume="auto")
            off.append(distance(weights_of(again), expected))
    assert max(off) <= 1e-4, off
    return f"weights after six steps {max(off):.1e} from the CPU's run"


def half_precision_runs(device: torch.device) -> str:
    """fp16 with its scaler, and bf16, train; the scale is logged."""
    with configuration() as path:
        folder = run(path, device, "--train.precision", "fp16", "--name", "fp16")
        entries = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
        last = [entry for entry in entries if entry["kind"] == "train"][-1]
        assert math.isfinite(last["loss"]) and last["loss_scale"] >= 1
        run(path, device, "--train.precision", "bf16", "--name", "bf16")
    return f"loss scale {last['loss_scale']:g} after six steps"


def deterministic(device: torch.device) -> str:
    """Under torch's deterministic algorithms two runs have the same bits."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    try:
        with configuration() as path:
            words = ["--head.sample_rate", "0.5", "--model.dropout", "0.3"]
            one, two = (weights_of(run(path, device, *words, "--name", n)) for n in "ab")
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    return "two runs, the same bits"


def embeddings(device: torch.device) -> str:
    """A net embeds as on the CPU."""
    torch.manual_seed(0)
    model = build_model("iresnet18", embedding_dim=64, width=16, size=112)
    images = torch.randint(256, (16, 112, 112, 3), dtype=torch.uint8).numpy()
    expected = torch.from_numpy(embed(model, images, device="cpu"))
    found = torch.from_numpy(embed(model, images, device=device))
    off = distance([found], [expected])
    assert off <= 1e-5, off
    return f"relative distance {off:.1e}"


def synchronised_statistics(device: torch.device) -> str:
    """A net with SyncBN trains, in a world of one like one without it."""
    if device.type != "cuda":
        return "left out: SyncBN is for GPUs"
    with configuration() as path:
        plain = weights_of(run(path, device, "--name", "plain"))
        shared = run(path, device, "--name", "shared", "--train.sync_batch_norm", "true")
        off = distance(weights_of(shared), plain)
    assert off <= 1e-4, off
    return f"weights {off:.1e} from those without it"


# -- ranks -------------------------------------------------------------------------------------


def rank_step(rank: int, kind: str, world_size: int, cards: str | None) -> tuple[Tensor, ...]:
    """Return loss, gradient of this rank's embeddings and of its class weights, on the CPU."""
    (environment,) = join_as_under_torchrun(rank, 1)
    os.environ |= environment | {"LOCAL_WORLD_SIZE": str(world_size)}
    if cards is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = cards
    with start_world(kind) as world:
        torch.manual_seed(0)
        x, y = torch.randn(15, 16), torch.randint(61, (15,))
        parts = [contiguous_part(15, r, world.size) for r in range(world.size)]
        part = slice(*parts[world.rank])
        mine = x[part].to(world.device).requires_grad_()
        head = ClassifierHead(61, 16, Margin(s=16), mma_weight=0.3, sample_rate=0.7)
        head = head.to(world.device)
        sizes = [high - low for low, high in parts]
        loss = head(mine, y[part].to(world.device), 3, sizes=sizes).loss
        loss.backward()
        assert mine.grad is not None and head.weight.grad is not None
        results = loss.detach(), mine.grad / world.size, head.weight.grad.to_dense()
        return tuple(each.cpu() for each in results)


def ranks(count: int | None, cards: str | None) -> Callable[[torch.device], str]:
    def check(device: torch.device) -> str:
        """The loss and gradients of several ranks are those of one; ``count`` None: all GPUs."""
        world = count or (torch.cuda.device_count() if device.type == "cuda" else 2)
        if count is None and world < 2:
            return "left out: one GPU"
        (expected,) = start_ranks(rank_step, 1, "cpu", 1, None)
        found = start_ranks(rank_step, world, device.type, world, cards)
        off = max(distance([loss], [expected[0]]) for loss, _, _ in found)
        for at in (1, 2):
            joined = torch.cat([each[at] for each in found])
            off = max(off, distance([joined], [expected[at]]))
        assert off <= 1e-5, off
        return f"{world} ranks, relative distance from one process on the CPU {off:.1e}"

    return check


MARGINS: dict[str, MarginLoss | None] = {
    "arcface": Margin(s=16),
    "cosface": Margin(m2=0, m3=0.35, s=16),
    "sphereface": Margin(m1=1.35, m2=0, s=16),
    "softmax": None,
    "magface": MagFace(s=16),
    "adaface": AdaFace(s=16),
    "curricularface": CurricularFace(s=16),
    "mv_softmax": MVSoftmax(s=16),
    "elasticface": ElasticFace(s=16),
    "uniface": UniFace(s=16),
}
KINDS = ("random", "cone", "duplicates", "tight", "collapsed", "clusters", "pairs")
ARCFACE = Case(MARGINS["arcface"])

CHECKS: dict[str, Callable[[torch.device], str]] = {
    **{f"neighbours of {kind} rows": neighbours(kind) for kind in KINDS[:3]},
    "three steps: arcface": steps(ARCFACE),
    "no synchronisation": no_waits(),
    "no synchronisation: Partial FC, accumulation, clipping": no_waits(
        "--head.sample_rate", "0.4", "--train.accumulate", "2", "--optim.clip_norm", "1"
    ),
    "no synchronisation: sampled MMA, fp16": no_waits(
        "--head.mma_rows", "5", "--train.precision", "fp16"
    ),
    "embeddings": embeddings,
    "a checkpoint from the device to the CPU and back": checkpoints_cross,
    **{
        f"three steps: {name}": steps(Case(margin))
        for name, margin in MARGINS.items()
        if name != "arcface"
    },
    "one rank": ranks(1, None),
    "two ranks on one card, through the host": ranks(2, "0"),
    "a rank on every card": ranks(None, None),
    "three steps: accumulation": steps(replace(ARCFACE, accumulate=3)),
    "three steps: Partial FC": steps(replace(ARCFACE, sample_rate=0.3, accumulate=2)),
    "three steps: Partial FC, dense": steps(replace(ARCFACE, sample_rate=0.3, dense_gradient=True)),
    "three steps: sampled MMA": steps(replace(ARCFACE, mma_rows=7, sample_rate=0.5)),
    **{
        f"three steps: {precision}": steps(replace(ARCFACE, precision=precision))
        for precision in ("bf16", "fp16", "tf32")
    },
    "runs in half precision": half_precision_runs,
    "deterministic": deterministic,
    "SyncBN": synchronised_statistics,
    **{f"neighbours of {kind} rows": neighbours(kind) for kind in KINDS[3:]},
}
