"""The paper's protocol: batched losses equal the regularizers', runs depend on their seed alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from arcface_plus.regularizers.energies import cosine_loss, log_loss, riesz_loss
from arcface_plus.regularizers.mma import mma_loss
from arcface_plus.studies.tammes import table as tammes_table
from arcface_plus.studies.tammes.losses import LOSSES, loss_function
from arcface_plus.studies.tammes.paper import initial_weight, run_protocol

REFERENCES = {
    "mma": mma_loss,
    "cosine": cosine_loss,
    "riesz": lambda weight: riesz_loss(weight, 2.0),
    "log": log_loss,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(3, 7, 3), (2, 30, 5), (1, 2, 4)])
def test_values_and_gradients_are_those_of_the_regularizers(name: str, shape: tuple) -> None:
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal(shape))
    value, gradient = loss_function(name)(weight)
    for b in range(shape[0]):
        one = weight[b].clone().requires_grad_()
        loss = REFERENCES[name](one)
        loss.backward()
        assert value[b].item() == pytest.approx(loss.item(), rel=1e-9)
        torch.testing.assert_close(gradient[b], one.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_close_points_stay_finite(name: str) -> None:
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 6, 3)))
    weight[0, 1] = weight[0, 0]
    weight[0, 2] = 2 * weight[0, 0] + 1e-9
    value, gradient = loss_function(name)(weight)
    assert value.isfinite().all() and gradient.isfinite().all()


def test_unknown_losses_are_refused() -> None:
    with pytest.raises(ValueError, match="'mmma'"):
        loss_function("mmma")


def test_a_run_depends_on_its_own_seed_alone() -> None:
    together = run_protocol("mma", 3, 8, [4, 5, 6], iterations=300)
    alone = run_protocol("mma", 3, 8, [5], iterations=300)
    np.testing.assert_allclose(together.rows[1], alone.rows[0], atol=1e-6)
    assert not np.allclose(together.rows[0], together.rows[1])


def test_momentum_and_cuts_are_those_of_torch() -> None:
    """A few hundred steps of the same SGD by torch, with the same rule of stagnation."""
    weight = torch.from_numpy(initial_weight(3, 6, 3).astype(np.float32)).requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    least, waited, cuts = math.inf, 0, 0
    for _ in range(200):
        optimizer.zero_grad()
        loss = riesz_loss(weight, 2.0)
        loss.backward()
        waited = 0 if loss.item() < least else waited + 1
        least = min(least, loss.item())
        if waited >= 40:
            waited, cuts = 0, cuts + 1
            optimizer.param_groups[0]["lr"] /= 5
        optimizer.step()
    unit = torch.nn.functional.normalize(weight.detach().double(), dim=1).numpy()
    runs = run_protocol("riesz", 3, 6, [3], iterations=200, patience=40)
    np.testing.assert_allclose(runs.rows[0], unit, atol=2e-4)


@pytest.mark.slow
def test_small_rows_of_table_1_reach_the_papers_numbers() -> None:
    for row in tammes_table.choose_rows("3x4,4x5,5x6"):
        result = tammes_table.measure_row(row, seeds=range(2), losses=["mma"], solve=True)
        assert result["mma_best"] > row.paper["mma"] - 0.1
        assert result["solver_certified"] == pytest.approx(row.best_known, abs=1e-6)


def test_the_papers_numbers_are_in_the_table_it_prints(tmp_path: Path) -> None:
    (row,) = tammes_table.choose_rows("3x4")
    result = tammes_table.measure_row(row, seeds=[0], losses=["mma", "log"], iterations=20)
    text = tammes_table.save([result], tmp_path)
    assert "| 3 | 4 | 109.471 | 109.5 / " in text
    assert json.loads((tmp_path / "table1.json").read_text())[0]["log_paper"] == 109.5
    assert {p.name for p in tmp_path.iterdir()} == {"table1.json", "table1.csv", "table1.md"}
    with pytest.raises(ValueError, match="9x9"):
        tammes_table.choose_rows("3x4,9x9")
