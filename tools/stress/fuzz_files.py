"""Damage valid files of every format at random and read them with our readers.

    python tools/stress/fuzz_files.py [--formats rec npz …] [--files 10000] [--seed 0]

Bars, for each file: it is read, equal to what an independent reader makes of it where there is one,
or it is refused by a ValueError or OSError that names it. No other exception, no crash, nothing
executed, an end within ``--seconds``; memory at most twice the decoded size and 96 MiB above what
the process had before. The last run is in docs/trust.md. Exit code 1 where a bar is missed.

A child process reads file after file, with its memory limited; where it dies, the file counts as a
fault and another child goes on with the next. Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import hostile_data
import hostile_models
from mutations import mutated
from samples import Format, Sample

FORMATS = hostile_data.FORMATS | hostile_models.FORMATS
BOUND = 96 * 2**20
MARKER = "executed"
_NO_MEMORY = ("MemoryError", "bad_alloc", "bad allocation", "can't allocate", "Cannot allocate")


class Outcome(NamedTuple):
    """What became of a file: read, refused or fault; its memory above twice its decoded size."""

    number: int
    kind: str
    excess: int
    message: str


def fuzz(name: str, files: int, *, seed: int = 0, seconds: float = 30.0) -> list[Outcome]:
    """Read ``files`` damaged files of the format ``name``, one child process after the other."""
    outcomes: list[Outcome] = []
    while len(outcomes) < files:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _child(name, range(len(outcomes), files), seed, seconds, writing)
        os.close(writing)
        with open(reading, encoding="utf-8", errors="replace") as lines:
            outcomes += [_parse(line) for line in lines if line.endswith("\n")]
        _, status = os.waitpid(child, 0)
        if len(outcomes) < files:
            code = os.waitstatus_to_exitcode(status)
            ended = {-signal.SIGALRM: f"no end within {seconds:g} s"}.get(
                code, f"ended with {code}"
            )
            outcomes.append(Outcome(len(outcomes), "fault", 0, f"the process {ended}"))
    return outcomes


def damaged(name: str, samples: Sequence[Sample], number: int, seed: int) -> Sample:
    """Return file ``number`` of a format: one of its samples, damaged."""
    rng = random.Random(f"{seed}/{name}/{number}")
    sample = rng.choice(samples)
    content = mutated(sample.content, [each.content for each in samples], rng)
    return sample._replace(content=sample.pack(content))


def _child(name: str, numbers: range, seed: int, seconds: float, pipe: int) -> None:
    """Read files until the last and exit; what is printed meanwhile is dropped."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1), os.dup2(quiet, 2)
        warnings.simplefilter("ignore")
        form = FORMATS[name]
        samples = form.samples(folder, str(folder / MARKER))
        for sample in samples * 2:  # libraries start their threads and fill their caches
            _read(form, sample._replace(content=sample.pack(sample.content)), folder, 0)
        limit = _status("VmSize") + 2 * form.largest + BOUND
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for number in numbers:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            outcome = _read(form, damaged(name, samples, number, seed), folder, number)
            os.write(pipe, ("\t".join(map(str, outcome)) + "\n").encode())
        code = 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(code)


def _read(form: Format, sample: Sample, folder: Path, number: int) -> Outcome:
    for file, content in sample.beside.items():
        (folder / file).write_bytes(content)
    path = folder / sample.file
    path.write_bytes(sample.content)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    kind, message = "read", ""
    decoded = form.claimed(sample.content)
    try:
        decoded = max(decoded, form.read(path))
    except (ValueError, OSError) as error:
        kind, message = "refused", str(error)
        if str(folder) not in message:
            kind, message = "fault", f"the file is not named: {error!r}"
        if (chain := _chain(error)) and any(words in chain for words in _NO_MEMORY):
            kind, message = "fault", f"too much memory was asked for: {chain}"
    except BaseException as error:  # whatever it is, it should not have been raised
        kind, message = "fault", f"{type(error).__name__}: {error}"
    excess = _status("VmHWM") - before - 2 * decoded
    if excess > BOUND:
        kind, message = "fault", f"{excess >> 20} MiB above twice its {decoded >> 20} MiB decoded"
    if (folder / MARKER).exists():
        kind, message = "fault", "code in the file was run"
        (folder / MARKER).rmdir()
    for file in (sample.file, *sample.beside):
        (folder / file).unlink()
    return Outcome(number, kind, excess, " ".join(message[:300].split()))


def _chain(error: BaseException | None) -> str:
    parts = []
    while error is not None:
        parts.append(repr(error))
        error = error.__cause__ or error.__context__
    return " from ".join(parts)


def _status(field: str) -> int:
    """Return a number of bytes that the kernel states about this process."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _parse(line: str) -> Outcome:
    number, kind, excess, message = line.rstrip("\n").split("\t", 3)
    return Outcome(int(number), kind, int(excess), message)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--formats", nargs="+", choices=sorted(FORMATS), default=sorted(FORMATS))
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=30.0, help="the most that a file may take")
    options = parser.parse_args()
    print(
        "| format | files | read | refused | faults | most memory above 2 × decoded | ms a file |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    faults = 0
    for name in options.formats:
        start = time.perf_counter()
        outcomes = fuzz(name, options.files, seed=options.seed, seconds=options.seconds)
        each = 1e3 * (time.perf_counter() - start) / options.files
        kinds = Counter(outcome.kind for outcome in outcomes)
        most = max(outcome.excess for outcome in outcomes) / 2**20
        print(
            f"| {name} | {len(outcomes)} | {kinds['read']} | {kinds['refused']} | {kinds['fault']} "
            f"| {most:.0f} MiB | {each:.1f} |",
            flush=True,
        )
        for outcome in outcomes:
            if outcome.kind == "fault":
                print(f"{name} {outcome.number}: {outcome.message}", file=sys.stderr, flush=True)
        faults += kinds["fault"]
    return int(faults > 0)


if __name__ == "__main__":
    raise SystemExit(main())
