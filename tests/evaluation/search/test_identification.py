from __future__ import annotations

import json

import numpy as np
import pytest

from arcface_plus.data.ijb_meta import Subjects
from arcface_plus.evaluation.search import top_matches as search
from arcface_plus.evaluation.search.identification import identify, identify_templates
from arcface_plus.evaluation.search.products import unit_rows
from arcface_plus.evaluation.search.templates import Templates


def make(seed=0, *, dim=16, people=30, probes=200, gallery=80, strangers=150, duplicates=False):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(people, dim))
    probe_labels = rng.integers(0, people, probes)
    gallery_labels = rng.integers(0, people - 8, gallery)

    def faces(labels):
        return (centre[labels] + 0.9 * rng.normal(size=(len(labels), dim))).astype(np.float32)

    p, g = faces(probe_labels), faces(gallery_labels)
    d = rng.normal(size=(strangers, dim)).astype(np.float32)
    if duplicates:  # one photograph under several names, and among the strangers
        g[::5] = g[3]
        d[::4] = g[7]
        p[::9] = g[rng.integers(0, gallery, len(p[::9]))] * np.float32(2.0)
    return p, probe_labels, g, gallery_labels, d


def by_loops(p, probe_labels, g, gallery_labels, d, ranks, fpirs):
    p, g, d = (unit_rows(x, str).astype(np.float64) for x in (p, g, d))

    def product(x, y):
        return float((x * y)[None].sum(axis=1)[0])

    ranking, mates, others = [], [], []
    for x, label in zip(p, probe_labels, strict=True):
        mate = [product(x, y) for y, of in zip(g, gallery_labels, strict=True) if of == label]
        rest = [product(x, y) for y, of in zip(g, gallery_labels, strict=True) if of != label]
        rest += [product(x, y) for y in d]
        if mate:
            mates.append(max(mate))
            ranking.append(1 + sum(score >= max(mate) for score in rest))
        else:
            others.append(max(rest))
    rates = {k: sum(r <= k for r in ranking) / len(ranking) for k in ranks}
    tpir = {}
    for target in fpirs:
        cuts = [t for t in [*others, -np.inf] if sum(o > t for o in others) / len(others) <= target]
        threshold = min(cuts)
        hits = [r == 1 and m > threshold for r, m in zip(ranking, mates, strict=True)]
        tpir[target] = sum(hits) / len(ranking)
    return rates, tpir


@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("tile", [(7, 11), (1024, 4096)])
def test_equals_loops(monkeypatch, duplicates, tile):
    monkeypatch.setattr(search, "PROBES_AT_ONCE", tile[0])
    monkeypatch.setattr(search, "GALLERY_AT_ONCE", tile[1])
    ranks, fpirs = (1, 2, 5, 10, 500), (0.05, 0.1, 0.5, 1.0)
    for seed in range(3):
        p, pl, g, gl, d = make(seed, duplicates=duplicates)
        rates, tpir = by_loops(p, pl, g, gl, d, ranks, fpirs)
        got = identify(p, pl, g, gl, distractors=d, ranks=ranks, fpirs=fpirs)
        assert got.rank_rates == rates and got.tpir == tpir
        assert got.mated + got.non_mated == 200
        assert (got.gallery, got.distractors) == (80, 150)
        alone = identify(p, pl, g, gl, ranks=ranks, fpirs=fpirs)
        assert alone.rank_rates == by_loops(p, pl, g, gl, d[:0], ranks, fpirs)[0]


def test_tie_of_an_other_person_is_before_the_mate():
    probe = np.array([[1.0, 2.0, 3.0]])
    gallery = np.array([[1.0, 1, 1], [2.0, 2, 2], [-1.0, 0, 0]])
    got = identify(probe, [5], gallery, [5, 6, 7], ranks=(1, 2))
    assert got.rank_rates == {1: 0.0, 2: 1.0}
    assert identify(probe, [5], gallery, [5, 5, 7], ranks=(1,)).rank_rates == {1: 1.0}


def test_collapsed_model_is_settled_exactly():
    rng = np.random.default_rng(0)
    p, g = (1 + 1e-6 * rng.normal(size=(n, 8)) for n in (60, 40))
    pl, gl = np.arange(60) % 25, np.arange(40) % 20
    got = identify(p, pl, g, gl, ranks=(1, 5), fpirs=(0.5,))
    assert (got.rank_rates, got.tpir) == by_loops(p, pl, g, gl, g[:0], (1, 5), (0.5,))


def test_open_set_needs_searches_without_mate():
    p, pl, g, gl, _ = make()
    got = identify(p, pl, g, gl, fpirs=(1e-3, 0.02, 0.5))
    assert got.refused_fpirs == {1e-3: 1000}
    assert got.coarse_fpirs == (0.02,) and set(got.tpir) == {0.02, 0.5}
    inside = np.isin(pl, gl)
    closed = identify(p[inside], pl[inside], g, gl)
    assert closed.non_mated == 0 and closed.refused_fpirs == {0.01: 100, 0.1: 10}
    assert closed.rank_rates == identify(p, pl, g, gl).rank_rates
    json.dumps(got.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"p": lambda p: p[:, :3]}, "different dimensions .* probes 3, gallery 16"),
        ({"d": lambda d: d[:, :3]}, "distractors 3"),
        ({"d": lambda d: d[0]}, "distractors must be"),
        ({"pl": lambda x: x[1:]}, "probes must be"),
        ({"gl": lambda x: x[1:]}, "gallery must be"),
        ({"pl": lambda x: x + 1000}, "None of the 200 probes shows a person"),
        ({"p": lambda p: p * 0}, "probe 0 is zero"),
        ({"g": lambda g: np.where(np.arange(80)[:, None] == 9, np.nan, g)}, "gallery row 9 has"),
        ({"d": lambda d: np.where(np.arange(150)[:, None] == 9, np.inf, d)}, "distractor 9 has"),
    ],
)
def test_sets_that_do_not_fit(change, match):
    sets = dict(zip(("p", "pl", "g", "gl", "d"), make(), strict=True))
    for name, how in change.items():
        sets[name] = how(sets[name])
    with pytest.raises(ValueError, match=match):
        identify(sets["p"], sets["pl"], sets["g"], sets["gl"], distractors=sets["d"])


def test_targets_that_do_not_fit():
    p, pl, g, gl, _ = make()
    with pytest.raises(ValueError, match="rank is a whole number"):
        identify(p, pl, g, gl, ranks=(0,))
    with pytest.raises(ValueError, match="FPIR target"):
        identify(p, pl, g, gl, fpirs=(2.0,))


def test_templates_by_subject():
    p, pl, g, gl, _ = make()
    rows = unit_rows(np.concatenate([p, g]), str)
    ids = np.arange(0, 3 * len(rows), 3)
    templates = Templates(ids, rows)
    got = identify_templates(
        templates, Subjects(ids[200:], gl, "gallery"), Subjects(ids[:200], pl, "probes")
    )
    assert got == identify(rows[:200], pl, rows[200:], gl)
    with pytest.raises(ValueError, match="templates have no image"):
        identify_templates(templates, Subjects(ids[:1] + 1, gl, "g"), Subjects(ids[:200], pl, "p"))
