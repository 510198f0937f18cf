"""``arcface-plus data VERB``.

- ``app``: pack, unpack, inspect, check, split, subset.
- ``pairs``: pairs, overlap.
"""
