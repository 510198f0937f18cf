"""Tables from run folders: means, intervals, what was not run, angles by layer."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from arcface_plus.runs.configuration import load_config
from arcface_plus.studies.tables import accuracy_figures, accuracy_tables
from arcface_plus.studies.tables.accuracy_rows import LAMBDAS, TABLES
from arcface_plus.studies.tables.runs import Row

SEEDS = (123, 223, 323, 423, 523)


def finished(folder: Path, top1: float, top5: float = 0.9, angle: float = 60.0) -> Path:
    folder.mkdir(parents=True)
    numbers = {"top1": top1, "top5": top5}
    result = {
        "final": {"step": 9, **numbers},
        "mean_of_last": {**numbers, "evaluations": 5},
        "minimum_angles": {"conv1": angle, "classifier": 2 * angle},
    }
    (folder / "accuracy.json").write_text(json.dumps(result))
    return folder


def test_rows_take_their_own_runs_and_say_what_was_not_run(tmp_path: Path) -> None:
    for seed, top1 in ((123, 0.70), (223, 0.72)):
        finished(tmp_path / f"a-seed{seed}", top1)
    (tmp_path / "b-seed123").mkdir()  # begun, not finished
    rows = [Row("first", "a", paper=(72.08, 90.5)), Row("second", "b")]
    groups = accuracy_tables.groups_of_rows(rows, tmp_path, SEEDS)
    table = accuracy_tables.table_rows(groups)
    assert table[0]["runs"] == 2 and table[0]["top1"] == pytest.approx(71.0)
    assert table[0]["top1_paper"] == 72.08
    assert table[1]["runs"] == 0 and table[1]["top1"] is None
    text = accuracy_tables.accuracy_markdown(table)
    assert "| first | 2 | 71.00 ± 1.41" in text and "| second | 0 | not run | not run" in text


def test_folders_are_grouped_by_name_without_the_seed(tmp_path: Path) -> None:
    folders = [finished(tmp_path / name, 0.5) for name in ("x-seed1", "x-seed2", "y")]
    groups = accuracy_tables.groups_of_folders(folders)
    assert [(g.label, len(g.results)) for g in groups] == [("x", 2), ("y", 1)]
    with pytest.raises(ValueError, match=r"no accuracy\.json"):
        accuracy_tables.read_result(tmp_path)


def test_angles_are_means_over_runs_in_the_order_of_the_layers(tmp_path: Path) -> None:
    folders = [finished(tmp_path / f"x-seed{i}", 0.5, angle=40.0 + 20 * i) for i in (0, 1)]
    rows = accuracy_tables.angle_rows(accuracy_tables.groups_of_folders(folders))
    assert rows == [{"layer": "conv1", "x": 50.0}, {"layer": "classifier", "x": 100.0}]
    assert "| conv1 | 50.0° |" in accuracy_tables.angle_markdown(rows)
    accuracy_tables.write_csv(rows, tmp_path / "angles.csv")
    with (tmp_path / "angles.csv").open() as file:
        assert next(csv.DictReader(file)) == {"layer": "conv1", "x": "50.0"}


def test_figures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for value in (0.0, 0.03):
        for seed in (123, 223):
            finished(tmp_path / f"c-lambda{value:g}-seed{seed}", 0.6 + value + seed / 1e5)
    rows = [Row(f"λ = {v:g}", "c", suffix=f"-lambda{v:g}") for v in LAMBDAS]
    groups = accuracy_tables.groups_of_rows(rows, tmp_path, SEEDS)
    table = accuracy_tables.table_rows(groups, last=False)
    paths = accuracy_figures.draw_sweep(LAMBDAS, table, tmp_path / "out", "fig3", "net")
    paths += accuracy_figures.draw_angles(accuracy_tables.angle_rows(groups), tmp_path / "out")
    assert all(p.stat().st_size > 1000 for p in paths) and len(paths) == 4
    with pytest.raises(ValueError, match="no run of the sweep"):
        empty = [dict(r, runs=0) for r in table]
        accuracy_figures.draw_sweep(LAMBDAS, empty, tmp_path, "fig3", "net")


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
