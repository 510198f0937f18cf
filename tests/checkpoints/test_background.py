from __future__ import annotations

import threading

import pytest

from arcface_plus.checkpoints.background import Background


def test_an_error_is_raised_once_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise OSError("the disk is gone")

    work = Background("test")
    work.wait()
    work.start(fail)
    assert not work.ends_within(60)
    with pytest.raises(OSError, match="the disk is gone"):
        work.wait()
    work.wait()


def test_work_runs_beside_the_caller_who_may_wait_for_a_while_only() -> None:
    may_end, done = threading.Event(), []
    work = Background("test")
    work.start(lambda: done.append(may_end.wait(60)))
    assert not work.ends_within(0.01) and done == []
    may_end.set()
    assert work.ends_within(60)
    work.wait()
    assert done == [True]


def test_the_thread_does_not_keep_the_process() -> None:
    may_end, seen = threading.Event(), []
    work = Background("test")
    work.start(lambda: seen.append(threading.current_thread().daemon) or may_end.wait(60))
    may_end.set()
    work.wait()
    assert seen == [True]
