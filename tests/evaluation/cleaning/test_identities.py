from __future__ import annotations

import numpy as np
import pytest

from arcface_plus.evaluation.cleaning.identities import one_person, two_people
from arcface_plus.evaluation.cleaning.people import People


def people_of(faces, labels, groups=None) -> People:
    groups = np.arange(len(labels)) if groups is None else groups
    return People(faces.unit, labels, groups)


def test_people_with_two_labels_are_paired(crowd) -> None:
    faces = crowd(40, 10)
    labels = faces.labels.copy()
    labels[30:35], labels[170:178] = 40, 41
    same, likeness = one_person(people_of(faces, labels), threshold=0.75)
    expected = np.full(42, -1)
    expected[[3, 40, 17, 41]] = [40, 3, 41, 17]
    assert same.tolist() == expected.tolist()
    assert (likeness[[3, 40, 17, 41]] > 0.8).all() and (likeness[[0, 1, 2]] < 0.7).all()


def test_nobody_is_paired_where_all_are_apart(crowd) -> None:
    faces = crowd(40, 10)
    same, _ = one_person(people_of(faces, faces.labels), threshold=0.75)
    assert (same == -1).all()


def test_two_labels_must_stand_out_of_a_crowd_that_is_near(crowd) -> None:
    """All people come in look-alike pairs: no pair is more alike than the others."""
    faces = crowd(40, 10)
    labels = faces.labels * 2 + np.tile([0, 1], 200)  # everyone under two labels
    same, likeness = one_person(people_of(faces, labels), threshold=0.75)
    assert (likeness > 0.75).all() and (same == -1).all()


@pytest.mark.parametrize("size", [2, 5])
def test_folders_of_two_people_are_cut_at_the_right_place(crowd, size) -> None:
    faces = crowd(30, 10)
    labels = faces.labels.copy()
    strangers = np.arange(200, 200 + size)
    labels[strangers] = 4
    (found,) = two_people(people_of(faces, labels), np.ones(300, dtype=bool), threshold=0.6)
    assert found.person == 4 and found.score > 0.7
    assert sorted(found.rows.tolist()) == strangers.tolist()


def test_strays_suspects_and_copies_make_no_second_person(crowd) -> None:
    faces = crowd(30, 10)
    everything, groups = np.ones(300, dtype=bool), np.arange(300)
    labels = faces.labels.copy()
    labels[[200, 210]] = 4  # two strangers who are not one person
    assert not two_people(people_of(faces, labels), everything, threshold=0.6)
    labels = faces.labels.copy()
    labels[200:203] = 4
    usable = everything.copy()
    usable[200:203] = False  # wrong labels already
    assert not two_people(people_of(faces, labels), usable, threshold=0.6)
    faces.embeddings[201:203] = faces.embeddings[200]
    groups[201:203] = 200  # one photograph three times
    assert not two_people(people_of(faces, labels, groups), everything, threshold=0.6)


def test_people_of_few_photographs_are_left_alone(crowd) -> None:
    faces = crowd(30, 3)
    assert not two_people(people_of(faces, faces.labels), np.ones(90, dtype=bool), threshold=-9)
