"""The sweep of Table 3: its grid, its table, and ``study margin-sweep`` from start to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.pairs.sets import save_pairs_bin
from arcface_plus.runs.configuration import load_config
from arcface_plus.studies.repeats.comparison import Comparison
from arcface_plus.studies.repeats.records import read_runs
from arcface_plus.studies.tables.margin_sweep import (
    TABLE3,
    sweep_runs,
    wanted_runs,
    write_sweep,
)

CONFIG = """
name: base
data: {source: synthetic, num_classes: 8, images_per_class: 4, size: 32, workers: 0}
model: {name: iresnet18, embedding_dim: 8, width: 8}
head: {margin: {s: 8}, mma_weight: 0.0}
train: {steps: 1, global_batch: 8, precision: fp32, device: cpu}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    faces = [encode_jpeg(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(40)]
    save_pairs_bin(tmp_path / "noise.bin", faces, [bool(i % 2) for i in range(20)])
    path = tmp_path / "base.yaml"
    path.write_text(CONFIG + f"evaluation: {{sets: {{noise: {tmp_path / 'noise.bin'}}}}}\n")
    return path


def test_every_run_trains_the_margin_it_is_named_for(config: Path) -> None:
    runs = sweep_runs()
    assert len(runs) == 37 and len({run.name for run in runs}) == 37
    for run in runs:
        loaded = load_config(config, run.overrides())
        margin = loaded.head.margin_loss
        neutral = {"m0": 1.0, "m1": 1.0, "m2": 0.0, "m3": 0.0}
        assert {k: getattr(margin, k) for k in neutral} == {**neutral, run.setting: run.value}
        assert margin.wc_relu == (run.series in ("amp", "sphere")) == run.name.endswith("-relu")
        assert margin.s == 8 and loaded.name == "base", "the rest is the base's"


def test_best_values_of_the_paper_and_the_two_columns_without_margin() -> None:
    best = {name: max(figures, key=figures.get) for name, (_, _, figures) in TABLE3.items()}
    assert best == {"amp": 0.3, "sphere": 1.35, "arc": 0.6, "cos": 0.5}
    assert TABLE3["amp"][2][1.0] == TABLE3["sphere"][2][1.0] == 88.95
    assert TABLE3["arc"][2][0.0] == TABLE3["cos"][2][0.0] == 88.58


def test_other_ways_of_wc_relu_have_no_figure_in_the_paper() -> None:
    both = sweep_runs(["arc"], "both")
    assert [run.wc_relu for run in both] == [False] * 10 + [True] * 10
    assert all(run.paper for run in both[:10]) and not any(run.paper for run in both[10:])
    assert all(run.paper is None for run in sweep_runs(["amp"], "off"))


@pytest.mark.parametrize(("series", "way"), [(["Arc"], "paper"), ([], "paper"), (["arc"], "no")])
def test_refuses_unknown_names(series, way) -> None:
    with pytest.raises(ValueError, match="use "):
        sweep_runs(series, way)


def test_table_leaves_out_what_has_not_finished(finished_run, tmp_path: Path) -> None:
    runs = sweep_runs(["cos"])
    results = {runs[1].name: {"lfw": 0.9912, "agedb_30": 0.9}, runs[3].name: {"lfw": 0.5}}
    for name, sets in results.items():
        finished_run(tmp_path / name, pairs={s: {"accuracy": x} for s, x in sets.items()})
    labels, wanted = [run.name for run in runs], wanted_runs(Path("base.yaml"), runs)
    found = Comparison(labels, read_runs(wanted, tmp_path))
    text = write_sweep(tmp_path, runs, found)[1].read_text()
    assert text.splitlines()[0] == (
        "| series | setting | value | WC-ReLU | lfw | agedb_30 | paper (MegaFace id) |"
    )
    assert text.splitlines()[2:] == [
        "| cos | m3 | 0.1 | no | 99.12 | 90.00 | 92.44 |",
        "| cos | m3 | 0.3 | no | 50.00 |  | 97.72 |",
    ]
    with pytest.raises(ValueError, match="No run of the sweep has finished"):
        write_sweep(tmp_path, runs, Comparison(labels, []))


@pytest.mark.slow
def test_trains_a_series_and_goes_on_where_it_stopped(cli, config, tmp_path) -> None:
    output = tmp_path / "sweep"
    words = ["study", "margin-sweep", config, "--output", output, "--series", "sphere"]
    words += ["--optim.lr", "0.01"]
    done = cli(*words)
    assert done.exit_code == 0, done.output
    lines = (output / "sweep.csv").read_text().splitlines()
    assert len(lines) == 8 and lines[0].split(",")[4:] == ["noise", "paper (MegaFace id)"]
    saved = load_config(output / "sphere-m1-1.35-relu" / "config.yaml")
    assert saved.head.margin.m1 == 1.35 and saved.optim.lr == 0.01
    # A finished run is kept as it is: its result is read again.
    kept = output / "sphere-m1-1.2-relu" / "verification.json"
    results = json.loads(kept.read_text())
    results["results"]["noise"]["accuracy"] = 0.125
    kept.write_text(json.dumps(results))
    assert cli(*words).exit_code == 0
    assert "12.50" in (output / "sweep.md").read_text()


def test_list_and_bad_input(cli, config, tmp_path) -> None:
    words = ["study", "margin-sweep", config, "--output", tmp_path / "s", "--series", "arc"]
    listed = cli(*words, "--list", "--train.steps", "7")
    assert listed.exit_code == 0
    commands = listed.stdout.splitlines()
    assert len(commands) == 10 and all("--train.steps 7 --resume auto" in c for c in commands)
    refused = cli(*words, "--train.stepss", "7")
    assert refused.exit_code == 2 and "did you mean 'train.steps'" in refused.stderr
    assert not (tmp_path / "s").exists()
