"""Sharded snapshots of a run that load at any number of processes; what a run is, is unknown here.

- ``parts``: what gives state to a snapshot and takes it back (``Part``); rows of sharded classes.
- ``store``: the snapshots of one run (``Checkpoints``): save beside training, wait, find, load.
- ``copying``: the copy on the host that is saved, made while training goes on.
- ``background``: one piece of work at a time in a thread, and its error.
- ``writing``: the files of a snapshot: written aside, hashed, synced, renamed; free space.
- ``retention``: which old snapshots stay.
- ``reading``: which snapshots there are, what is wrong with one, its ``state.json``.
- ``metadata``: torch's ``.metadata``, a pickle, read as data; shards read as tensors alone.

A snapshot is a folder ``step-00001000`` with the files of torch.distributed.checkpoint (DCP),
``state.json`` (everything that is not a tensor) and ``manifest.json`` (sizes and hashes of the
others). A folder with its final name is whole: it is written aside and renamed.
"""
