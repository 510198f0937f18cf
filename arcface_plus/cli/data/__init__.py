"""``arcface-plus data VERB``.

- ``app``: pack, unpack, inspect, check, split, subset.
- ``align``: align; ``--align`` of other verbs.
- ``clean``: clean.
- ``drop``: drop.
- ``pairs``: pairs, overlap.
"""
