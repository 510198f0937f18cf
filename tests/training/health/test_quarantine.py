"""The list of images that could not be read."""

from __future__ import annotations

import json

import pytest
import torch

from arcface_plus.data.batches.loader import Batch
from arcface_plus.training.health.quarantine import Quarantine


def batch(step: int, *bad: int) -> Batch:
    empty = torch.empty(0)
    return Batch(step, empty, empty, empty, [(index, f"image {index} is cut") for index in bad])


@pytest.fixture
def make(tmp_path):
    def make(limit: int = 100, rank: int = 0) -> Quarantine:
        return Quarantine(tmp_path, rank, limit, lambda index: f"train.rec, record {index}")

    return make


def listed(quarantine: Quarantine) -> list[tuple[int, int]]:
    lines = quarantine.path.read_text(encoding="utf-8").splitlines()
    return [(entry["step"], entry["index"]) for entry in map(json.loads, lines)]


def test_each_image_is_listed_once(make):
    quarantine = make(rank=3)
    for step, bad in enumerate([(7, 9), (), (9, 2), (7,)]):
        quarantine.record(batch(step, *bad))
    assert quarantine.path.name == "quarantine-rank3.jsonl"
    assert listed(quarantine) == [(0, 7), (0, 9), (2, 2)]
    entry = json.loads(quarantine.path.read_text().splitlines()[0])
    assert entry == {
        "step": 0,
        "index": 7,
        "image": "train.rec, record 7",
        "reason": "image 7 is cut",
    }


def test_no_file_where_all_is_well(make):
    quarantine = make()
    quarantine.record(batch(0))
    assert not quarantine.path.exists()


def test_limit_counts_different_images(make):
    quarantine = make(limit=2)
    quarantine.record(batch(0, 1, 2))
    quarantine.record(batch(1, 1, 2))
    with pytest.raises(ValueError, match=r"3 images .* data.quarantine_limit \(2\).*rank0.jsonl"):
        quarantine.record(batch(2, 3))
    assert listed(quarantine)[-1] == (2, 3)  # also the one too many


def test_limit_of_none_at_all(make):
    with pytest.raises(ValueError, match=r"quarantine_limit \(0\)"):
        make(limit=0).record(batch(0, 1))


def test_resumed_run_goes_on_with_the_list_of_its_checkpoint(make):
    first = make()
    for step in range(6):
        first.record(batch(step, step))
    again = make(limit=6)
    again.record(batch(4))  # resumed from the checkpoint after step 3
    assert listed(again) == [(0, 0), (1, 1), (2, 2), (3, 3)] and again.known == {0, 1, 2, 3}
    again.record(batch(5, 3, 4, 5))
    assert listed(again)[4:] == [(5, 4), (5, 5)]
    with pytest.raises(ValueError, match="7 images"):
        again.record(batch(6, 6))


def test_run_that_starts_over_begins_a_new_list(make):
    make().record(batch(3, 1))
    again = make()
    again.record(batch(0, 5))
    assert listed(again) == [(0, 5)]


def test_line_torn_by_a_kill_is_dropped(make):
    first = make()
    first.record(batch(0, 1))
    with first.path.open("a") as file:
        file.write('{"step": 1, "ind')
    again = make()
    again.record(batch(2, 8))
    assert listed(again) == [(0, 1), (2, 8)]
