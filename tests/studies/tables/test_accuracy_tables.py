"""Tables from run folders: means, intervals, what was not run, angles by layer."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from arcface_plus.runs.configuration import load_config
from arcface_plus.studies.repeats.comparison import Comparison
from arcface_plus.studies.repeats.records import read_runs
from arcface_plus.studies.repeats.runs import Row, runs_of_rows
from arcface_plus.studies.tables import accuracy_figures, accuracy_tables
from arcface_plus.studies.tables.accuracy_rows import LAMBDAS, TABLES

SEEDS = (123, 223, 323, 423, 523)


@pytest.fixture
def finished(finished_run) -> Callable[..., Path]:
    def write(folder: Path, top1: float, seed: int = 0, angle: float = 60.0) -> Path:
        numbers = {"top1": top1, "top5": 0.9}
        result = {
            "final": {"step": 9, "top1": top1 + 0.01, "top5": 0.9},
            "mean_of_last": {**numbers, "evaluations": 5},
            "minimum_angles": {"conv1": angle, "classifier": 2 * angle},
        }
        return finished_run(folder, seed, accuracy=result)

    return write


def comparison_of(rows: list[Row], runs: Path) -> Comparison:
    wanted = runs_of_rows(rows, Path(), SEEDS)
    return Comparison([row.label for row in rows], read_runs(wanted, runs))


def test_rows_take_their_own_runs_and_say_what_was_not_run(finished, tmp_path: Path) -> None:
    for seed, top1 in ((123, 0.70), (223, 0.72)):
        finished(tmp_path / f"a-seed{seed}", top1, seed)
    (tmp_path / "b-seed123").mkdir()  # begun, not finished
    rows = [Row("first", "a", paper=(72.08, 90.5)), Row("second", "b")]
    comparison = comparison_of(rows, tmp_path)
    assert comparison.summary("first", "test images", "top1").mean == pytest.approx(71.0)
    assert comparison.summary("first", "test images", "top1_final").mean == pytest.approx(72.0)
    paper = {row.label: row.paper for row in rows}
    text = accuracy_tables.accuracy_markdown(comparison, ("top1", "top5"), paper)
    assert "| first | 2 | 71.00 ± 1.41 (± 12.71) | 90.00 ± 0.00 (± 0.00) | 72.08 | 90.50 |" in text
    assert "| second | 0 | not run | not run | – | – |" in text


def test_folders_are_grouped_by_name_without_the_seed(finished, tmp_path: Path) -> None:
    names = {"x-seed1": 1, "x-seed2": 2, "y": 0}
    folders = [finished(tmp_path / name, 0.5, seed) for name, seed in names.items()]
    comparison = accuracy_tables.comparison_of_folders(folders)
    assert {label: [*seeds] for label, seeds in comparison.records.items()} == {
        "x": [1, 2],
        "y": [0],
    }
    with pytest.raises(ValueError, match=r"no accuracy\.json"):
        accuracy_tables.comparison_of_folders([tmp_path])


def test_angles_are_means_over_runs_in_the_order_of_the_layers(finished, tmp_path: Path) -> None:
    folders = [finished(tmp_path / f"x-seed{i}", 0.5, i, 40.0 + 20 * i) for i in (0, 1)]
    rows = accuracy_tables.angle_rows(accuracy_tables.comparison_of_folders(folders))
    assert rows == [{"layer": "conv1", "x": 50.0}, {"layer": "classifier", "x": 100.0}]
    assert "| conv1 | 50.0° |" in accuracy_tables.angle_markdown(rows)
    accuracy_tables.write_csv(rows, tmp_path / "angles.csv")
    with (tmp_path / "angles.csv").open() as file:
        assert next(csv.DictReader(file)) == {"layer": "conv1", "x": "50.0"}


def test_figures_are_drawn(finished, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for value in (0.0, 0.03):
        for seed in (123, 223):
            finished(tmp_path / f"c-lambda{value:g}-seed{seed}", 0.6 + value + seed / 1e5, seed)
    rows = [Row(f"λ = {v:g}", "c", suffix=f"-lambda{v:g}") for v in LAMBDAS]
    comparison = comparison_of(rows, tmp_path)
    top1 = [comparison.summary(row.label, "test images", "top1_final") for row in rows]
    assert sum(accuracy is not None for accuracy in top1) == 2
    paths = accuracy_figures.draw_sweep(LAMBDAS, top1, tmp_path / "out", "fig3", "net")
    angles = accuracy_tables.angle_rows(comparison)
    paths += accuracy_figures.draw_angles(angles, tmp_path / "out")
    assert all(p.stat().st_size > 1000 for p in paths) and len(paths) == 4
    with pytest.raises(ValueError, match="no run of the sweep"):
        accuracy_figures.draw_sweep(LAMBDAS, [None] * len(LAMBDAS), tmp_path, "fig3", "net")


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_row_names_a_configuration_and_settings_it_has(name: str, repository: Path) -> None:
    rows = TABLES[name]
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        path = repository / "configs" / "classification" / f"{row.config}.yaml"
        config = load_config(path, row.overrides)
        assert config.evaluation.accuracy and config.evaluation.every > 0
        assert config.head.logits == "linear" and config.head.mma_weight == 0
        # A name says what is penalised, so that a row cannot train another.
        penalised = config.regularizer.weight > 0
        words = ("mma", "mhe", "orthogonal")
        assert penalised == any(word in row.name for word in words) or "lambda0" in row.name
        if row.paper[0] is not None:
            assert f"{row.paper[0]:.2f}" in path.read_text()
