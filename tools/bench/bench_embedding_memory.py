"""Measure the peak memory of verifying three .bin sets of 12 000 images each, in a fresh process.

    python tools/bench/bench_embedding_memory.py [--pairs 6000] [--sets 3] [--json out.json]

Images are random JPEGs of 112 × 112, each with a comment of its own so that none is found twice;
the net is narrow, for what is asked is what the evaluation holds, not the network. All sets are
opened first, then embedded (mirrored too) and scored, as `arcface-plus verify` does. Bar, from
three sets of 6 000 pairs on: 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from arcface_plus.models.embedding_model import EmbeddingModel

BAR = 1.5e9
DIFFERENT = 64


def write_sets(folder: Path, sets: int, pairs: int) -> list[Path]:
    import cv2
    import numpy as np

    from arcface_plus.data.images import encode_jpeg
    from arcface_plus.data.pairs.sets import save_pairs_bin

    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(DIFFERENT):
        coarse = rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)
        encoded.append(encode_jpeg(cv2.resize(coarse, (112, 112), interpolation=cv2.INTER_CUBIC)))
    paths = []
    for number in range(sets):
        blobs = [
            with_comment(encoded[i % DIFFERENT], struct.pack(">II", number, i))
            for i in range(2 * pairs)
        ]
        paths.append(folder / f"set{number}.bin")
        save_pairs_bin(paths[-1], blobs, np.arange(pairs) % 2 == 0)
    return paths


def with_comment(jpeg: bytes, comment: bytes) -> bytes:
    """Return the image with a comment segment, which decoders skip."""
    return jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment + jpeg[2:]


def peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def narrow_net() -> EmbeddingModel:
    """Return a net of 16 channels that takes little time, with embeddings of the usual width."""
    import torch
    from torch import nn

    from arcface_plus.models.preprocessing import Preprocessing

    class Narrow(nn.Sequential):
        name = "narrow"
        embedding_dim = 512
        preprocessing = Preprocessing()

    torch.manual_seed(0)
    return cast(
        "EmbeddingModel",
        Narrow(nn.Conv2d(3, 16, 16, stride=16), nn.ReLU(), nn.Flatten(), nn.Linear(784, 512)),
    )


def score_sets(paths: list[Path]) -> None:
    """Open, embed and score the sets, and print what it took; runs in a process of its own."""
    from arcface_plus.data.pairs.sets import load_pairs
    from arcface_plus.evaluation.embedding.embed import pair_distances
    from arcface_plus.evaluation.pairs.dependence import find_units
    from arcface_plus.evaluation.pairs.intervals import score_intervals
    from arcface_plus.evaluation.pairs.verification import verify_distances

    net = narrow_net()
    before = peak_bytes()
    start = time.perf_counter()
    loaded = [load_pairs(path) for path in paths]
    opened = peak_bytes()
    for pairs in loaded:
        distances = pair_distances(net, pairs)
        result = verify_distances(distances, pairs.is_same)
        units = find_units(pairs.is_same, photographs=(pairs.index_a, pairs.index_b))
        score_intervals(
            distances, pairs.is_same, result.thresholds, units, fars=list(result.tar_at_far)
        )
    found = {
        "before": before,
        "opened": opened,
        "peak": peak_bytes(),
        "images": sum(len(pairs.used_images()) for pairs in loaded),
        "seconds": time.perf_counter() - start,
    }
    print(json.dumps(found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--sets", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the results there as well")
    parser.add_argument("--embed", nargs="+", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.embed:
        score_sets(options.embed)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        paths = write_sets(Path(folder), options.sets, options.pairs)
        size = sum(path.stat().st_size for path in paths)
        done = subprocess.run(
            [sys.executable, __file__, "--embed", *map(str, paths)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found = json.loads(done.stdout.splitlines()[-1])
    report = {**found, "files": size, "bar": BAR}
    print(
        f"{found['images']} images in {options.sets} files of {size / 1e6:.0f} MB together, in "
        f"{found['seconds']:.0f} s. Peak: {found['before'] / 1e9:.2f} GB before the first file, "
        f"{found['opened'] / 1e9:.2f} with all open, {found['peak'] / 1e9:.2f} in the end; bar "
        f"{BAR / 1e9:g}"
    )
    print(json.dumps(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    full = all(getattr(options, size) >= parser.get_default(size) for size in ("pairs", "sets"))
    return int(full and found["peak"] > BAR)


if __name__ == "__main__":
    raise SystemExit(main())
