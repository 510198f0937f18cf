"""``arcface-plus data VERB``.

- ``app``: pack, unpack, inspect, split, subset.
- ``align``: align; ``--align`` of other verbs.
- ``check``: check, overlap.
- ``clean``: clean.
- ``drop``: drop.
- ``pairs``: pairs.
"""
