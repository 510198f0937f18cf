"""Which error gives which message and exit code."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from arcface_plus.cli.errors import exit_code_for


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("bad"), 2),
        (json.JSONDecodeError("bad", "x", 0), 2),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), 2),
        (FileNotFoundError(2, "bad", "a.rec"), 2),
        (PermissionError(13, "bad", "a.rec"), 2),
        (IsADirectoryError(21, "bad", "a"), 2),
        (NotADirectoryError(20, "bad", "a"), 2),
        (ModuleNotFoundError("bad"), 2),
        (OSError(28, "bad: no space left on device"), 1),
        (ImportError("bad"), 1),
        (ArithmeticError("bad: step 3 is not finite"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_we_foresaw_is_one_message(error, code, capsys):
    assert exit_code_for(raised(error)) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and "bad" in captured.err
    assert "Traceback" not in captured.err and captured.out == ""


@pytest.mark.parametrize(
    "error",
    [RuntimeError("x"), KeyError("x"), AssertionError(), ZeroDivisionError(), OverflowError()],
)
def test_faults_of_ours_show_where(error, capsys):
    assert exit_code_for(raised(error)) == 1
    assert "Traceback" in capsys.readouterr().err


def test_rank_is_named_under_a_launcher(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert exit_code_for(raised(ValueError("bad"))) == 2
    assert capsys.readouterr().err == "[rank 3] error: bad\n"


@pytest.mark.parametrize("size", ["4", "many", ""])
def test_launchers_that_say_only_the_size(monkeypatch, capsys, size):
    monkeypatch.setenv("WORLD_SIZE", size)
    assert exit_code_for(raised(ValueError("bad"))) == 2
    assert capsys.readouterr().err == "error: bad\n"


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (type("OutOfMemoryError", (RuntimeError,), {})("Tried 2 GiB\nmore"), "--train.accumulate"),
        (MemoryError(), "--data.workers"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "--data.workers"),
    ],
)
def test_memory_that_ran_out_is_one_line_with_the_fix(error, fix, capsys):
    assert exit_code_for(raised(error)) == 1
    said = capsys.readouterr().err
    assert fix in said and said.count("\n") == 1 and said.startswith("error: ")


@pytest.mark.parametrize(
    ("number", "fix"), [(5, "look at it"), (28, "Make room"), (30, "choose another place")]
)
def test_a_disk_that_takes_nothing_comes_with_the_fix(number, fix, capsys):
    assert exit_code_for(raised(OSError(number, "no", "a.bin"))) == 1
    assert fix in capsys.readouterr().err


def test_a_traceback_names_its_rank_on_every_line(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")
    exit_code_for(raised(KeyError("x")))
    assert {line[:8] for line in capsys.readouterr().err.splitlines()} == {"[rank 3]"}


def _sleep():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1000)


def test_a_failed_process_does_not_wait_for_workers_that_hang():
    """Python's own end would: it asks them with SIGTERM and then waits."""
    code = (
        "import multiprocessing, test_errors, arcface_plus.cli.errors as errors\n"
        "context = multiprocessing.get_context('fork')\n"
        "context.Process(target=test_errors._sleep, daemon=True).start()\n"
        "print('said', end='')\n"
        "errors.leave(2)"
    )
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "said"), done.stderr


def test_processes_of_the_caller_are_left_alone(cli):
    child = multiprocessing.get_context("fork").Process(target=_sleep, daemon=True)
    child.start()
    try:
        assert cli("verify", "--model", "nowhere.pt").exit_code == 2
        assert child.is_alive()
    finally:
        child.kill()
        child.join()
