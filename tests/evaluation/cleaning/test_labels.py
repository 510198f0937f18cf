from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.cleaning.labels import wrong_labels


def nobody_twice(labels: np.ndarray) -> np.ndarray:
    return np.full(int(labels.max()) + 1, -1)


def suspects(faces, labels, groups=None, same=None):
    groups = np.arange(len(labels)) if groups is None else groups
    same = nobody_twice(labels) if same is None else same
    return wrong_labels(faces.unit, labels, groups, same, threshold=0.4)


def test_swapped_labels_are_found_and_name_the_person(crowd) -> None:
    faces = crowd(30, 12)
    labels = faces.labels.copy()
    wrong = np.arange(0, 360, 25)
    labels[wrong] = faces.labels[(wrong + 100) % 360]
    found = suspects(faces, labels)
    assert np.flatnonzero(found.suspect).tolist() == wrong.tolist()
    assert (found.other[wrong] == faces.labels[wrong]).all()
    assert (found.score[wrong] > 0.5).all() and (np.delete(found.score, wrong) < 0).all()


def test_nothing_is_suspect_where_nothing_is_wrong(crowd) -> None:
    faces = crowd(30, 12)
    assert not suspects(faces, faces.labels).suspect.any()


def test_copies_of_a_wrong_photograph_do_not_support_each_other(crowd) -> None:
    """Four copies of one stranger among six photographs would be a majority."""
    faces = crowd(30, 10)
    labels, groups = faces.labels.copy(), np.arange(300)
    copies = np.arange(290, 294)  # of person 29
    faces.embeddings[copies] = faces.embeddings[290]
    labels[copies], groups[copies] = 3, 290
    labels[30:34] = 4  # leave person 3 six photographs of their own; 4 gets four wrong ones
    found = suspects(faces, labels, groups)
    assert found.suspect[copies].all() and found.suspect[30:34].all()
    assert found.suspect.sum() == 8
    # Taken for four photographs, they vouch for each other.
    assert suspects(faces, labels).own[290] > found.own[290] + 0.3


def test_a_copy_elsewhere_is_no_support_for_being_elsewhere(crowd) -> None:
    """A photograph of person 0 has five copies in folder 1; the original stays above suspicion."""
    faces = crowd(20, 8)
    faces.embeddings[8:13] = faces.embeddings[0]
    groups = np.arange(160)
    groups[8:13] = 0
    found = suspects(faces, faces.labels, groups)
    assert not found.suspect[0]
    assert found.suspect[8:13].all() and (found.other[8:13] == 0).all()


def test_the_other_label_of_a_person_is_no_other_person(crowd) -> None:
    faces = crowd(20, 10)
    labels = faces.labels.copy()
    labels[:5] = 20
    same = nobody_twice(labels)
    same[0], same[20] = 20, 0
    found = suspects(faces, labels, same=same)
    assert not found.suspect.any()
    assert not np.isin(found.other[:5], [0, 20]).any()


def test_a_photograph_alone_with_its_label_is_no_suspect(crowd) -> None:
    faces = crowd(20, 6)
    labels = faces.labels.copy()
    labels[0] = 20  # nobody else says how person 20 looks
    found = suspects(faces, labels)
    assert not found.suspect.any() and found.score[0] == -np.inf


@pytest.mark.parametrize("seed", range(3))
def test_swaps_in_real_embeddings_are_found(shared_data, seed) -> None:
    """LFW under a real net: 5 % of the labels of those with six photographs exchanged."""
    archive = np.load(shared_data / "embeddings" / "lfw_mobilefacenet_y1.npz")
    names = [name.partition("/")[0] for name in archive["files"].tolist()]
    _, everyone, sizes = np.unique(names, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(sizes[everyone] >= 6)
    unit = archive["emb"][rows] / np.linalg.norm(archive["emb"][rows], axis=1, keepdims=True)
    _, labels = np.unique(everyone[rows], return_inverse=True)
    rng = np.random.default_rng(seed)
    first, second = rng.choice(len(rows), (2, len(rows) // 40), replace=False)
    planted = labels.copy()
    planted[first], planted[second] = labels[second], labels[first]
    wrong = planted != labels
    found = wrong_labels(
        unit.astype(np.float32),
        planted,
        np.arange(len(rows)),
        nobody_twice(planted),
        threshold=0.4,
    ).suspect
    assert wrong.sum() > 40
    assert (found & wrong).sum() / wrong.sum() >= 0.95
    assert (found & wrong).sum() / found.sum() >= 0.95
