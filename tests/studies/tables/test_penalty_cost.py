"""The cost of penalties: a step each, what is added, peaks from fresh processes."""

from __future__ import annotations

import math

import pytest
import torch

from arcface_plus.studies.tables import penalty_cost
from arcface_plus.studies.tables.penalty_cost import METHODS, Bench


@pytest.mark.parametrize("form", ["cosines", "differences"])
def test_the_forms_of_mhe_are_one_function(form: str) -> None:
    """Only what they hold on the way differs."""
    torch.manual_seed(0)
    ours = METHODS["MHE s=2, all rows, ours"]
    device = torch.device("cpu")
    one, other = (Bench(m, "resnet20", device, width=4) for m in (ours, ours._replace(form=form)))
    torch.testing.assert_close(one.penalty(0), other.penalty(0), rtol=1e-4, atol=1e-5)


def test_measures_every_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks, each of a fresh process, are made up here; the command's own test measures two."""
    peaks = iter([2 << 20, 3 << 20, 2 << 20, 5 << 20])
    monkeypatch.setattr(penalty_cost, "measured_peak", lambda name, **setting: next(peaks))
    names = ["baseline", "MMA", "MHE s=2, 30 %, differences", "orthogonal"]
    rows = penalty_cost.measure(
        names, model="resnet20", width=4, batch=4, rounds=1, device=torch.device("cpu")
    )
    assert [row["method"] for row in rows] == names
    assert all(rows[0]["added_ms"] < row["added_ms"] < row["ms_per_step"] for row in rows[1:])
    assert [row["peak_mib"] for row in rows] == [2, 3, 2, 5]
    assert [row["added_mib"] for row in rows] == [0, 1, 0, 3]
    assert all(0 < row["Classify_deg"] < 180 for row in rows)
    assert "| orthogonal |" in penalty_cost.cost_markdown(rows)


def test_steps_lower_the_loss() -> None:
    bench = Bench(METHODS["MMA"], "resnet20", torch.device("cpu"), width=4)
    images, labels = next(penalty_cost.batches(8, torch.device("cpu")))
    before = bench.angles()["Classify"]
    losses = []
    for _ in range(6):
        losses.append(float(bench.head(bench.net(images), labels, 0).loss))
        bench.step(images, labels)
    assert losses[-1] < losses[0] and math.isfinite(losses[-1])
    assert bench.angles()["Classify"] != before
