"""``arcface-plus tammes`` and ``study table1``: files, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest


def test_writes_rows_and_a_picture(cli, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["tammes", "--dim", 3, "--points", 6, "--output", tmp_path / "a" / "x.npy"]
    answer = cli(*words, "--picture", tmp_path / "x.png")
    assert answer.exit_code == 0, answer.stderr
    assert "90.000000" in answer.stdout or "89.9999999" in answer.stdout
    assert np.load(tmp_path / "a" / "x.npy").shape == (6, 3)
    assert (tmp_path / "x.png").stat().st_size > 10_000
    again = cli(*words)
    assert again.exit_code == 2 and "--overwrite" in again.stderr
    assert cli(*words, "--overwrite").exit_code == 0


def test_json_is_all_it_prints(cli) -> None:
    answer = cli("tammes", "--dim", 3, "--points", 7, "--restarts", 8, "--json")
    found = json.loads(answer.stdout)
    assert found["certified_degrees"] == pytest.approx(77.8695, abs=1e-3)
    assert (found["method"], found["restarts"]) == ("search", 8)
    assert answer.stderr == ""


def test_the_papers_way(cli) -> None:
    answer = cli("tammes", "--dim", 3, "--points", 4, "--loss", "log", "--json")
    found = json.loads(answer.stdout)
    assert found["method"] == "SGD on log"
    assert found["certified_degrees"] == pytest.approx(109.47, abs=0.05)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dim", 4, "--points", 9, "--picture", "x.png"], "--dim is 4"),
        (["--dim", 3, "--points", 9, "--picture", "x.gif"], ".png or .svg"),
        (["--dim", 3, "--points", 9, "--output", "x.npz"], "must end in .npy"),
        (["--dim", 1, "--points", 9], "dim is 1"),
        (["--dim", 3, "--points", 9, "--loss", "mse"], "'mse'"),
        (["--dim", 3, "--points", 9, "--loss", "mma", "--restarts", 3], "--restarts"),
    ],
)
def test_bad_input_exits_2(cli, words: list, message: str) -> None:
    answer = cli("tammes", *words)
    assert answer.exit_code == 2 and message in answer.stderr


def test_table1_writes_every_row_it_was_asked_for(cli, tmp_path: Path) -> None:
    words = ["study", "table1", "--output", tmp_path, "--rows", "3x4,4x5", "--seeds", 2]
    answer = cli(*words, "--iterations", 50)
    assert answer.exit_code == 0, answer.stderr
    rows = json.loads((tmp_path / "table1.json").read_text())
    assert [(r["dim"], r["points"]) for r in rows] == [(3, 4), (4, 5)]
    assert all(r["solver_method"] == "simplex" and r["riesz_seeds"] == 2 for r in rows)
    assert cli(*words, "--losses", "mma,x").exit_code == 2
    assert cli(*words, "--losses", "none", "--no-solve").exit_code == 2
