"""Batches: the same at every step, whatever the workers, the ranks and the restarts."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import signal
import time

import numpy as np
import pytest
import torch

from arcface_plus.data.batches.loader import (
    Batch,
    TrainLoader,
    WorkerError,
    _PlannedBatches,
    explained_workers,
)
from arcface_plus.data.batches.order import SPARES, OrderedSteps, epoch_order
from arcface_plus.data.batches.ring import BatchRing
from arcface_plus.data.settings import AugmentConfig, DataConfig
from arcface_plus.data.sources.synthetic import SyntheticFaces
from arcface_plus.training.health.quarantine import Quarantine

SIZE, SAMPLES, BATCH, STEPS = 24, 42, 10, 9
AUGMENT = AugmentConfig(
    pad_crop=3,
    flip=0.5,
    auto_augment="cifar10",
    affine=0.7,
    rotate=20,
    shift=0.1,
    brightness=0.2,
    contrast=0.2,
    blur=0.3,
    noise=4,
    low_resolution=0.3,
    erase=0.3,
)


class Faces(SyntheticFaces):
    """Synthetic images of which some cannot be read."""

    def __init__(self, bad=(), *, num_classes: int = SAMPLES // 6, error=ValueError) -> None:
        super().__init__(num_classes, 6, size=SIZE)
        self.bad, self.error = frozenset(bad), error

    def read(self, index: int) -> tuple[np.ndarray, int]:
        if index in self.bad:
            raise self.error(f"{self.describe(index)}: the image data are corrupt")
        return super().read(index)

    def describe(self, index: int) -> str:
        return f"faces.rec, record {index}"


def loader(source=None, *, workers=0, rank=0, size=1, start=0, stop=STEPS, policy="stop", **other):
    source = Faces() if source is None else source
    config = DataConfig(
        source="synthetic",
        num_classes=2,
        size=SIZE,
        workers=workers,
        augment=other.pop("augment", AUGMENT),
        on_bad_image=policy,
        timeout=other.pop("timeout", 60),
    )
    steps = OrderedSteps(
        len(source), other.pop("batch", BATCH), seed=5, start=start, stop=stop, rank=rank, size=size
    )
    return TrainLoader(source, config, steps, **other)


def batches(*args, **settings) -> list[Batch]:
    """Return copies: workers write later batches to the same memory."""
    return [
        dataclasses.replace(batch, images=batch.images.clone())
        for batch in loader(*args, **settings)
    ]


def assert_same(a: Batch, b: Batch) -> None:
    assert a.step == b.step and a.quarantined == b.quarantined
    for x, y in ((a.images, b.images), (a.labels, b.labels), (a.indices, b.indices)):
        assert x.dtype == y.dtype and torch.equal(x, y)


def joined(parts: list[Batch]) -> Batch:
    """Return the global batch of the ranks' parts."""
    bad = sorted({pair for part in parts for pair in part.quarantined})
    tensors = (
        torch.cat([getattr(p, name) for p in parts]) for name in ("images", "labels", "indices")
    )
    return Batch(parts[0].step, *tensors, bad)


@pytest.fixture(scope="module")
def whole() -> list[Batch]:
    return batches()


