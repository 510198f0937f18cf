"""Run benches; leave their tables as Markdown and JSON, with machine and date: `make bench`.

python tools/bench/run.py [bench_step.py …] [--peer CHECKOUT/recognition/arcface_torch]
[--output build/bench]

Without names all of ALL run, the short ones first; about an hour on two cores. NAME.md is what a
bench printed; NAME.json has its lines, its tables row by row, the command, its exit code, the date
and the machine. Exit code 1 where a bench missed a bar or failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ALL = (
    "bench_penalties.py",
    "bench_sampled_mma.py",
    "bench_evaluator.py",
    "bench_templates.py",
    "bench_prototypes.py",
    "bench_export.py",
    "bench_records.py",
    "bench_mma.py",
    "bench_mma.py --classes 85742 --repeats 1",
    "bench_mma.py --classes 1000000 --dim 64 --sampled-rows 4096 --repeats 1",
    "bench_head.py",
    "bench_save.py",
    "bench_embed.py",
    "bench_embedding_memory.py",
    "bench_input.py",
    "bench_step.py",
    "bench_training.py",
    "bench_groups.py",
    "bench_coverage.py",
    "bench_quickstart.py",
)
WITH_PEER = ("bench_step.py",)


def machine() -> dict[str, object]:
    """Return what times depend on: processor, cores, versions."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def tables(text: str) -> list[list[dict[str, str]]]:
    """Return the Markdown tables in ``text``, a dictionary of column and cell for each row."""
    found: list[list[dict[str, str]]] = []
    header: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if header is None:
            header = cells
            found.append([])
        elif set(line) - set("|-: "):
            found[-1].append(dict(zip(header, cells, strict=True)))
    return found


def run(words: list[str], output: Path) -> int:
    """Run one bench; show and keep what it prints; return its exit code."""
    print(f"\n## {shlex.join(words)}\n", flush=True)
    began, lines = time.monotonic(), []
    command = [sys.executable, str(HERE / words[0]), *words[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    text = "".join(lines)
    about = {
        "command": f"python tools/bench/{shlex.join(words)}",
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - began),
        "exit_code": process.returncode,
        "machine": machine(),
        "tables": tables(text),
        "lines": [line for line in text.splitlines() if line and not line.startswith("|")],
    }
    settings = [w.lstrip("-") for w in words[1:] if w not in ("--peer",) and "/" not in w]
    path = output / "-".join([Path(words[0]).stem, *settings])
    output.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return process.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benches", nargs="*", help="names, with their options in quotes")
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    parser.add_argument("--peer", type=Path, help="arcface_torch in a checkout of insightface")
    options = parser.parse_args()
    failed = []
    for bench in options.benches or ALL:
        words = shlex.split(bench)
        if not (HERE / words[0]).is_file():
            parser.error(f"{words[0]} is not in {HERE}")
        if options.peer is not None and words[0] in WITH_PEER:
            words += ["--peer", str(options.peer)]
        if run(words, options.output):
            failed.append(bench)
    print(f"\n{options.output.resolve()}" + "".join(f"\nmissed a bar: {each}" for each in failed))
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
