"""The state of a run: parts are saved and restored by name, and a new part changes no format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from arcface_plus.checkpoints.parts import Part, Stored
from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.distributed import start_world
from arcface_plus.runs.build import build
from arcface_plus.runs.configuration import RunConfig, load_config
from arcface_plus.runs.train import train
from arcface_plus.training.state import RunState


class Average(Part):
    """A part of a later release."""

    def __init__(self, optional: bool) -> None:
        self.optional = optional  # type: ignore[misc]
        self.values, self.updates = torch.zeros(4), 0

    def tensors(self) -> dict[str, Stored]:
        return {"average.values": self.values}

    def numbers(self) -> dict[str, Any]:
        return {"average_updates": self.updates}

    def restore(self, tensors: Mapping[str, Stored], numbers: Mapping[str, Any]) -> None:
        self.updates = numbers["average_updates"]


@pytest.fixture
def world():
    with start_world("cpu") as world:
        yield world


def state_of(config: RunConfig, world) -> RunState:
    model, head = build(config, 13, world)
    return RunState(model, head, world, optim=config.optim, train=config.train)


def test_a_part_of_its_own_is_saved_and_restored(tiny: Path, tmp_path: Path, world) -> None:
    config = load_config(tiny)
    store = Checkpoints(tmp_path / "checkpoints", world)
    first = state_of(config, world)
    average = Average(optional=False)
    average.values += torch.arange(4)
    average.updates, first.step = 7, 5
    first.parts.append(average)
    first.save(store)
    again = state_of(config, world)
    with torch.no_grad():
        for parameter in [*again.model.parameters(), again.head.weight]:
            parameter.zero_()
    other = Average(optional=False)
    again.parts.append(other)
    again.restore(store, store.path(5))
    assert again.step == 5 and other.updates == 7
    assert torch.equal(other.values, torch.arange(4.0))
    assert torch.equal(again.head.weight, first.head.weight) and again.head.weight.any()
    pairs = zip(again.model.state_dict().values(), first.model.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_checkpoint_from_before_a_part(tiny: Path) -> None:
    folder = train(tiny, ["--train.steps", "3"])
    with start_world("cpu") as world:
        store = Checkpoints(folder / "checkpoints", world)
        state = state_of(load_config(tiny), world)
        later = Average(optional=True)
        later.values += 1
        state.parts.append(later)
        state.restore(store, store.path(3))
        assert state.step == 3 and torch.equal(later.values, torch.ones(4)) and later.updates == 0
        state.parts[-1] = Average(optional=False)
        with pytest.raises(ValueError, match=r"'average\.values' is absent"):
            state.restore(store, store.path(3))