def test_what_a_batch_holds(whole):
    steps = OrderedSteps(SAMPLES, BATCH, seed=5, start=0, stop=STEPS)
    assert [batch.step for batch in whole] == list(range(STEPS))
    for batch in whole:
        assert batch.images.shape == (BATCH, SIZE, SIZE, 3) and batch.images.dtype == torch.uint8
        assert batch.labels.dtype == batch.indices.dtype == torch.int64
        assert batch.indices.tolist() == steps.global_indices(batch.step).tolist()
        assert torch.equal(batch.labels, batch.indices // 6)
        assert batch.quarantined == []
    assert len(loader(start=3)) == STEPS - 3


def test_images_are_those_of_the_source_where_nothing_changes_them():
    plain = AugmentConfig(flip=0)
    for batch in batches(augment=plain, stop=2):
        for image, index in zip(batch.images, batch.indices, strict=True):
            np.testing.assert_array_equal(image.numpy(), Faces().read(int(index))[0])


def test_an_image_looks_different_in_every_epoch(whole):
    looks: dict[int, list[bytes]] = {}
    for batch in whole:
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
            looks.setdefault(index, []).append(image.numpy().tobytes())
    repeated = [seen for seen in looks.values() if len(seen) > 1]
    assert len(repeated) > 30 and all(len(set(seen)) == len(seen) for seen in repeated)


def test_workers_change_nothing(whole):
    for a, b in zip(batches(workers=2), whole, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("start", [1, 4, 7])
def test_resuming_is_continuing(whole, start):
    late = batches(start=start)
    assert len(late) == STEPS - start
    for a, b in zip(late, whole[start:], strict=True):
        assert_same(a, b)


def test_resuming_with_other_workers_is_continuing(whole):
    for a, b in zip(batches(start=5, workers=1), whole[5:], strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_parts_of_the_ranks_make_the_global_batch(whole, size):
    parts = [batches(rank=r, size=size) for r in range(size)]
    for step, batch in enumerate(whole):
        assert_same(joined([part[step] for part in parts]), batch)


def test_loader_may_be_iterated_again(whole):
    twice = loader()
    for _ in range(2):
        for a, b in zip(twice, whole, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("workers", [0, 1])
def test_global_generators_are_left_alone(workers):
    """Dropout draws from torch's: a resumed run must find it as its checkpoint left it."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    batches(workers=workers, stop=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_may_be_started_afresh():
    """Where processes are not forked, all that workers need is pickled."""
    made = loader(stop=1)
    ring = BatchRing(2, BATCH, SIZE)
    planned = _PlannedBatches(made.source, made.config, made.steps.seed, ring)
    again = pickle.loads(pickle.dumps(planned))[next(iter(made.steps)), 1]
    assert_same(again, next(iter(made)))


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_stay_until_the_second_one_after_is_asked_for(whole, workers):
    """In memory that is used again and again: no more of it than is on its way."""
    places, last, expected = set(), None, None
    for batch in loader(workers=workers, stop=2 * STEPS):
        places.add(batch.images.data_ptr())
        if last is not None:
            assert_same(last, expected)
        if batch.step < STEPS:
            assert_same(batch, whole[batch.step])
        last, expected = batch, dataclasses.replace(batch, images=batch.images.clone())
    assert len(places) == min(2 * STEPS, 4 * workers + 2)


def test_batches_that_shared_memory_has_no_room_for_are_refused(monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"need 6 MiB .* has 1 MiB left\. Lower --data\.workers"):
        BatchRing(11, 100, SIZE + 20)


def test_images_of_another_size_are_scaled():
    class Large(Faces):
        def read(self, index):
            image, label = super().read(index)
            return np.repeat(np.repeat(image, 2, axis=0), 2, axis=1), label

    large = batches(Large(), stop=1, augment=AugmentConfig(flip=0))
    assert torch.equal(large[0].images, batches(stop=1, augment=AugmentConfig(flip=0))[0].images)


# -- bad images ----------------------------------------------------------------------------------


def position_of(bad: int, step: int = 2) -> int:
    """Return the index that stands at place ``bad`` of a step."""
    return int(OrderedSteps(SAMPLES, BATCH, seed=5, start=0, stop=9).global_indices(step)[bad])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, PermissionError])
def test_bad_image_stops_at_its_step_naming_file_and_step(workers, error):
    index = position_of(4)
    got: list[Batch] = []
    with pytest.raises(ValueError) as caught:
        for batch in loader(Faces({index}, error=error), workers=workers):
            got.append(batch)
    first = next(b.step for b in batches() if index in b.indices.tolist())
    assert [batch.step for batch in got] == list(range(first))
    message = str(caught.value)
    assert message.startswith(
        f"faces.rec, record {index}: the image data are corrupt (step {first})"
    )
    assert "--data.on_bad_image quarantine" in message
    assert "Traceback" not in message and "worker" not in message


def test_image_that_is_not_square_stops_and_is_named():
    class Wide(Faces):
        def read(self, index):
            image, label = super().read(index)
            return (image[:20] if index == 3 else image), label

    with pytest.raises(ValueError, match=r"record 3: the image is 24×20.*\(step \d+\)"):
        batches(Wide())


def test_faults_of_ours_are_not_taken_for_bad_images():
    with pytest.raises(KeyError):
        batches(Faces({position_of(0)}, error=KeyError), policy="quarantine")


def expected_indices(order: list[int], first: int, bad: set[int]) -> list[int]:
    """Return what the rule says: each position takes the first good index from there on."""
    chosen = []
    for position in range(first, first + BATCH):
        chosen.append(next(i for i in np.roll(order, -position).tolist() if i not in bad))
    return chosen


def bad_sets() -> dict[str, set[int]]:
    steps = OrderedSteps(SAMPLES, BATCH, seed=5, start=0, stop=9)
    first, second = steps.global_indices(0).tolist(), steps.global_indices(1).tolist()
    return {
        "one": {first[3]},
        # Its stand-in is an image of the same batch, on another rank with two ranks.
        "last of a rank's part": {first[4]},
        "several in a row, over a rank's end": set(first[3:7]),
        "last of a batch": {first[9]},
        "last of a batch and first of the next": {first[9], *second[:2]},
        "a whole batch": set(first),
        "end of the epoch": set(steps.global_indices(3).tolist()[7:]),
        "most": set(range(30)),
    }


@pytest.mark.parametrize("case", bad_sets())
def test_stand_ins_follow_the_order_at_every_world_size(case):
    bad = bad_sets()[case]
    alone = batches(Faces(bad), policy="quarantine")
    steps = OrderedSteps(SAMPLES, BATCH, seed=5, start=0, stop=STEPS)
    for batch in alone:
        order = epoch_order(SAMPLES, 5, batch.step // 4).tolist()
        assert batch.indices.tolist() == expected_indices(order, batch.step % 4 * BATCH, bad)
        assert torch.equal(batch.labels, batch.indices // 6)
        met = {index for index, _ in batch.quarantined}
        assert bad & set(steps.global_indices(batch.step).tolist()) <= met <= bad
        for index, reason in batch.quarantined:
            assert reason == f"faces.rec, record {index}: the image data are corrupt"
    for size in (2, 3, 4):
        parts = [batches(Faces(bad), policy="quarantine", rank=r, size=size) for r in range(size)]
        for step, batch in enumerate(alone):
            assert_same(joined([part[step] for part in parts]), batch)


def test_stand_in_looks_as_it_does_where_it_stands_itself(whole):
    """Its draw is its own, so a copy within the batch is the same image."""
    bad, stand_in = whole[0].indices[3:5].tolist()
    batch = batches(Faces({bad}), policy="quarantine", stop=1)[0]
    assert batch.indices[3:5].tolist() == [stand_in, stand_in]
    assert torch.equal(batch.images[3], whole[0].images[4])
    assert torch.equal(batch.images[4], whole[0].images[4])


def test_quarantine_with_workers_is_the_same():
    bad = set(range(0, 42, 4))
    pairs = zip(
        batches(Faces(bad), policy="quarantine", workers=2),
        batches(Faces(bad), policy="quarantine"),
        strict=True,
    )
    for a, b in pairs:
        assert_same(a, b)


def test_sound_images_are_as_if_there_were_no_quarantine(whole):
    for a, b in zip(batches(policy="quarantine"), whole, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize(("run", "stops"), [(SPARES, False), (SPARES + 1, True)])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_long_run_of_bad_images_stops_at_every_world_size(run, stops, size):
    """The patience is counted from each position, so ranks do not change whether it ends."""
    samples, batch = 240, 16
    order = epoch_order(samples, 5, 0).tolist()
    source = Faces(order[:run], num_classes=samples // 6)
    settings = {"policy": "quarantine", "stop": 1, "batch": batch, "size": size}
    if stops:
        with pytest.raises(ValueError, match=f"none of {SPARES + 1} images can be read"):
            batches(source, rank=0, **settings)
    else:
        assert batches(source, rank=0, **settings)[0].indices[0] == order[run]


def test_nothing_left_to_read():
    with pytest.raises(ValueError, match="step 0: none of") as caught:
        batches(Faces(range(SAMPLES)), policy="quarantine", workers=1)
    assert "the image data are corrupt" in str(caught.value)


def test_listed_images_are_the_same_at_every_world_size(tmp_path):
    bad = {1, 2, 3, 17, 30, 41}
    lists = {}
    for size in (1, 2, 3):
        listed = set()
        for rank in range(size):
            folder = tmp_path / f"{size}"
            folder.mkdir(exist_ok=True)
            quarantine = Quarantine(folder, rank, 100, Faces().describe)
            for batch in loader(Faces(bad), policy="quarantine", rank=rank, size=size):
                quarantine.record(batch)
            if quarantine.path.is_file():
                lines = quarantine.path.read_text().splitlines()
                listed |= {json.loads(line)["index"] for line in lines}
        lists[size] = listed
    assert lists[1] == lists[2] == lists[3] and lists[1] <= bad and len(lists[1]) >= 5


# -- messages ------------------------------------------------------------------------------------


def test_a_step_is_described_by_its_images():
    text = loader().describe_step(2)
    assert text.startswith(f"faces.rec, record {position_of(0)}; ") and text.endswith(" and 2 more")
    assert loader().describe_step(2, most=10).count("record") == 10
    assert loader(rank=1, size=2).describe_step(2) == text  # of all ranks


def test_describing_an_old_step_does_not_disturb_the_order(whole):
    made = loader()
    for batch in made:
        made.describe_step(0)
        assert_same(batch, whole[batch.step])


class Doomed(Faces):
    """In a worker process, each read does ``fault`` first."""

    def __init__(self, fault) -> None:
        super().__init__()
        self.main, self.fault = os.getpid(), fault

    def read(self, index):
        if os.getpid() != self.main:
            self.fault()
        return super().read(index)


def test_a_worker_that_was_killed_says_what_to_do():
    source = Doomed(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with (
        pytest.raises(WorkerError, match=r"worker \(pid.* lower --data\.workers \(now 1"),
        explained_workers(DataConfig(source="synthetic", num_classes=13, workers=1)),
    ):
        for _ in loader(source, workers=1):
            time.sleep(0.1)


def test_a_file_system_that_hangs_ends_the_run_with_one_message():
    config = DataConfig(source="synthetic", num_classes=13, workers=1, timeout=0.5)
    with (
        pytest.raises(WorkerError, match=r"within 0\.5 s \(data\.timeout\)"),
        explained_workers(config),
    ):
        list(loader(Doomed(lambda: time.sleep(60)), workers=1, timeout=0.5))


def test_workers_outlive_what_is_sent_to_all_processes_of_a_run(whole):
    """SIGTERM of a batch system and Ctrl-C: the main process needs batches to end its step."""

    def fault() -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(os.getpid(), number)

    found = list(loader(Doomed(fault), workers=1))
    assert len(found) == len(whole)


def test_other_errors_stay_what_they_are():
    with (
        pytest.raises(RuntimeError, match="a fault of ours"),
        explained_workers(DataConfig(source="synthetic", num_classes=13)),
    ):
        raise RuntimeError("a fault of ours")
