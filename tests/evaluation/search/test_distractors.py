from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from arcface_plus.evaluation.search import distractors
from arcface_plus.evaluation.search import top_matches as search
from arcface_plus.evaluation.search.distractors import identify_among_distractors
from arcface_plus.evaluation.search.products import unit_rows


def make(seed=0, *, probes=60, strangers=300, dim=12, duplicates=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 15, probes)
    labels[:2] = [100, 101]  # alone
    centre = rng.normal(size=(200, dim))
    p = (centre[labels] + 0.8 * rng.normal(size=(probes, dim))).astype(np.float32)
    d = rng.normal(size=(strangers, dim)).astype(np.float32)
    if duplicates:
        d[::3] = p[10]
        d[1::3] = p[11] * 3
    return p, labels, d


def by_loops(p, labels, d):
    p, d = (unit_rows(x, str).astype(np.float64) for x in (p, d))

    def product(x, y):
        return float((x * y)[None].sum(axis=1)[0])

    used = [i for i in range(len(p)) if (labels == labels[i]).sum() > 1]
    impostor = {i: [product(p[i], y) for y in d] for i in used}
    hits, genuine = [], []
    for i in used:
        for j in used:
            if i != j and labels[i] == labels[j]:
                score = product(p[i], p[j])
                hits.append(all(score > other for other in impostor[i]))
                if i < j:
                    genuine.append(score)
    return np.mean(hits), np.array(genuine), np.concatenate(list(impostor.values()))


@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("tile", [(7, 11), (1024, 4096)])
def test_equals_loops(monkeypatch, tile, duplicates):
    monkeypatch.setattr(search, "PROBES_AT_ONCE", tile[0])
    monkeypatch.setattr(search, "GALLERY_AT_ONCE", tile[1])
    monkeypatch.setattr(distractors, "_SPARE", tile[0])
    fars = (1e-4, 1e-3, 0.01, 0.3, 1.0)
    for seed in range(3):
        p, labels, d = make(seed, duplicates=duplicates)
        rank1, genuine, impostor = by_loops(p, labels, d)
        got = identify_among_distractors(p, labels, d, fars=fars)
        assert got.rank1 == rank1
        far, tar, _ = roc_curve(
            np.arange(len(genuine) + len(impostor)) < len(genuine),
            np.concatenate([genuine, impostor]),
            drop_intermediate=False,
        )
        assert set(got.refused_fars) == {f for f in fars if f * len(impostor) < 1}
        for target, mine in got.tar_at_far.items():
            last = np.flatnonzero(far <= target)[-1]
            assert (mine, got.far_reached[target]) == (tar[last], far[last])
        alone = sum(np.count_nonzero(labels == label) == 1 for label in labels)
        assert alone >= 2 and (got.left_out, got.probes) == (alone, 60 - alone)
        assert (got.searches, got.genuine_pairs) == (2 * len(genuine), len(genuine))
        assert got.impostor_pairs == len(impostor)
        json.dumps(got.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p, n, d: (p, n[1:], d), "probes must be"),
        (lambda p, n, d: (p, n, d[:0]), "at least one"),
        (lambda p, n, d: (p, n, d[:, :3]), "different dimensions .* probes 12, distractors 3"),
        (lambda p, n, d: (p, np.arange(len(p)), d), "only image of its person"),
        (lambda p, n, d: (p * 0, n, d), "probe 2 is zero"),
        (lambda p, n, d: (p, n, d * np.nan), "distractor 0 has NaN"),
    ],
)
def test_sets_that_do_not_fit(change, match):
    with pytest.raises(ValueError, match=match):
        identify_among_distractors(*change(*make()))
