"""What a loader process delivers, beside bare OpenCV decoding and a usual PIL pipeline.

python tools/bench/bench_input.py [--records 40000] [--repeats 3] [--large 5800000]

112×112 JPEGs of quality 95 in one .rec, batches of 128, mirrored at random. Repeats alternate
between the loader with one and with two worker processes, and one and two processes that do nothing
but `cv2.imdecode` of the same bytes in memory; one process of RecordIO → PIL → ToTensor → Normalize
is measured as well. Printed are images a second and the CPU time of the workers per image, which
other load on the machine changes least and the bars are about. Bars, at full size: 0.80 of bare
decoding and 3 times the PIL pipeline with one process; two processes 1.7 times one, beside two bare
decoders that do as well; anonymous memory of worker and trainer grows by < 5 % over an epoch
of 500 000 records; to open 5.8 million records and check all headers takes 2 s of CPU time and
200 MB at most.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path

import cv2
import numpy as np

from arcface_plus.data.batches.loader import TrainLoader
from arcface_plus.data.batches.order import OrderedSteps
from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.records.reader import RecordReader, RecordWriter
from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources.image_source import open_source

BATCH, SIDE = 128, 112
WARM = 10  # batches before the clock starts: processes, page tables, caches


def face_like(number: int) -> bytes:
    """Return a JPEG of the size and detail of a photograph: smooth, with some noise (6 kB)."""
    rng = np.random.default_rng(number)
    smooth = cv2.resize(
        rng.uniform(20, 235, (9, 9, 3)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC
    )
    noisy = smooth + 5 * rng.standard_normal((SIDE, SIDE, 1))
    return encode_jpeg(np.clip(noisy, 0, 255).astype(np.uint8), 95)


def write_records(path: Path, count: int) -> None:
    faces = [face_like(number) for number in range(min(count, 2000))]
    with RecordWriter(path, layout="plain") as writer:
        for number in range(count):
            writer.write(faces[number % len(faces)], number % 1000)


def cpu_seconds(pid: int) -> float:
    """Return the time that a process has computed; nanoseconds of Linux's scheduler."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def anonymous_mib(pid: int | str = "self") -> float:
    """Return the anonymous memory of a process: what is not a page of a file or shared."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def run_loader(path: Path, workers: int, images: int) -> dict[str, float]:
    config = DataConfig(source="records", path=path, size=SIDE, workers=workers)
    source = open_source(config)
    steps = OrderedSteps(len(source), BATCH, seed=0, start=0, stop=WARM + images // BATCH)
    others = {child.pid for child in multiprocessing.active_children()}
    began = memory = 0.0
    cpu: dict[int, float] = {}
    for batch in TrainLoader(source, config, steps):
        # Workers are no more than the batch in hand ahead: nobody makes them wait.
        if batch.step == WARM - 1:
            pids = {child.pid for child in multiprocessing.active_children()} - others
            cpu = {pid: cpu_seconds(pid) for pid in pids if pid is not None}
            began, memory = time.perf_counter(), anonymous_mib() + sum(map(anonymous_mib, cpu))
        if batch.step == len(steps) - 1 - workers * 4:  # before workers run out of work
            done = (batch.step + 1 - WARM) * BATCH
            used = sum(cpu_seconds(pid) - before for pid, before in cpu.items())
            grown = anonymous_mib() + sum(map(anonymous_mib, cpu)) - memory
            wall = time.perf_counter() - began
    return {
        "per_second": done / wall,
        "cpu_us": 1e6 * used / done,
        "mib": memory,
        "grown_mib": grown,
    }


def decode_bare(path: Path, images: int) -> tuple[float, float]:
    """Return wall and CPU seconds to decode ``images`` images that lie in memory."""
    cv2.setNumThreads(0)
    reader = RecordReader(path)
    order = np.random.default_rng(0).integers(len(reader), size=images)
    found = [reader[int(i)].data for i in order]
    began, cpu = time.perf_counter(), time.process_time()
    for data in found:
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return time.perf_counter() - began, time.process_time() - cpu


def decode_pil(path: Path, images: int) -> tuple[float, float]:
    """Do the same through PIL and torchvision, from the record to a normalised tensor."""
    import io

    from PIL import Image
    from torchvision import transforms

    change = transforms.Compose(
        [
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    reader = RecordReader(path)
    order = np.random.default_rng(0).integers(len(reader), size=images)
    began, cpu = time.perf_counter(), time.process_time()
    for index in order:
        change(Image.open(io.BytesIO(reader[int(index)].data)).convert("RGB"))
    return time.perf_counter() - began, time.process_time() - cpu


def run_alone(
    pool: Pool, work: Callable[[int], tuple[float, float]], images: int, processes: int = 1
) -> dict[str, float]:
    spent = pool.map(work, [images] * processes, chunksize=1)
    wall, cpu = max(s[0] for s in spent), sum(s[1] for s in spent)
    return {"per_second": images * processes / wall, "cpu_us": 1e6 * cpu / (images * processes)}


def measure_speed(path: Path, images: int, repeats: int) -> dict[str, dict[str, float]]:
    bare, pil = partial(decode_bare, path), partial(decode_pil, path)
    found: dict[str, list[dict[str, float]]] = {}
    with multiprocessing.Pool(2) as pool:
        for _ in range(repeats):
            for name, row in {
                "bare": run_alone(pool, bare, images),
                "loader": run_loader(path, 1, images),
                "PIL": run_alone(pool, pil, images // 4),
                "bare × 2": run_alone(pool, bare, images, 2),
                "loader × 2": run_loader(path, 2, images),
            }.items():
                found.setdefault(name, []).append(row)
    return {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in found.items()
    }


def write_large(path: Path, count: int) -> None:
    """Write ``count`` records of 64 bytes, whose images are no images: index and headers alone."""
    words = np.zeros((count, 16), dtype="<u4")
    words[:, 0], words[:, 1] = 0xCED7230A, 56
    words[:, 3] = (np.arange(count) // 68).astype("<f4").view("<u4")
    path.parent.mkdir()
    words.tofile(path)
    with path.with_suffix(".idx").open("w") as file:
        for start in range(0, count, 100_000):
            keys = range(start, min(count, start + 100_000))
            file.write("".join(f"{key}\t{64 * key}\n" for key in keys))


def open_large(path: Path) -> tuple[float, float]:
    """Return the CPU seconds and the largest anonymous MB more that opening the set takes."""
    peak = before = anonymous_mib()
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.002):
            peak = max(peak, anonymous_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.process_time()
    assert len(open_source(DataConfig(source="records", path=path, size=SIDE)).labels)
    seconds = time.process_time() - began
    ended.set()
    thread.join()
    return seconds, (peak - before) * 2**20 / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--epoch", type=int, default=500_000, help="records of the memory check")
    parser.add_argument("--large", type=int, default=5_800_000, help="records of the index check")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the results there as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large" / "train.rec"
        write_large(large, options.large)
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            seconds, megabytes = fresh.apply(open_large, (large,))
        large.unlink()
        path = Path(folder) / "speed" / "train.rec"
        write_records(path, options.records)
        rows = measure_speed(path, options.records, options.repeats)
        path = Path(folder) / "epoch" / "train.rec"
        write_records(path, options.epoch)
        epoch = run_loader(path, 1, options.epoch - BATCH * WARM)
    cost = {name: row["cpu_us"] for name, row in rows.items()}
    rate = {name: row["per_second"] for name, row in rows.items()}
    ratios = {
        "of bare decoding": (cost["bare"] / cost["loader"], rate["loader"] / rate["bare"], 0.80),
        "times PIL": (cost["PIL"] / cost["loader"], rate["loader"] / rate["PIL"], 3.0),
        "two processes": (
            2 * cost["loader"] / cost["loader × 2"],
            rate["loader × 2"] / rate["loader"],
            1.7,
        ),
    }
    print("| process | images/s | CPU µs an image |\n|---|---:|---:|")
    for name, row in rows.items():
        print(f"| {name} | {row['per_second']:,.0f} | {row['cpu_us']:.1f} |")
    print("\n| ratio | of CPU time | of the clock | bar |\n|---|---:|---:|---:|")
    for name, (by_cpu, by_clock, bar) in ratios.items():
        print(f"| {name} | {by_cpu:.2f} | {by_clock:.2f} | {bar} |")
    print(f"\nbare × 2 beside bare: {rate['bare × 2'] / rate['bare']:.2f} by the clock")
    print(f"{options.epoch} records: {epoch['mib']:.0f} MiB + {epoch['grown_mib']:.1f} MiB")
    print(f"{options.large} records: {seconds:.2f} s, {megabytes:.0f} MB")
    report = {"rows": rows, "ratios": ratios, "epoch": epoch, "large": [seconds, megabytes]}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    missed = [name for name, (by_cpu, _, bar) in ratios.items() if by_cpu < bar]
    missed += ["memory"] if epoch["grown_mib"] > 0.05 * epoch["mib"] else []
    missed += ["large"] if seconds > 2 or megabytes > 200 else []
    full = all(getattr(options, n) >= parser.get_default(n) for n in ("records", "epoch", "large"))
    return int(full and bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
