"""Compare the random-record read rate of RecordReader with mxnet's, in one run.

    python tools/bench/bench_records.py [--records 30000] [--repeats 7] [--json out.json]

mxnet runs in its own environment (ARCFACE_PLUS_MXNET_PYTHON, default .venv-mxnet/bin/python) as a
process that waits for work; repeats alternate between the two, over the same file, the same random
order and a warm page cache. Both do the same: "payload" fetches a record's bytes by key, "record"
splits label and image as well. Bar, from 30 000 records on: 3 times mxnet's rate.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BAR = 3.0
TASKS = ("payload", "record")


def timed(fetch: Callable[[int], object], order: list[int]) -> float:
    start = time.perf_counter()
    for number in order:
        fetch(number)
    return time.perf_counter() - start


def random_order(count: int, seed: int) -> list[int]:
    return random.Random(seed).sample(range(count), count)


def serve_mxnet(prefix: str, count: int) -> None:
    """Answer lines "task seed" with seconds; runs under mxnet's Python."""
    from mxnet import recordio

    reader = recordio.MXIndexedRecordIO(prefix + ".idx", prefix + ".rec", "r")
    fetches = {
        "payload": reader.read_idx,
        "record": lambda key: recordio.unpack(reader.read_idx(key)),
    }
    for line in sys.stdin:
        task, seed = line.split()
        print(timed(fetches[task], random_order(count, int(seed))), flush=True)


def measure(prefix: Path, count: int, repeats: int, python: str) -> dict[str, dict[str, float]]:
    """Return records a second of both readers and their ratio, medians over repeats."""
    from arcface_plus.data.records.reader import RecordReader

    reader = RecordReader(prefix.with_suffix(".rec"))
    ours = {"payload": reader.read, "record": reader.__getitem__}
    command = [python, __file__, "--serve", str(prefix), "--records", str(count)]
    results = {}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as peer:
        assert peer.stdin is not None and peer.stdout is not None
        for task in TASKS:
            seconds: dict[str, list[float]] = {"ours": [], "mxnet": []}
            for repeat in range(repeats + 1):
                mine = timed(ours[task], random_order(count, repeat))
                print(task, repeat, file=peer.stdin, flush=True)
                theirs = float(peer.stdout.readline())
                if repeat:  # The first warms caches.
                    seconds["ours"].append(mine)
                    seconds["mxnet"].append(theirs)
            rates = {name: count / statistics.median(times) for name, times in seconds.items()}
            results[task] = {**rates, "ratio": rates["ours"] / rates["mxnet"]}
        peer.stdin.close()
    return results


def write_file(prefix: Path, count: int, image_bytes: int) -> None:
    from arcface_plus.data.records.reader import RecordWriter

    rng = random.Random(0)
    with RecordWriter(prefix.with_suffix(".rec"), layout="plain") as writer:
        for key in range(count):
            writer.write(
                rng.randbytes(rng.randint(image_bytes // 2, image_bytes * 3 // 2)), key % 999
            )


def main() -> int:
    root = Path(__file__).resolve().parents[2]
    default_python = str(root / ".venv-mxnet" / "bin" / "python")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=30_000)
    parser.add_argument("--image-bytes", type=int, default=7_000, help="mean size of an image")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the results there as well")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_mxnet(options.serve, options.records)
        return 0
    python = os.environ.get("ARCFACE_PLUS_MXNET_PYTHON", default_python)
    if not Path(python).exists():
        print(f"error: {python} is absent; `make mxnet` creates it", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "bench"
        write_file(prefix, options.records, options.image_bytes)
        results = measure(prefix, options.records, options.repeats, python)
    print(f"{'task':<10}{'ours /s':>12}{'mxnet /s':>12}{'ratio':>8}   bar {BAR:g}")
    for task, row in results.items():
        print(f"{task:<10}{row['ours']:>12,.0f}{row['mxnet']:>12,.0f}{row['ratio']:>8.2f}")
    report = {**vars(options), "bar": BAR, "results": results}
    report = {name: value for name, value in report.items() if name not in ("serve", "json")}
    print(json.dumps(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    full = options.records >= parser.get_default("records")
    return int(full and min(row["ratio"] for row in results.values()) < BAR)


if __name__ == "__main__":
    raise SystemExit(main())
