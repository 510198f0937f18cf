"""Check what no CPU can: everything in tests/gpu and the GPU benches; `make gpu`.

    python tools/gpu_check.py [--peer CHECKOUT/recognition/arcface_torch] [--minutes 8]

Runs from a source tree, without installing and without a network. The most important checks come
first, and gpu-report.json and gpu-report.md are written after every one, so that a run which is cut
off leaves what it has. Exit 0: all passed; 1: something failed; 2: nothing could be run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
# What is imported by the package's name, where that is not the distribution's.
NEEDED = {
    "torch": "torch", "numpy": "numpy", "cv2": "opencv-python", "scipy": "scipy",
    "sklearn": "scikit-learn", "threadpoolctl": "threadpoolctl", "pydantic": "pydantic",
    "yaml": "PyYAML", "rich": "rich", "jinja2": "jinja2", "safetensors": "safetensors",
    "tensorboard": "tensorboard",
}  # fmt: skip
OLDEST_TORCH = (2, 11)
OPTIONAL = {"triton": "the search kernel: without it the host waits for the GPU"}
STEP_SECONDS = 120  # of one check; a hanging collective must not take the others' time


def absent(names: Any) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


def machine() -> dict[str, Any]:
    """Return what the report says of the machine; ``gpus`` is empty where there is none."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "gpus": [torch.cuda.get_device_name(i) for i in range(count)],
        "capability": list(torch.cuda.get_device_capability()) if count else [],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "date": time.strftime("%Y-%m-%d"),
        "left out": [f"{name}: {OPTIONAL[name]}" for name in absent(OPTIONAL)],
    }


def _too_old(torch_version: str) -> bool:
    return tuple(int(part) for part in torch_version.split(".")[:2]) < OLDEST_TORCH


def worker(names: list[str], device: str) -> int:
    """Run checks of tests/gpu by name; write a JSON line for each as it ends."""
    import device_checks
    import torch

    for name in names:
        began, said, passed = time.perf_counter(), "", True
        try:
            said = device_checks.CHECKS[name](torch.device(device))
        except Exception as error:  # a failure is a result
            said, passed = f"{type(error).__name__}: {error}"[:2000], False
        taken = round(time.perf_counter() - began, 2)
        line = {"name": name, "passed": passed, "said": said, "seconds": taken}
        print("RESULT " + json.dumps(line), flush=True)
        if not passed and "CUDA error" in said:
            return 3  # the process is of no more use
    return 0


class Report:
    """What was found so far, on disk after every check."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.content = folder, {"machine": about, "checks": [], "benches": []}

    def add(self, kind: str, entry: dict[str, Any]) -> None:
        self.content[kind].append(entry)
        mark = "passed" if entry["passed"] else "FAILED"
        print(f"{mark}  {entry['name']}: {entry['said']}", flush=True)
        text = json.dumps(self.content, indent=1)
        for name, body in (("gpu-report.json", text), ("gpu-report.md", self.page())):
            beside = self.folder / f"{name}.new"
            beside.write_text(body + "\n", encoding="utf-8")
            beside.replace(self.folder / name)

    def page(self) -> str:
        about = self.content["machine"]
        lines = [f"# GPU checks: {', '.join(about['gpus']) or 'no GPU'}", ""]
        lines += [f"- {key}: {value}" for key, value in about.items() if value and key != "gpus"]
        for kind in ("checks", "benches"):
            lines += ["", f"## {kind.capitalize()}", "", "| | | | s |", "|---|---|---|---:|"]
            for each in self.content[kind]:
                said = str(each["said"]).replace("|", r"\|").replace("\n", " ")
                mark = "passed" if each["passed"] else "**failed**"
                lines.append(f"| {each['name']} | {mark} | {said} | {each['seconds']} |")
        return "\n".join(lines)


def environment() -> dict[str, str]:
    paths = [REPOSITORY, REPOSITORY / "tests" / "gpu", REPOSITORY / "tests" / "distributed"]
    known = os.environ.get("PYTHONPATH")
    joined = os.pathsep.join([*map(str, paths), *([known] if known else [])])
    # cuBLAS reads it when it starts: the deterministic check needs it.
    return os.environ | {"PYTHONPATH": joined, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def run_checks(report: Report, names: list[str], device: str, deadline: float) -> None:
    """Run ``names`` in order; a process that dies, or hangs, costs the check it was at."""
    left = list(names)
    while left and time.monotonic() < deadline:
        words = [sys.executable, __file__, "--worker", json.dumps(left), "--device", device]
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
        ) as process:
            _collect(report, process, left, deadline)
    for name in left:
        said = "not run: the time was up"
        report.add("checks", {"name": name, "passed": False, "said": said, "seconds": 0})


def _collect(report: Report, process: Any, left: list[str], deadline: float) -> None:
    """Report the results in what ``process`` writes; take what it had, or lost, from ``left``."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            lines.put(line)
        lines.put("")  # its end

    threading.Thread(target=read, daemon=True).start()
    tail: list[str] = []
    while True:
        wait = max(0.1, min(STEP_SECONDS, deadline - time.monotonic()))
        try:
            line = lines.get(timeout=wait)
        except queue.Empty:
            process.kill()
            said = f"stopped: no answer in {wait:.0f} s"
            break
        if line.startswith("RESULT "):
            report.add("checks", json.loads(line.removeprefix("RESULT ")))
            left.pop(0)
        elif line:
            tail = [*tail, line.rstrip()][-5:]
        else:
            said = f"its process ended: {' / '.join(tail)}"[:500]
            break
    if process.wait() not in (0, 3) and left:
        name = left.pop(0)
        report.add("checks", {"name": name, "passed": False, "said": said, "seconds": round(wait)})


