"""Two watches on one store: who is late, who failed, where both stop; and a world of one."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch.distributed as dist

from arcface_plus import watch as w
from arcface_plus.watch import PeerFailed, Watch


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    for name, value in {"PERIOD": 0.02, "HURRY": 0.01, "SILENT": 1.0, "BROKEN": 0.3}.items():
        monkeypatch.setattr(w, name, value)


@pytest.fixture
def meet() -> Iterator[Callable[..., list[Watch]]]:
    """``meet(2)`` -> a watch a rank, on one store in memory; ``left`` has its exit codes."""
    made: list[Watch] = []

    def make(size: int, timeout: float = 100.0, **options) -> list[Watch]:
        store = dist.HashStore()
        for rank in range(size):
            left: list[int] = []
            watch = Watch(
                store, rank=rank, size=size, timeout=timeout, leave=left.append, **options
            )
            watch.left = left
            made.append(watch)
        return made

    yield make
    for watch in made:
        watch.close()


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def silence(watch: Watch) -> None:
    """Stop what a rank says, as SIGSTOP would, without a word."""
    watch._exchange = lambda: None
    watch._judge = lambda: None
    time.sleep(0.05)


def test_a_world_of_one_has_no_thread_and_stops_when_asked() -> None:
    before = threading.active_count()
    watch = Watch()
    watch.enter("data", 3)
    assert not watch.stops_at(3)
    watch.ask_to_stop()
    assert watch.stops_at(4) and threading.active_count() == before
    watch.report("nobody listens")
    watch.close()


def test_the_rank_that_is_behind_is_named_and_all_end(meet, capfd) -> None:
    a, b = meet(2, timeout=0.6)
    for watch in (a, b):
        watch.enter("data", 7)
    a.enter("class logits", 7)
    until(lambda: a.left)
    said = capfd.readouterr().err
    assert "[rank 0] warning: 'class logits' of step 7 has not come for" in said
    assert "'class logits' of step 7 did not come within 0.6 s (train.timeout)" in said
    assert said.count("rank 1 has been in 'data' of step 7 for") >= 2 and a.left[0] == 1
    until(lambda: b.failure)  # which ends that rank after a grace
    assert b.failure.startswith("rank 0 failed: 'class logits'")


def test_a_silent_rank_is_named(meet, capfd) -> None:
    a, b = meet(2, timeout=2.0)
    for watch in (a, b):
        watch.enter("gradient all-reduce", 9)
    time.sleep(0.1)
    silence(b)
    until(lambda: a.left)
    assert "rank 1 has not been heard of for" in capfd.readouterr().err


def test_ranks_that_are_at_the_same_place_may_take_their_time(meet, capfd) -> None:
    """An evaluation, a slow step, a long save: nobody is behind, however long it takes."""
    a, b = meet(2, timeout=0.2)
    for watch in (a, b):
        watch.enter("evaluation", 10)
    time.sleep(0.6)
    assert not a.left and not b.left and capfd.readouterr().err == ""


def test_a_process_that_was_stopped_itself_blames_nobody(meet, capfd) -> None:
    a, b = meet(2, timeout=0.5)
    a.enter("class logits", 2)
    a._looked -= 60  # as if its thread had not run for a minute
    a._at = (*a._at[:3], a._at[3] - 60)
    time.sleep(0.1)
    assert not a.left and "step 2 did not come" not in capfd.readouterr().err
    b.enter("class logits", 2)


def test_the_first_failure_is_what_the_others_hear(meet) -> None:
    a, b, c = meet(3)
    b.report("image 7 is cut")
    c.report("later")
    assert a.peer_failure() == c.peer_failure() == "rank 1 failed: image 7 is cut"


def test_a_main_thread_that_hangs_is_ended_by_anothers_failure(meet, monkeypatch, capfd) -> None:
    monkeypatch.setattr(w, "GRACE", 0.1)
    a, b = meet(2)
    b.report("no space left")
    until(lambda: a.left)
    assert "[rank 0] error: rank 1 failed: no space left" in capfd.readouterr().err
    assert a.left[0] == 1 and not b.left


def test_the_host_of_the_store_stays_until_the_others_have_heard(meet) -> None:
    a, b = meet(2, hosts_store=True)
    began = []
    silence(b)
    thread = threading.Thread(target=lambda: (a.report("bad"), began.append(1)))
    thread.start()
    until(lambda: a.store.check(["failed"]))
    assert not a._told.is_set(), "it would have left before the other heard"
    a.store.set("heard/1", "1")
    thread.join(5)
    assert a._told.is_set() and began


def test_a_rank_that_ended_without_a_word_is_named(meet) -> None:
    a, b = meet(2)
    a.enter("gradient all-reduce", 4)
    silence(b)
    said = a.peer_failure("Connection closed by peer")
    assert "rank 1 ended without a message while this rank was in 'gradient all-reduce'" in said
    assert "step 4" in said and "--data.workers" in said


def test_a_lost_store_ends_the_thread_and_is_told(meet) -> None:
    a, _ = meet(2)

    class Gone:
        def set(self, key: str, value: str) -> None:
            raise dist.DistNetworkError("connection reset")

    a.store = Gone()
    a._thread.join(5)
    assert not a._thread.is_alive()
    assert "rank 0 or the launcher ended without a message" in a.peer_failure()
    a.report("still ends")  # without a wait for anybody


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_all_ranks_stop_before_the_same_step(meet, ahead: int) -> None:
    """Also where the host of one runs ahead of the other, as it does with GPUs."""
    watches = meet(2)
    stopped: dict[int, int] = {}
    steps, barrier = [0, 0], threading.Condition()

    def run(rank: int) -> None:
        watch = watches[rank]
        while not watch.stops_at(steps[rank]):
            with barrier:  # a step needs the other to have begun all but the last ``ahead``
                steps[rank] += 1
                barrier.notify_all()
                assert barrier.wait_for(lambda: steps[1 - rank] >= steps[rank] - ahead, 10)
            if (rank, steps[rank]) == (1, 20):
                watch.ask_to_stop()
        stopped[rank] = steps[rank]
        with barrier:
            steps[rank] += 0

    threads = [threading.Thread(target=run, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert stopped[0] == stopped[1] >= 20


def test_a_rank_asked_to_stop_after_anothers_failure_saves_nothing(meet) -> None:
    a, b = meet(2)
    assert not a.stops_at(5) and not b.stops_at(5)
    b.report("image 7 is cut")
    a.ask_to_stop()
    until(lambda: a.stopping)
    with pytest.raises(PeerFailed, match=r"image 7 is cut .*saves nothing"):
        a.stops_at(6)


def test_a_rank_that_is_done_is_not_waited_for(meet, capfd) -> None:
    a, b = meet(2, timeout=0.5)
    b.close()
    a.enter("results", 12)
    time.sleep(0.9)
    assert json.loads(a.store.get("place/1")) is None
    assert not a.left and capfd.readouterr().err == ""


def test_stopped_ranks_of_this_machine_are_woken(meet, monkeypatch) -> None:
    a, b = meet(2, timeout=2.0)
    sent = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number.name)))
    a.enter("class logits", 1)
    time.sleep(0.1)
    silence(b)
    until(lambda: a.left)
    assert sent and sent[0] == (os.getpid(), "SIGCONT")
