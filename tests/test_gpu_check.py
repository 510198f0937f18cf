"""``make gpu``: its report, whatever happens to a check; the checks: test_device_checks.py."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "gpu_check.py"

STUB = """
import os, time
def ends(device):
    os._exit(7)
def poisons(device):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")
def fails(device):
    assert 1 == 2, "one is | not two"
def hangs(device):
    time.sleep(600)
CHECKS = {
    "good": lambda device: f"on {device}", "ends": ends, "fails": fails, "poisons": poisons,
    "hangs": hangs, "last": lambda device: "still here",
}
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The script, with checks that go wrong in every way."""
    (tmp_path / "device_checks.py").write_text(STUB)
    found = SimpleNamespace(**runpy.run_path(str(SCRIPT)))
    scope = found.run_checks.__globals__
    monkeypatch.setitem(scope, "environment", lambda: os.environ | {"PYTHONPATH": str(tmp_path)})
    monkeypatch.setitem(scope, "STEP_SECONDS", 15)
    monkeypatch.setitem(scope, "__file__", str(SCRIPT))
    return found


@pytest.mark.slow
def test_whatever_a_check_does_the_others_run(script: SimpleNamespace, tmp_path: Path) -> None:
    about = {"gpus": ["Some Card"], "torch": "2.99", "left out": ["triton: slow"]}
    report = script.Report(tmp_path, about)
    names = ["good", "ends", "fails", "poisons", "hangs", "last"]
    script.run_checks(report, names, "cpu", time.monotonic() + 300)
    kept = json.loads((tmp_path / "gpu-report.json").read_text())
    found = {entry["name"]: entry for entry in kept["checks"]}
    assert [entry["name"] for entry in kept["checks"]] == names
    assert [n for n in names if found[n]["passed"]] == ["good", "last"]
    assert found["good"]["said"] == "on cpu" and "process ended" in found["ends"]["said"]
    assert "one is" in found["fails"]["said"] and "CUDA error" in found["poisons"]["said"]
    assert "no answer in 15 s" in found["hangs"]["said"]
    page = (tmp_path / "gpu-report.md").read_text()
    assert page.startswith("# GPU checks: Some Card") and "one is \\| not two" in page
    script.run_checks(report, ["good"], "cpu", time.monotonic() - 1)
    assert "the time was up" in (tmp_path / "gpu-report.json").read_text()


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: run `make gpu`")
    words = [sys.executable, str(SCRIPT), "--output", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no CUDA GPU" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_torch_that_is_too_old_is_named(
    script: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"gpus": ["Some Card"], "torch": "2.10.1+cu128"}
    monkeypatch.setitem(script.main.__globals__, "machine", lambda: about)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert script.main() == 2
    said = capsys.readouterr().err
    assert "torch is 2.10.1+cu128, but these checks need 2.11" in said and said.count("\n") == 1


def test_missing_packages_are_named_at_once(
    script: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scope = script.main.__globals__
    monkeypatch.setitem(scope["NEEDED"], "no_such_module", "no-such-package")
    monkeypatch.setitem(scope["NEEDED"], "nor_this_one", "another")
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert script.main() == 2
    assert "missing packages: no-such-package another" in capsys.readouterr().err


def test_what_it_needs_is_what_the_package_requires() -> None:
    required = (SCRIPT.parents[1] / "setup.cfg").read_text().split("install_requires =")[1]
    names = {line.split(">=")[0].strip() for line in required.split("[options")[0].splitlines()}
    needed = set(runpy.run_path(str(SCRIPT))["NEEDED"].values())
    assert needed <= names and names - needed <= {"", "typer", "torchvision"}
