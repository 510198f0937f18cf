"""What each rank is doing, told to the others: who failed, who is late, where all stop.

Ranks meet in a key-value store (of torch.distributed) before they form a group. A thread of each
writes there every second what its rank is doing, and reads what the others say. So a message can
name the rank that failed or is behind, and end the process, also while the main thread waits for
what will never come. The loop pays an assignment a phase. A world of one has no thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

PERIOD = 1.0  # seconds between two looks at the store
HURRY = 0.1  # the same while somebody waits for an answer
SILENT = 5.0  # a rank whose thread has not written for so long has ended or is stopped
BROKEN = 2.5  # the same where a connection broke: one of the others has ended
FIRST_WARNING = 30.0  # seconds in one phase, behind another rank
GRACE = 5.0  # seconds for the main thread to end by itself once another rank has failed


class PeerFailed(ConnectionError):
    """Another rank failed, was killed or did not come in time; the message says which and why."""


class _Place(NamedTuple):
    """Where a rank is: how many phases it has entered, the last one and its step."""

    entered: int
    phase: str
    step: int
    host: str
    pid: int
    beat: int

    def __str__(self) -> str:
        return f"'{self.phase}' of step {self.step}"


@dataclass
class _Peer:
    """Another rank as it was last heard of; ``since`` and ``heard`` are times of our own clock."""

    since: float
    heard: float
    place: _Place | None = None


class Watch:
    """This rank's place in the run, and what is known of the other ranks.

    ``store``: of torch.distributed, used by this object alone (a ``clone``). ``timeout``: seconds
    that a rank may be waited for. ``hosts_store``: whether the store ends with this process.
    ``leave`` ends the process: only the tests have another one.
    """

    def __init__(
        self,
        store: Any = None,
        *,
        rank: int = 0,
        size: int = 1,
        timeout: float = 1800.0,
        hosts_store: bool = False,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        self.store, self.rank, self.size, self.timeout = store, rank, size, timeout
        self.hosts_store, self.leave = hosts_store, leave
        self.stopping = False  # some rank was asked to stop
        self.failure: str | None = None  # what ended another rank, once that is known
        self._at = (0, "start", 0, time.monotonic())
        self._host, self._pid, self._beat = socket.gethostname(), os.getpid(), 0
        self._message: str | None = None  # why this rank ends
        self._asked = self._closed = self._lost = self._in_a_hurry = self._warned = False
        self._earliest: int | None = None  # step that this rank can stop before
        self._agreed: int | None = None
        self._lock, self._told, self._wake = threading.Lock(), threading.Event(), threading.Event()
        self._looked = self._learned = time.monotonic()
        self._peers: dict[int, _Peer] = {}
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        if size > 1:
            self._thread.start()

    def enter(self, phase: str, step: int) -> None:
        """Say what this rank does from now on; all ranks enter the same phases in one order."""
        self._warned = False
        self._at = (self._at[0] + 1, phase, step, time.monotonic())

    def report(self, message: str) -> None:
        """Tell the other ranks why this one ends; only the first that fails is heard."""
        if self.size > 1:
            self._message = message
            self._hurry()
            self._told.wait(3 * PERIOD)

    def close(self) -> None:
        """Say that this rank is done; the others no longer wait for it."""
        if self.size > 1:
            self._closed = True
            self._hurry()
            self._thread.join(5 * PERIOD)

    def ask_to_stop(self) -> None:
        """Ask all ranks to stop at one step. A signal handler may call it: it takes no lock."""
        self._asked = True
        self.stopping |= self.size == 1

    def stops_at(self, step: int) -> bool:
        """Return whether all ranks stop before ``step``; each asks before every step.

        Once one was asked to, the thread of each says which step its rank could stop before, and
        all go on to the farthest. A rank that waits here for the threads keeps no other waiting.
        Raises PeerFailed where one does not answer: then there is nothing to save.
        """
        with self._lock:
            if not self.stopping:
                self._earliest = step + 1
                return False
            if self._earliest is None:
                self._earliest = step
        if self.size > 1 and self._agreed is None:
            self._agree()
        return self.size == 1 or step == self._agreed

    def _agree(self) -> None:
        self._hurry()
        began = time.monotonic()
        while self._agreed is None:
            time.sleep(HURRY / 2)
            gone = self.failure or self._silent_ranks(SILENT) or self._lost
            if gone or time.monotonic() - began > self.timeout:
                raise PeerFailed(f"{self.peer_failure()} Asked to stop, this rank saves nothing.")
        self._in_a_hurry = False

    def peer_failure(self, error: object = None) -> str:
        """Return who failed, and why, after a collective broke with ``error``; may take seconds."""
        self._hurry()
        end, silent = time.monotonic() + 2 * BROKEN, self._silent_ranks(BROKEN)
        while time.monotonic() < end and not (self.failure or self._lost or silent):
            time.sleep(HURRY / 2)
            silent = self._silent_ranks(BROKEN)
        if self.failure:
            return self.failure
        here = f"while this rank was in '{self._at[1]}' of step {self._at[2]}"
        if silent or self._lost:  # the store lives in the launcher or in rank 0
            gone = " and ".join(f"rank {r}" for r in silent) or "rank 0 or the launcher"
            return (
                f"{gone} ended without a message {here}. It was killed or its machine is gone; "
                "if memory ran out there, lower --data.workers or --train.global_batch."
            )
        return f"the connection to another rank broke {here}: {error}"

    def _hurry(self) -> None:
        self._in_a_hurry = True
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(HURRY if self._in_a_hurry else PERIOD)
            self._wake.clear()
            try:
                self._exchange()
            except RuntimeError:  # the store is gone; collectives break by themselves
                self._lost = True
                self._told.set()
                return
            if self._closed:
                return
            self._judge()

    def _exchange(self) -> None:
        """Write this rank's place and read what concerns it."""
        now = time.monotonic()
        if now - self._looked > SILENT:  # this process was stopped itself: nobody else was late
            self._at = (*self._at[:3], now)
            self._peers = {}
        self._looked = now
        self._beat += 1
        began = self._at[3]
        place = _Place(*self._at[:3], self._host, self._pid, self._beat)
        self.store.set(f"place/{self.rank}", json.dumps(None if self._closed else place))
        if self._asked:
            self.store.set("stop", "1")
        self._exchange_failures()
        if self._agreed is None and self.store.check(["stop"]):
            self._exchange_steps()
        if self._in_a_hurry or now - began > 2 * PERIOD:
            self._hear(now)
        else:  # what was heard long ago says nothing of who is silent now
            self._peers = {}

    def _exchange_steps(self) -> None:
        with self._lock:  # from here on the main thread begins no step before all agreed
            self.stopping, earliest = True, self._earliest
        if earliest is not None:
            self.store.set(f"earliest/{self.rank}", str(earliest))
        keys = [f"earliest/{r}" for r in range(self.size)]
        if self.store.check(keys):
            self._agreed = max(map(int, self.store.multi_get(keys)))

    def _exchange_failures(self) -> None:
        if self._message is not None and not self._told.is_set():
            first = self.store.compare_set("failed", "", f"{self.rank}\n{self._message}").decode()
            if self.hosts_store and first.startswith(f"{self.rank}\n"):
                others = [f"heard/{r}" for r in range(self.size) if r != self.rank]
                if not self.store.check(others):  # keep the store until all have read it
                    return
            self._told.set()
        elif self.failure is None and self.store.check(["failed"]):
            rank, _, message = self.store.get("failed").decode().partition("\n")
            self.store.set(f"heard/{self.rank}", "1")
            if int(rank) != self.rank:
                self.failure, self._learned = f"rank {rank} failed: {message}", time.monotonic()

    def _hear(self, now: float) -> None:
        for rank in {*range(self.size)} - {self.rank}:
            peer = self._peers.setdefault(rank, _Peer(now, now))
            if not self.store.check([f"place/{rank}"]):
                continue
            told = json.loads(self.store.get(f"place/{rank}"))
            if told is None:  # it is done
                peer.place, peer.heard = None, float("inf")
                continue
            before, peer.place = peer.place, _Place(*told)
            if before is None or before.entered != peer.place.entered:
                peer.since = now
            if before is None or before.beat != peer.place.beat:
                peer.heard = now

    def _silent_ranks(self, limit: float) -> list[int]:
        now = time.monotonic()
        return [r for r, peer in list(self._peers.items()) if now - peer.heard > limit]

    def _judge(self) -> None:
        """Warn of a rank that is late, and end this process where it has failed or is too late."""
        now = time.monotonic()
        if self.failure and self._message is None and now - self._learned > GRACE:
            # The main thread waits in a collective that nothing interrupts (NCCL, a hung disk).
            self._say(f"error: {self.failure}")
            self.leave(1)
        entered, phase, step, began = self._at
        waited = now - began
        early = waited < min(FIRST_WARNING, self.timeout / 2)
        known = self.failure or self._message or self._in_a_hurry
        late = "" if early or known else self._late(entered)
        if not late:
            return
        here = f"'{phase}' of step {step}"
        if waited > self.timeout:
            message = (
                f"{here} did not come within {self.timeout:g} s (train.timeout): {late}. Look at "
                "that rank's machine, disk and messages; if it is only slow, raise --train.timeout."
            )
            self._message = message
            with contextlib.suppress(RuntimeError):  # the store is gone
                self._exchange_failures()
            self._wake_stopped()
            self._say(f"error: {message}")
            self.leave(1)
        elif not self._warned:
            self._warned = True
            self._say(f"warning: {here} has not come for {waited:.0f} s: {late}")

    def _late(self, entered: int) -> str:
        """Return who is behind this rank and where; empty where nobody is, or another rank says."""
        now, silent = time.monotonic(), self._silent_ranks(SILENT)
        places = {r: p.place for r, p in self._peers.items() if p.place and r not in silent}
        behind = [r for r, place in places.items() if place.entered < entered]
        ahead = [r for r, place in places.items() if place.entered > entered]
        if ahead or min([r for r in places if r not in behind], default=self.rank) < self.rank:
            return ""
        said = []
        for rank in silent:
            last, quiet = self._peers[rank].place or "the start", now - self._peers[rank].heard
            said.append(f"rank {rank} has not been heard of for {quiet:.0f} s (last in {last})")
        for rank in [] if silent else behind:
            spent = now - self._peers[rank].since
            said.append(f"rank {rank} has been in {places[rank]} for {spent:.0f} s or more")
        return "; ".join(said)

    def _wake_stopped(self) -> None:
        """Let stopped ranks of this machine go on, so that the launcher's SIGTERM reaches them."""
        for rank in self._silent_ranks(SILENT):
            place = self._peers[rank].place
            if place is not None and place.host == self._host:
                with contextlib.suppress(OSError):  # it has ended
                    os.kill(place.pid, signal.SIGCONT)

    def _say(self, message: str) -> None:  # the main thread may hold the locks of sys.stderr
        os.write(2, f"[rank {self.rank}] {message}\n".encode())
