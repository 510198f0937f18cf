"""The four kinds together: each fault is found as what it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from arcface_plus.evaluation.cleaning.findings import THRESHOLDS
from arcface_plus.evaluation.cleaning.search import find


@pytest.fixture
def planted(crowd):
    """A crowd of 30 with one fault of each kind, and rows of each."""
    faces = crowd(30, 12)
    labels = faces.labels.copy()
    labels[0] = 5  # person 0's first photograph in folder 5
    labels[120:125] = 30  # five photographs of person 10 under label 30
    labels[240:246] = 21  # six photographs of person 20 in folder 21 …
    labels[246:252] = 30 + 1  # … whose others are left out below
    keep = np.delete(np.arange(360), np.arange(246, 252))
    embeddings = np.concatenate([faces.embeddings[keep], faces.embeddings[[40, 70]] * 1.5])
    thumbnails = np.concatenate([faces.looks.thumbnails[keep], faces.looks.thumbnails[[40, 70]]])
    looks = replace(
        faces.looks,
        thumbnails=thumbnails,
        pixels=np.append(faces.looks.pixels[keep], [50**2, 200**2]),
        size=np.append(faces.looks.size[keep], [900, 9000]),
    )
    # A small copy of row 40 with its own person, a large copy of row 70 with a stranger.
    labels = np.append(labels[keep], [faces.labels[40], 8])
    return embeddings, labels, looks


def test_each_fault_is_found_as_what_it_is(planted) -> None:
    embeddings, labels, looks = planted
    found = find(embeddings, labels, looks)
    assert Counter(one.kind for one in found.findings) == {
        "duplicates": 2,
        "labels": 2,
        "merge": 1,
        "split": 1,
    }
    by_kind = {kind: [f for f in found.findings if f.kind == kind] for kind in THRESHOLDS}
    copies = {one.photographs[0]: one for one in by_kind["duplicates"]}
    assert copies[354].kept == 40 and copies[354].other is None  # the smaller one goes
    assert copies[355].kept == 70 and copies[355].other == 5  # the one with the wrong person goes
    wrong = {one.photographs[0]: (one.person, one.other) for one in by_kind["labels"]}
    assert wrong == {0: (5, 0), 355: (8, 5)}
    (merge,) = by_kind["merge"]
    assert (merge.person, merge.other) == (30, 10)  # the smaller folder into the larger
    assert merge.photographs == tuple(range(120, 125))
    (split,) = by_kind["split"]
    assert split.person == 21 and set(split.photographs) == set(range(240, 246))
    assert found.stranger == pytest.approx(0, abs=0.05)
    assert 0.4 < found.typical < 0.8


def test_findings_are_strongest_first_and_of_the_kinds_asked_for(crowd) -> None:
    faces = crowd(30, 12)
    labels = faces.labels.copy()
    labels[[0, 13, 26]] = [5, 6, 7]
    found = find(faces.embeddings, labels, faces.looks, kinds=("labels",))
    scores = [one.score for one in found.findings]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert not find(faces.embeddings, labels, faces.looks, kinds=("merge", "split")).findings
    limits = THRESHOLDS | {"labels": scores[0] + 0.1}
    assert not find(faces.embeddings, labels, faces.looks, thresholds=limits).findings


def test_labels_without_photographs_disturb_nothing(crowd) -> None:
    faces = crowd(30, 12)
    sparse = faces.labels * 3 + 4
    found = find(faces.embeddings, sparse, faces.looks)
    assert not found.findings
    sparse[0] = 3 * 5 + 4
    (one,) = find(faces.embeddings, sparse, faces.looks).findings
    assert (one.photographs, one.person, one.other) == ((0,), 19, 4)


def test_nothing_is_made_of_embeddings_that_are_zero(crowd) -> None:
    faces = crowd(30, 12)
    faces.embeddings[7] = 0
    assert not find(faces.embeddings, faces.labels, faces.looks).findings
