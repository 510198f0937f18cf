"""Every keyed stream of random numbers that training draws from, and its version.

A stream is a function of its key alone: neither the number of ranks, nor workers, nor a restart
changes a number of it. NumPy's Philox gives the same bits on every CPU. Checkpoints record
:data:`STREAMS`; whoever changes what a stream draws raises its version, and a run that began with
another version is not resumed.

Dropout masks are not keyed: each rank draws them from torch's own generator, which is seeded per
rank and kept in checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

# name: version. Every key begins with the seed; the rest of it is in parentheses.
STREAMS = {
    "order": 1,  # the permutation of an epoch's images (epoch)
    "window_order": 1,  # where an epoch's windows begin (epoch); their permutations (epoch, window)
    "augmentation": 2,  # how an image is changed (epoch, sample)
    "class_weights": 1,  # first class weights (block of rows)
    "class_sample": 1,  # classes of a step of Partial FC (step, class): losses/head/sampling.py
    "margins": 1,  # ElasticFace's margins of a step (step)
    "mma_rows": 1,  # rows that MMA is estimated from (step)
    "layer_rows": 1,  # rows that a penalty of a layer draws (layer, set of rows, step)
    "output_rows": 1,  # rows that a penalty of the class weights draws (step)
    "branch": 1,  # classes and images of a second pass (step)
    "branch_augmentation": 2,  # how an image of a second pass is changed (step, sample, slot)
    "projection": 1,  # first weights of the projection to a teacher's embeddings
}

# The top byte of a key's second word keeps these five apart from each other and from the class
# weights, whose second word is a block number.
_ORDER, _AUGMENTATION, _BRANCH, _BRANCH_AUGMENTATION, _WINDOWS = (k << 56 for k in (1, 2, 3, 4, 5))
_MARGINS = 0xE1A5 << 32  # in the seed's word, of which seeds use 31 bits
_PROJECTION = 0x9A07 << 32  # likewise
_OUTPUT_ROWS = 0x0C1A55


def _philox(seed: int, word: int, *counter: int) -> np.random.Generator:
    key = np.array([seed, word], dtype=np.uint64)
    # The counter's low words count what is drawn.
    start = np.array([0, 0, *counter, *[0] * (2 - len(counter))], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=start))


def epoch_generator(seed: int, epoch: int) -> np.random.Generator:
    """Return the generator of an epoch's order."""
    return _philox(seed, _ORDER | epoch)


def window_generator(seed: int, epoch: int, window: int | None = None) -> np.random.Generator:
    """Return the generator of the order in a window, or with None of where an epoch begins."""
    return _philox(seed, _WINDOWS | epoch, 0 if window is None else window + 1)


def augmentation_draws(seed: int, epoch: int, samples: np.ndarray, count: int) -> np.ndarray:
    """Return numbers (n, ``count``) in [0, 1): how ``samples`` (n,) are changed in ``epoch``."""
    return _uniform(_mixed(_key(seed, _AUGMENTATION | epoch), samples), count)


def class_weight_generator(seed: int, block: int) -> np.random.Generator:
    """Return the generator of a block of first class weights."""
    return _philox(seed, block)


def margin_generator(seed: int, step: int) -> np.random.Generator:
    """Return the generator of the margins of a step's samples."""
    return _philox(seed ^ _MARGINS, step)


def projection_generator(seed: int) -> np.random.Generator:
    """Return the generator of the first weights of the projection to a teacher's embeddings."""
    return _philox(seed ^ _PROJECTION, 0)


def branch_generator(seed: int, step: int) -> np.random.Generator:
    """Return the generator of what a second pass is made of."""
    return _philox(seed, _BRANCH | step)


def branch_augmentation_draws(
    seed: int, step: int, samples: np.ndarray, slots: np.ndarray, count: int
) -> np.ndarray:
    """Return numbers (n, ``count``) in [0, 1): how ``samples`` (n,) are changed as numbers
    ``slots`` (n,) of a second pass.

    With the slot in the key, an image that is there twice is not there twice in the same form.
    """
    key = _key(seed, _BRANCH_AUGMENTATION | step)
    return _uniform(_mixed(_mixed(key, samples), slots), count)


def _key(seed: int, word: int) -> np.ndarray:
    return _mixed(_mixed(np.zeros(1, dtype=np.uint64), seed), word)


def _mixed(key: np.ndarray, number: np.ndarray | int) -> np.ndarray:
    """Return SplitMix64 (Steele et al., 2014) of ``key`` and ``number``; one to one in each.

    A counter-based hash, so that a batch takes a few operations where a generator a sample took
    longer than to read the sample.
    """
    # An array, whose products wrap round in silence.
    counted = np.atleast_1d(number).astype(np.uint64) + np.uint64(1)
    x = key + counted * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _uniform(keys: np.ndarray, count: int) -> np.ndarray:
    drawn = _mixed(keys[:, None], np.arange(count))
    return np.asarray((drawn >> np.uint64(11)) * 2.0**-53)


def mma_row_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of the rows that MMA of the class weights is estimated from."""
    return _torch_generator(seed, step)


def layer_row_generator(seed: int, step: int, layer: int) -> torch.Generator:
    """Return the generator of the rows that a penalty of layer number ``layer`` draws."""
    return _torch_generator(seed, step, layer)


def output_row_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of the rows that a penalty of the class weights draws."""
    return _torch_generator(seed, step, _OUTPUT_ROWS)


def _torch_generator(*key: int) -> torch.Generator:
    # torch keeps 32 bits of a seed: mix all that names the draw into them rather than shift.
    mixed = np.random.SeedSequence(key).generate_state(1)
    return torch.Generator().manual_seed(int(mixed[0]))


def changed_streams(recorded: Mapping[str, int]) -> list[str]:
    """Return a phrase for each stream whose version differs from the one ``recorded`` by a run.

    Runs from before versions were recorded drew version 1 of every stream.
    """
    return [
        f"'{name}' was version {recorded.get(name, 1)} and is {version}"
        for name, version in STREAMS.items()
        if recorded.get(name, 1) != version
    ]
