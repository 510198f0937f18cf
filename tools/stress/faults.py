"""Run the fault matrix: one fault a run of two processes under torchrun, on the CPU.

    python tools/stress/faults.py [--only "rank killed" …] [--folder FOLDER]

Bars: each run ends within 30 s of its fault (of the time-out, where there is one) with an exit code
other than 0, says the cause and the fix in one message, and leaves its checkpoint whole. Those that
are asked to stop, or whose fault is harmless, end with 0. Exit code 1 where a bar is missed. Faults
that need mounts are skipped where those are not permitted.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT, TIMEOUT, STEP = 30.0, 12.0, 25
CONFIG = """
name: run
seed: 1
data: {source: digits, size: 32, workers: 1}
model: {name: iresnet18, embedding_dim: 16, width: 8, dropout: 0.0}
head: {margin: {s: 16}}
optim: {lr: 0.05}
schedule: {kind: cosine, warmup_steps: 2}
train: {steps: 60, global_batch: 12, log_every: 7, checkpoint_every: 20, precision: fp32,
        device: cpu}
"""


@dataclass(frozen=True)
class Case:
    """A fault and what must come of it.

    ``says``: a pattern that one line of the output matches. ``waits``: seconds that the run may
    wait by its own settings before it ends. ``fault``: of faulty_train.py, where it is not
    ``name``. ``disk``: what the run's folder lies on.
    """

    name: str
    says: str
    fault: str | None = None
    code: int | None = None  # None: any but 0
    rank: int = 1
    words: tuple[str, ...] = ()
    waits: float = 0.0
    disk: str | None = None  # "small", "read-only"
    restarts: int = 0
    saved: bool = True  # there is a checkpoint before the fault


CASES = (
    Case("worker raises", r"rank 1\] RuntimeError: a fault in the decoder"),
    Case("bad image", r"error: digit 3 is not an image \(step \d+\); remove .* quarantine"),
    Case("worker killed", r"rank 1\] error: a worker process ended .* lower --data\.workers"),
    Case("worker hangs", r"no batch came within 6 s \(data\.timeout\).* raise --data\.timeout",
         words=("--data.timeout", "6"), waits=6),
    Case("rank killed", r"rank 1 ended without a message .* lower --data\.workers"),
    Case("rank killed once", r"continuing from .*step-00000020", code=0, restarts=3,
         words=("--resume", "auto")),
    Case("rank stopped", r"'class logits' of step 25 did not come .*rank 1 has not been heard of",
         words=("--train.timeout", f"{TIMEOUT}"), waits=TIMEOUT),
    Case("rank hangs", r"'class logits' of step 25 did not come .*rank 1 has been in 'data' of",
         words=("--train.timeout", f"{TIMEOUT}"), waits=TIMEOUT),
    Case("GPU memory", r"rank 1\] error: the GPU's memory is full: .*--train\.accumulate"),
    Case("host memory", r"rank 1\] error: the machine's memory is full: .*--data\.workers"),
    Case("input/output error", r"rank 0\] error: .*error: 'faces\.rec'\. .*look at it", rank=0),
    Case("NaN batch", r"error: step 25: the loss or its gradient is not finite.* --optim\.lr"),
    Case("truncated .rec", r"error: .*train\.rec", saved=False),
    Case("label = C", r"error: .*label", saved=False),
    Case("disk full: checkpoint", r"error: .*(could not be written|room|free)", "disk full", rank=0,
         disk="small", words=("--train.log_every", "1000")),
    Case("disk full: in a checkpoint", r"error: checkpoint .*No space left.*are untouched", rank=0,
         disk="small", words=("--train.log_every", "1000")),
    Case("disk full: metrics", r"error: .*No space left.*metrics\.jsonl.*Make room",
         "disk full", rank=0, disk="small", words=("--train.log_every", "1",
         "--train.checkpoint_every", "20", "--train.steps", "400")),
    Case("disk full: embed", r"error: .*npy could not be written, its disk is likely full",
         disk="small", saved=False),
    Case("read-only folder", r"error: .*Read-only file system.* choose another place",
         disk="read-only", saved=False),
    Case("SIGTERM", r"asked to stop: saved step \d+; --resume auto", code=0),
    Case("SIGTERM in a checkpoint", r"asked to stop: saved step \d+; --resume auto", code=0),
    Case("clock set back", r"step 60/60 ", code=0),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """``seconds`` from the fault to the end, its own waits taken off; ``problems``: missed bars."""

    code: int
    seconds: float
    said: str
    problems: tuple[str, ...]
    output: str


def run_case(case: Case, folder: Path) -> Outcome:
    """Run ``case`` in ``folder``, which is empty; raise OSError where a mount is not permitted."""
    config, note = folder / "run.yaml", folder / "note"
    config.write_text(CONFIG)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FAULT_NOTE": str(note)}
    environment |= {"FAULT": case.fault or case.name, "FAULT_STEP": str(STEP)}
    environment |= {"FAULT_RANK": str(case.rank), "FAULT_DISK": str(folder / "disk")}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    launcher += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    launcher += [f"--max-restarts={case.restarts}"]
    with mounted(folder / "disk", case.disk):
        words = _words(case, folder, config)
        began = time.monotonic()
        done = subprocess.run(
            [*launcher, *words], env=environment, cwd=REPOSITORY, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        ended = time.monotonic()
        began = float(note.read_text()) if note.exists() else began
        checkpoints = sorted((folder / "disk").glob("run/checkpoints/step-*"))
        problems = [f"{path.name} is damaged" for path in checkpoints if not is_whole(path)]
    if case.saved and not checkpoints:
        problems.append("no checkpoint is left")
    output = (done.stdout + done.stderr).replace(f"{folder}/", "")
    said = [line for line in output.splitlines() if re.search(case.says, line)]
    if not said:
        problems.append(f"nothing says {case.says}")
    if (done.returncode == 0) != (case.code == 0):
        problems.append(f"exit code {done.returncode}")
    seconds = ended - began - case.waits
    if case.code is None and seconds > LIMIT:
        problems.append(f"it took {seconds:.0f} s")
    return Outcome(done.returncode, seconds, said[0] if said else "", tuple(problems), output)


def _words(case: Case, folder: Path, config: Path) -> list[str]:
    """Return the script and its words; make the files that a case needs."""
    train = ["tools/stress/faulty_train.py", str(config), "--output", str(folder / "disk")]
    if case.name in ("truncated .rec", "label = C"):
        _write_records(folder / "data")
        if case.name == "label = C":
            (folder / "data" / "property").write_text("9,32,32")
        if case.name == "truncated .rec":
            with (folder / "data" / "train.rec").open("r+b") as file:
                file.truncate(file.seek(0, os.SEEK_END) // 2)
        train += ["--data.source", "records", "--data.path", str(folder / "data" / "train.rec")]
    if case.name == "disk full: embed":
        _write_records(folder / "data")
        _write_model(folder / "model.safetensors")
        (folder / "disk" / "filler").write_bytes(bytes(_SMALL - 8 * 4096))
        return [
            "tools/export_embeddings.py", "--model", str(folder / "model.safetensors"),
            "--input", str(folder / "data" / "train.rec"), "--device", "cpu",
            "--output", str(folder / "disk" / "faces.npz"),
        ]  # fmt: skip
    return train + list(case.words)


def _write_records(folder: Path) -> None:
    from arcface_plus.data.images import encode_jpeg
    from arcface_plus.data.records.writer import RecordWriter

    rng = np.random.default_rng(0)
    with RecordWriter(folder / "train.rec", image_size=(32, 32)) as records:
        for label in range(10):
            for _ in range(20):
                face = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                records.write(encode_jpeg(face), label)


def _write_model(path: Path) -> None:
    from arcface_plus.models import Preprocessing, build_model, save_model

    inputs = Preprocessing(size=32)
    net = build_model("iresnet18", embedding_dim=512, width=8, size=32, preprocessing=inputs)
    save_model(net.eval(), path)


_SMALL = 16 * 2**20


@contextlib.contextmanager
def mounted(folder: Path, kind: str | None) -> Iterator[None]:
    """Make ``folder`` a plain one, or a file system of its own that is small or read-only."""
    folder.mkdir()
    if kind is None:
        yield
        return
    options = f"size={_SMALL}" if kind == "small" else "ro"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise OSError(f"no mount is permitted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def is_whole(checkpoint: Path) -> bool:
    """Whether all files are there and what the manifest says."""
    if not (checkpoint / "manifest.json").is_file():
        return False
    return all(
        hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() == file["sha256"]
        for name, file in json.loads((checkpoint / "manifest.json").read_text())["files"].items()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", choices=[case.name for case in CASES])
    parser.add_argument("--folder", type=Path, help="keep what the runs leave and say here")
    options = parser.parse_args()
    missed = 0
    print("| fault | exit code | seconds | message |\n|---|---:|---:|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        for case in CASES:
            if options.only and case.name not in options.only:
                continue
            folder = (options.folder or Path(temporary)) / re.sub(r"\W+", "-", case.name)
            folder.mkdir(parents=True)
            try:
                outcome = run_case(case, folder)
            except OSError as error:
                print(f"| {case.name} | | | skipped: {error} |", flush=True)
                continue
            (folder / "output.txt").write_text(outcome.output)
            said = outcome.said.replace("|", "\\|")
            for problem in outcome.problems:
                said += f" **{problem}**"
            missed += bool(outcome.problems)
            print(f"| {case.name} | {outcome.code} | {outcome.seconds:.1f} | {said} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
