"""The copy that a snapshot is written from: of one moment, whatever training does meanwhile."""

from __future__ import annotations

import threading

import pytest
import torch

from arcface_plus.checkpoints.copying import HostCopy

CPU = torch.device("cpu")


def state(value: float) -> dict[str, torch.Tensor]:
    layout = {"memory_format": torch.channels_last}
    return {
        "weight": torch.full((4, 3, 2, 2), value).contiguous(**layout),
        "statistics": torch.full((3,), value),
        "count": torch.tensor(int(value)),
        "nothing": torch.empty(0, 2),
    }


def test_what_is_not_named_may_change_at_once_and_the_rest_after_before_update() -> None:
    copy, live = HostCopy(CPU), state(3.0)
    buffers = copy.begin(live, {"weight"})
    live["statistics"].fill_(9.0)
    live["count"].fill_(9)
    waited = threading.Thread(target=lambda: (copy.before_update(), live["weight"].fill_(9.0)))
    waited.start()
    waited.join(0.1)
    assert waited.is_alive(), "the weights have not been read yet"
    copy.finish()
    waited.join()
    assert (live["weight"] == 9).all()
    assert all(torch.equal(buffers[name], value) for name, value in state(3.0).items())
    assert buffers["weight"].stride() == live["weight"].stride()


def test_buffers_are_kept_and_follow_a_change_of_names_and_shapes() -> None:
    copy = HostCopy(CPU)
    first = dict(copy.begin(state(1.0), frozenset()))
    copy.finish()
    size = copy.bytes()
    assert size == sum(value.nbytes for value in first.values())
    second = copy.begin(state(2.0), frozenset())
    copy.finish()
    assert all(second[name] is first[name] for name in first)
    third = copy.begin({"weight": torch.ones(5)}, frozenset())
    copy.finish()
    assert torch.equal(third["weight"], torch.ones(5)) and copy.bytes() == 20


def test_a_copy_that_fails_lets_training_go_on() -> None:
    """Its error is that of the save; a training thread that waited for ever would hide it."""
    copy, live = HostCopy(CPU), {"weight": torch.ones(3)}
    copy.begin(live, {"weight"})["weight"].resize_(0)
    with pytest.raises(RuntimeError):
        copy.finish()
    copy.before_update()


def test_nothing_to_wait_for_before_the_first_save() -> None:
    HostCopy(CPU).before_update()
