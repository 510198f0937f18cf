from __future__ import annotations

from pathlib import Path

import pytest

from arcface_plus.checkpoints import retention
from arcface_plus.checkpoints.retention import Retention, remove

STEPS = [0, 10, 20, 25, 30, 40, 50, 60]


@pytest.mark.parametrize(
    ("rule", "protected", "stay"),
    [
        (Retention(2), None, {50, 60}),
        (Retention(1), 25, {25, 60}),
        (Retention(2, 20), None, {20, 40, 50, 60}),
        (Retention(1, 30), 0, {0, 30, 60}),
        (Retention(20), None, set(STEPS)),
    ],
)
def test_the_newest_the_best_and_every_nth_stay(rule, protected, stay) -> None:
    assert set(STEPS) - set(rule.removable(STEPS, protected)) == stay


def test_a_snapshot_loses_its_name_before_its_files(tmp_path: Path, monkeypatch) -> None:
    snapshot = tmp_path / "step-00000005"
    snapshot.mkdir()
    (snapshot / "manifest.json").write_text("{}")
    rmtree, named = retention.shutil.rmtree, []
    monkeypatch.setattr(
        retention.shutil,
        "rmtree",
        lambda path, **words: (named.append(snapshot.exists()), rmtree(path, **words)),
    )
    remove(snapshot)
    assert named[-1] is False and list(tmp_path.iterdir()) == []
    remove(snapshot)  # nothing there: nothing to do
