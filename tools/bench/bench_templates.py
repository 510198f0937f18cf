"""IJB-C 1:1 from image embeddings to TAR@FAR, beside NumPy and scikit-learn.

python tools/bench/bench_templates.py [--repeats 3] [--pairs 15658489] [--anywhere]

Synthetic, in the sizes of IJB-C: 469 375 images of 3 531 subjects in 3 531 gallery and 19 593 probe
templates, 512 dimensions; each probe with its own gallery template is a genuine pair, the impostor
pairs are drawn among the others. ``--anywhere`` draws both sides of the impostor pairs from all
templates instead.

Ours: pooling of the images (read from a file in blocks), all scores, TARs at six FARs by both
rules. Baseline: float32 row-wise products of templates that are pooled already, by einsum in blocks
of 2 048 pairs, then scikit-learn's ``roc_curve`` and the same rule on its points. Each in a process
of its own, in turns; medians of wall-clock and of the peak of resident memory. Prints a Markdown
table and the largest difference between the two TARs. Bars, at IJB-C's size: the same TARs, and 5
times as fast where the impostor pairs are gallery × probe.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from arcface_plus.data.ijb_meta import TemplatePairs
from arcface_plus.evaluation.search.templates import TemplatePool, Templates, verify_templates

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
GIB = 1 << 30
SPEED_BAR = 5.0


def make(folder: Path, options: argparse.Namespace) -> None:
    """Write images.npy (N, D), their templates and media, the pooled templates and the pairs."""
    rng = np.random.default_rng(options.seed)
    gallery, probes, dim = options.gallery, options.probes, options.dim
    templates = gallery + probes
    subject = np.concatenate([np.arange(gallery), rng.integers(0, gallery, probes)])
    centres = rng.standard_normal((gallery, dim), dtype=np.float32)
    spare = rng.integers(0, templates, options.images - templates)
    owner = np.sort(np.concatenate([np.arange(templates), spare]))  # every template has an image
    # About three images a medium, as in IJB-C.
    media = rng.integers(0, max(1, options.images // 3), options.images)
    images = np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.float32, shape=(options.images, dim)
    )
    for start in range(0, options.images, 8192):
        part = slice(start, min(start + 8192, options.images))
        noise = rng.standard_normal((part.stop - start, dim), dtype=np.float32)
        images[part] = centres[subject[owner[part]]] + options.noise * noise
    images.flush()
    a, b, same = _pairs(rng, subject, options)
    np.savez(
        folder / "lists.npz",
        templates=owner,
        media=media,
        scores=rng.uniform(0.5, 1, options.images),
        a=a,
        b=b,
        same=same,
    )
    np.save(folder / "pooled.npy", _pool(folder).vectors)


def _pairs(
    rng: np.random.Generator, subject: np.ndarray, options: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    gallery, templates = options.gallery, len(subject)
    probes = np.arange(gallery, templates)
    left = templates if options.anywhere else gallery
    impostors = options.pairs - len(probes)
    a = rng.integers(0, left, impostors + impostors // 100)
    b = rng.integers(gallery if not options.anywhere else 0, templates, len(a))
    other = np.flatnonzero(subject[a] != subject[b])[:impostors]
    a, b = np.concatenate([subject[probes], a[other]]), np.concatenate([probes, b[other]])
    same = np.arange(len(a)) < len(probes)
    order = rng.permutation(len(a))
    return a[order].astype(np.int32), b[order].astype(np.int32), same[order]


def _pool(folder: Path) -> Templates:
    images = np.load(folder / "images.npy", mmap_mode="r")
    with np.load(folder / "lists.npz") as lists:
        pool = TemplatePool(lists["templates"], lists["media"], detector_scores=lists["scores"])
    for start in range(0, len(images), 4096):
        with open(folder / "images.npy", "rb") as file:
            file.seek(images.offset + start * images.shape[1] * 4)
            count = min(4096, len(images) - start)
            block = np.fromfile(file, dtype=np.float32, count=count * images.shape[1])
        pool.add(block.reshape(count, -1))
    return pool.finish()


def ours(folder: Path) -> dict[str, object]:
    with np.load(folder / "lists.npz") as lists:
        pairs = TemplatePairs(lists["a"], lists["b"], lists["same"], "synthetic")
    start = time.perf_counter()
    templates = _pool(folder)
    pooled = time.perf_counter()
    result = verify_templates(templates, pairs, fars=FARS)
    done = time.perf_counter()
    tars = [result.tar_at_far.get(far) for far in FARS]
    nearest = [result.nearest_tar[far] for far in FARS]
    return {"seconds": done - start, "pooling": pooled - start, "tars": tars, "nearest": nearest}


def baseline(folder: Path) -> dict[str, object]:
    from sklearn.metrics import roc_curve  # here, so that it does not weigh on our peak

    with np.load(folder / "lists.npz") as lists:
        a, b, same = lists["a"], lists["b"], lists["same"]
    pooled = np.load(folder / "pooled.npy")
    start = time.perf_counter()
    scores = np.empty(len(a), dtype=np.float32)
    for first in range(0, len(a), 2048):
        part = slice(first, first + 2048)
        np.einsum("ij,ij->i", pooled[a[part]], pooled[b[part]], out=scores[part])
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    impostors = int(np.count_nonzero(~same))
    tars = [float(tar[far <= t][-1]) if t * impostors >= 1 else None for t in FARS]
    done = time.perf_counter()
    far, tar, _ = roc_curve(same, scores)  # as insightface calls it; not timed
    far, tar = far[::-1], tar[::-1]
    nearest = [float(tar[np.argmin(np.abs(far - t))]) for t in FARS]
    return {"seconds": done - start, "pooling": 0.0, "tars": tars, "nearest": nearest}


def peak() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=469_375)
    parser.add_argument("--gallery", type=int, default=3_531)
    parser.add_argument("--probes", type=int, default=19_593)
    parser.add_argument("--pairs", type=int, default=15_658_489)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--noise", type=float, default=8.0)
    parser.add_argument("--anywhere", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", choices=["ours", "baseline"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        measured = {"ours": ours, "baseline": baseline}[options.worker](options.folder)
        print(json.dumps(measured | {"peak": peak()}))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        make(Path(name), options)
        rounds = [
            {which: _run(which, Path(name)) for which in ("ours", "baseline")}
            for _ in range(options.repeats)
        ]
    speed_up, gap = _report(rounds, options)
    full = all(getattr(options, k) >= parser.get_default(k) for k in ("images", "pairs", "dim"))
    return int(full and (gap > 0 or (speed_up < SPEED_BAR and not options.anywhere)))


def _run(which: str, folder: Path) -> dict[str, object]:
    command = [sys.executable, __file__, "--worker", which, "--folder", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def _report(rounds: list[dict[str, dict]], options: argparse.Namespace) -> tuple[float, float]:
    """Print what was measured; return the median speed-up and the largest difference of TARs."""
    drawn = "any two templates" if options.anywhere else "gallery × probe"
    print(f"{options.pairs} pairs ({drawn}), {options.dim} dimensions, {len(rounds)} rounds\n")
    print("| | seconds (median) | of it pooling | peak GiB |\n|---|---:|---:|---:|")
    for which in ("ours", "baseline"):
        seconds, pooling, memory = (
            statistics.median(each[which][key] for each in rounds)
            for key in ("seconds", "pooling", "peak")
        )
        print(f"| {which} | {seconds:.2f} | {pooling:.2f} | {memory / GIB:.2f} |")
    ratios = sorted(each["baseline"]["seconds"] / each["ours"]["seconds"] for each in rounds)
    print(f"\nspeed-up: median {statistics.median(ratios):.1f}, lowest {ratios[0]:.1f}")
    mine, theirs = rounds[0]["ours"], rounds[0]["baseline"]
    worst = 0.0
    for rule in ("tars", "nearest"):
        gaps = [abs(x - y) for x, y in zip(mine[rule], theirs[rule], strict=True) if x is not None]
        print(f"{rule}: {mine[rule]}, largest difference {max(gaps):.2e}")
        worst = max(worst, *gaps)
    return statistics.median(ratios), worst


if __name__ == "__main__":
    raise SystemExit(main())
