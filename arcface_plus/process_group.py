"""The default process group: made, watched, left so that no failure hangs; a net over its ranks.

``distributed.start_world`` is what everybody calls.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from arcface_plus.watch import PeerFailed, Watch

# Collectives end by themselves that much later than the watch, which can say what was waited for.
_SPARE = 15.0  # seconds


def time_limit(timeout: float) -> timedelta:
    """Return when a collective gives up by itself if a rank may be waited for ``timeout`` s."""
    return timedelta(seconds=timeout + _SPARE)


@contextlib.contextmanager
def process_group(device: torch.device, timeout: float, backend: str) -> Iterator[Watch]:
    """Make the default process group, and a watch over its ranks; ``timeout`` in seconds.

    Where the block raises, the other ranks are told why, and an error that is but the consequence
    of another rank's becomes PeerFailed. The group of several ranks is then not destroyed: that
    would wait, with NCCL for ever, for ranks that do not come. End the process: SIGTERM, which
    launchers send to the ranks that are left, no longer does before the message is out.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    launched = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    # A store in memory needs no port, so two single-process runs on a host never collide.
    store: dist.Store = dist.HashStore()
    if "RANK" in os.environ:
        store, rank, size = next(dist.rendezvous("env://", timeout=time_limit(timeout)))
        if launched:  # restarted ranks meet in torchrun's store, which has the dead ones' addresses
            store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    dist.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=size,
        timeout=time_limit(timeout),
        device_id=device if "nccl" in backend else None,
    )
    watch = Watch(
        dist.PrefixStore("watch", store.clone()),
        rank=rank,
        size=size,
        timeout=timeout,
        hosts_store=rank == 0 and not launched,
    )
    try:
        yield watch
    except BaseException as error:
        if size == 1:
            dist.destroy_process_group()
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            failed = PeerFailed(watch.peer_failure(error))
            watch.report(str(failed))
            raise failed from error
        watch.report(_in_one_line(error))
        raise
    watch.close()
    dist.destroy_process_group()


def _in_one_line(error: BaseException) -> str:
    """Return what other ranks say of ``error``; that of a worker has its traceback in its text."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if "Traceback" in str(error) else lines[0]
