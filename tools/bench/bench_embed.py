"""Measure an export of embeddings: memory by size, and whether its bytes depend on how it was made.

    python tools/bench/bench_embed.py [--records 100000] [--json out.json]

Records are 32 × 32 JPEGs in a .rec, the net is narrow, so that what is measured is the export. In
processes of their own: a tenth of the records, all records, all records again but killed (SIGKILL)
half-way and resumed, and all records by 2 and by 3 processes. Memory is the highest anonymous
memory of a process (RssAnon, sampled every 5 ms). Bars, from 100 000 records on: memory grows by at
most 10 %. At any size: all files of all records are equal byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

BAR = 1.1
SIDE, DIFFERENT = 32, 64


def write_records(path: Path, count: int) -> None:
    import numpy as np

    from arcface_plus.data.images import encode_jpeg
    from arcface_plus.data.records.reader import RecordWriter

    rng = np.random.default_rng(0)
    shape = (SIDE, SIDE, 3)
    encoded = [encode_jpeg(rng.integers(0, 256, shape, np.uint8)) for _ in range(DIFFERENT)]
    with RecordWriter(path, image_size=(SIDE, SIDE)) as writer:
        for i in range(count):
            jpeg = encoded[i % DIFFERENT]
            comment = b"\xff\xfe" + struct.pack(">HI", 6, i)  # which decoders skip
            writer.write(jpeg[:2] + comment + jpeg[2:], i // 10)


def watch_memory(peaks: list[int]) -> None:
    """Append the largest anonymous memory of this process so far, in bytes, for ever."""
    status = Path("/proc/self/status")
    while True:
        words = status.read_text().split()
        peaks[0] = max(peaks[0], 1024 * int(words[words.index("RssAnon:") + 1]))
        time.sleep(0.005)


def export(source: Path, output: Path) -> None:
    """Export ``source`` in this process, or this rank, and print its peak."""
    import torch
    from torch import nn

    from arcface_plus.data.collections import open_collection
    from arcface_plus.distributed import start_world
    from arcface_plus.evaluation.embedding.embed import EmbeddingOptions
    from arcface_plus.export.embeddings import export_embeddings
    from arcface_plus.models.embedding_model import EmbeddingModel
    from arcface_plus.models.preprocessing import Preprocessing

    class Narrow(EmbeddingModel):
        def __init__(self) -> None:
            preprocessing = Preprocessing(size=SIDE)
            super().__init__(
                "narrow", embedding_dim=512, size=SIDE, preprocessing=preprocessing, options=None
            )
            self.body = nn.Sequential(
                nn.Conv2d(3, 16, 8, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(256, 512)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)

    torch.manual_seed(0)
    torch.set_num_threads(1)
    peaks = [0]
    threading.Thread(target=watch_memory, args=(peaks,), daemon=True).start()
    with start_world("cpu") as world:
        options = EmbeddingOptions(batch_size=256)
        export_embeddings(
            Narrow().eval(), open_collection(source), output, world, options, resume=True
        )
    print(json.dumps(peaks[0]))


def run_export(source: Path, output: Path, processes: int = 1) -> int:
    """Export in ``processes`` new processes; return the highest peak."""
    words = [sys.executable, __file__, "--export", str(source), str(output)]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        words[1:1] = torchrun
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return max(json.loads(line) for line in done.stdout.splitlines() if line.isdigit())


def run_killed_and_resumed(source: Path, output: Path, blocks: int) -> int:
    """Kill an export once half of its blocks are there, then resume it; return the blocks kept."""
    words = [sys.executable, __file__, "--export", str(source), str(output)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    work = output.with_name(output.name + ".partial")
    while process.poll() is None and len(list(work.glob("*.npy"))) < blocks // 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists(), "it was done before it could be killed"
    kept = len(list(work.glob("[0-9]*.npy")))
    run_export(source, output)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the results there as well")
    parser.add_argument("--export", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export:
        export(*options.export)
        return 0
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, count in (("few", options.records // 10), ("all", options.records)):
            (folder / part).mkdir()
            write_records(folder / part / "train.rec", count)
        few = run_export(folder / "few" / "train.rec", folder / "few.npz")
        source = folder / "all" / "train.rec"
        start = time.perf_counter()
        whole = run_export(source, folder / "one.npz")
        seconds = time.perf_counter() - start
        blocks = -(-options.records // 4096)
        kept = run_killed_and_resumed(source, folder / "killed.npz", blocks)
        for processes in (2, 3):
            run_export(source, folder / f"{processes}.npz", processes)
        files = ["one.npz", "killed.npz", "2.npz", "3.npz"]
        digests = {hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in files}
    equal = len(digests) == 1
    growth = whole / few
    print(
        f"{options.records} records in {seconds:.0f} s: anonymous memory {whole / 1e6:.0f} MB, "
        f"{growth:.3f} × that of a tenth ({few / 1e6:.0f} MB), bar {BAR}. Killed with {kept} of "
        f"{blocks} blocks and resumed, by 2 and by 3 processes: "
        f"{'the same bytes' if equal else 'OTHER BYTES'}"
    )
    report = {"records": options.records, "growth": growth, "peak": whole, "equal": equal}
    print(json.dumps(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    full = options.records >= parser.get_default("records")
    return int(not equal or (full and growth > BAR))


if __name__ == "__main__":
    raise SystemExit(main())
