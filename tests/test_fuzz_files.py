"""tools/stress/fuzz_files.py: its short form, and that it notices what it is there to notice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

STRESS = Path(__file__).resolve().parents[1] / "tools" / "stress"
FORMATS = "bin bmp idx jpeg npy npz onnx parquet png pnm rec yaml"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the readers' libraries have threads here, which a fork loses."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=STRESS, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(("formats", "files"), [(FORMATS, 150), ("pt safetensors", 15)])
def test_damaged_files_are_refused_or_read(formats: str, files: int) -> None:
    for package in ("onnx", "onnxruntime", "pyarrow"):
        pytest.importorskip(package)
    done = run("fuzz_files.py", "--files", files, "--seed", 1, "--formats", *formats.split())
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines()[2:]]
    assert [row[0].strip() for row in rows] == formats.split()
    for name, total, read, refused, faults, *_ in rows:
        assert int(total) == files == int(read) + int(refused) and int(faults) == 0, name
        assert int(refused) > files / 3, "the damage is there"


FAULTY = """
import os, json, fuzz_files
from samples import Format, Sample

def read(path):
    number = int(path.read_bytes()[:2], 16)
    path = str(path)
    if number == 0: return 0
    if number == 1: raise ValueError(f"{path}: damaged")
    if number == 2: raise ValueError("damaged")
    if number == 3: raise KeyError(path)
    if number == 4: os.abort()
    if number == 5: [None for _ in iter(int, 1)]
    if number == 6: bytearray(b"1") * (200 * 2**20)
    if number == 7: os.mkdir(os.path.join(os.path.dirname(path), "executed"))
    if number == 8: raise ValueError(f"{path}: damaged") from MemoryError()

fuzz_files.FORMATS["x"] = Format(
    lambda folder, marker: [Sample("x", b"00")], read, largest=2**28
)
fuzz_files.damaged = lambda name, samples, number, seed: Sample("x", b"%02x" % number)
print(json.dumps([(each.kind, each.message) for each in fuzz_files.fuzz("x", 9, seconds=0.5)]))
"""


def test_every_kind_of_fault_is_noticed() -> None:
    done = run("-c", FAULTY)
    assert done.returncode == 0, done.stderr
    kinds, messages = zip(*json.loads(done.stdout), strict=True)
    assert kinds == ("read", "refused", *["fault"] * 7)
    words = ["not named", "KeyError", "ended with -6", "no end within", "MiB above", "was run"]
    for message, word in zip(messages[2:], [*words, "too much memory"], strict=True):
        assert word in message


def test_the_same_seed_damages_alike() -> None:
    code = (
        "import random; from mutations import mutated; data = bytes(range(256)) * 4;"
        "print([mutated(data, [data], random.Random(f'{seed}/x/{n}')) for seed in (0, 1)"
        " for n in range(40)])"
    )
    first, second = run("-c", code), run("-c", code)
    assert first.returncode == 0 and first.stdout == second.stdout
    made = eval(first.stdout)
    assert len(set(made)) > 70 and bytes(range(256)) * 4 not in made[:5]