def run_benches(report: Report, words: list[str], deadline: float) -> None:
    for name in ("search", "mma", "step"):
        wait, began = deadline - time.monotonic(), time.perf_counter()
        command = [sys.executable, str(REPOSITORY / "tools/bench/bench_gpu.py"), "--only", name]
        said, passed = "not run: the time was up", False
        if wait > 5:
            try:
                done = subprocess.run(
                    [*command, *words], capture_output=True, text=True, timeout=wait,
                    env=environment(), check=False,
                )  # fmt: skip
                said, passed = (done.stdout or done.stderr[-800:]).strip(), done.returncode == 0
            except subprocess.TimeoutExpired:
                said = f"stopped after {wait:.0f} s"
        taken = round(time.perf_counter() - began, 1)
        report.add("benches", {"name": name, "passed": passed, "said": said, "seconds": taken})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default=None, help="arcface_torch in a checkout of insightface")
    parser.add_argument("--minutes", type=float, default=8.0, help="at most, in all")
    parser.add_argument("--output", type=Path, default=Path(), help="folder of the report")
    parser.add_argument("--worker", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--bench", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        return worker(json.loads(options.worker), options.device)
    deadline = time.monotonic() + 60 * options.minutes - 10
    if lacking := absent(NEEDED):
        packages = " ".join(NEEDED[name] for name in lacking)
        print(f"missing packages: {packages}; pip install {packages}", file=sys.stderr)
        return 2
    about = machine()
    if options.device == "cuda" and not about["gpus"]:
        print("torch sees no CUDA GPU: there is nothing to check here.", file=sys.stderr)
        return 2
    if options.device == "cuda" and _too_old(about["torch"]):
        oldest = ".".join(map(str, OLDEST_TORCH))
        print(
            f"torch is {about['torch']}, but these checks need {oldest} or newer; pip install "
            f"'torch>={oldest}'",
            file=sys.stderr,
        )
        return 2
    sys.path[:0] = environment()["PYTHONPATH"].split(os.pathsep)
    import device_checks

    report = Report(options.output, about)
    # The last third is for the benches.
    until = deadline - 20 * options.minutes
    run_checks(report, list(device_checks.CHECKS), options.device, until)
    words = options.bench.split() if options.bench else []
    words += ["--peer", options.peer] if options.peer else []
    run_benches(report, words, deadline)
    entries = [*report.content["checks"], *report.content["benches"]]
    failed = [entry["name"] for entry in entries if not entry["passed"]]
    print(f"{len(entries) - len(failed)} of {len(entries)} passed: {options.output.resolve()}")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
