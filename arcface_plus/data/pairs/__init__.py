"""Pair sets: which two images show the same person.

- ``sets``: ``PairSet``, ``load_pairs`` and ``save_pairs_bin``: insightface's ``.bin``, or a list.
- ``lists``: text lists (LFW's ``pairs.txt``, lines of paths) and where their images are.
- ``labels``: what counts as a label.
- ``building``: balanced pairs, nobody in two folds (``data pairs``).
- ``writing``: pairs that were built, as a list and as a ``.bin``.
- ``people``: who is in a data set, and who is in two.
- ``overlap``: people and images that a training set and a pair set share (``data overlap``).
"""
