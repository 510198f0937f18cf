from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from arcface_plus.data.ijb_meta import TemplatePairs
from arcface_plus.evaluation.search.products import unit_rows
from arcface_plus.evaluation.search.templates import TemplatePool, Templates, verify_templates


def make(images=400, people=12, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    templates = rng.integers(0, 40, images) * 7 + 3
    media = rng.integers(0, 60, images)
    person = rng.normal(size=(people, dim))
    embeddings = person[templates % people] + 1.5 * rng.normal(size=(images, dim))
    return embeddings.astype(np.float32), templates, media, rng.uniform(0.1, 1, images)


def pool_templates(embeddings, templates, media, **weights):
    pool = TemplatePool(templates, media, **weights)
    pool.add(embeddings)
    return pool.finish()


def pool_by_loops(embeddings, templates, media, scores, use_norm_score, use_detector_score):
    """Media and templates one after another, in float64."""
    ids, vectors = np.unique(templates), []
    for template in ids:
        of_media = []
        for medium in np.unique(media[templates == template]):
            rows = np.flatnonzero((templates == template) & (media == medium))
            faces = [embeddings[i].astype(np.float64) for i in rows]
            if not use_norm_score:
                faces = [face / np.linalg.norm(face) for face in faces]
            if use_detector_score:
                faces = [face * scores[i] for face, i in zip(faces, rows, strict=True)]
            of_media.append(np.mean(faces, axis=0))
        total = np.sum(of_media, axis=0)
        vectors.append(total / np.linalg.norm(total))
    return ids, np.array(vectors)


@pytest.mark.parametrize(("norm", "detector"), [*product([True, False], repeat=2)])
def test_pooling_equals_loops(norm, detector):
    embeddings, templates, media, scores = make()
    got = pool_templates(
        embeddings,
        templates,
        media,
        detector_scores=scores if detector else None,
        use_norm_score=norm,
    )
    ids, vectors = pool_by_loops(embeddings, templates, media, scores, norm, detector)
    np.testing.assert_array_equal(got.ids, ids)
    assert got.vectors.dtype == np.float32
    np.testing.assert_allclose(got.vectors, vectors, atol=1e-7)


def test_flags_matter():
    embeddings, templates, media, scores = make()
    weights = ({}, {"use_norm_score": False}, {"detector_scores": scores})
    pooled = [pool_templates(embeddings, templates, media, **each).vectors for each in weights]
    one_medium = pool_templates(embeddings, templates, np.zeros_like(media)).vectors
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(pooled[a] - pooled[b]).max() > 1e-3
    assert np.abs(pooled[0] - one_medium).max() > 1e-3


def test_images_come_in_parts_of_any_size():
    embeddings, templates, media, scores = make(images=1500)
    whole = pool_templates(embeddings, templates, media, detector_scores=scores)
    for step in (1, 13, 700):
        pool = TemplatePool(templates, media, detector_scores=scores)
        for start in range(0, 1500, step):
            pool.add(embeddings[start : start + step])
        np.testing.assert_allclose(pool.finish().vectors, whole.vectors, atol=1e-7)


def test_equal_single_images_are_equal_templates():
    """They must tie, bit for bit, wherever their images stand."""
    embeddings, templates, media, scores = make(images=2000)
    templates[[5, 1200, 1999]] = [900, 901, 902]
    for array in (embeddings, media, scores):
        array[[1200, 1999]] = array[5]
    got = pool_templates(embeddings, templates, media, detector_scores=scores)
    rows = got.vectors[got.rows_of(np.array([900, 901, 902]))]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda e, t, m, s: e.__setitem__(7, np.nan), "embedding of image 7 .* has NaN"),
        (lambda e, t, m, s: e.__setitem__((399, 0), np.inf), "image 399 .* has NaN, inf"),
        (lambda e, t, m, s: e.__setitem__(7, 0), "image 7 .* is zero"),
        (lambda e, t, m, s: s.__setitem__(7, -1), "score of image 7 is -1"),
        (lambda e, t, m, s: s.__setitem__(7, np.nan), "score of image 7 is nan"),
        (lambda e, t, m, s: s.__setitem__(t == t[0], 0), "are all its detector scores 0"),
    ],
)
def test_embeddings_and_scores_that_do_not_fit(change, match):
    embeddings, templates, media, scores = make()
    change(embeddings, templates, media, scores)
    with pytest.raises(ValueError, match=match):
        pool_templates(embeddings, templates, media, detector_scores=scores)


def test_counts_that_do_not_fit():
    embeddings, templates, media, scores = make()
    with pytest.raises(ValueError, match="400 templates and 399 media"):
        TemplatePool(templates, media[1:])
    with pytest.raises(ValueError, match="0 templates and 0 media"):
        TemplatePool(templates[:0], media[:0])
    with pytest.raises(ValueError, match=r"as many detector scores, not \(3,\)"):
        TemplatePool(templates, media, detector_scores=scores[:3])
    pool = TemplatePool(templates, media)
    with pytest.raises(ValueError, match="embeddings of 0 only"):
        pool.finish()
    pool.add(embeddings[:399])
    with pytest.raises(ValueError, match="embeddings of 399 only"):
        pool.finish()
    with pytest.raises(ValueError, match="at least 401 images, but 400"):
        pool.add(embeddings[:2])
    with pytest.raises(ValueError, match="16 dimensions are followed by some of 8"):
        pool.add(embeddings[:1, :8])
    with pytest.raises(ValueError, match="real numbers"):
        pool.add(embeddings[0])


def all_pairs(templates, people=12):
    a, b = np.triu_indices(len(templates.ids), 1)
    same = templates.ids[a] % people == templates.ids[b] % people
    return TemplatePairs(a.astype(np.int32), b.astype(np.int32), same, "test")


def test_rates_are_those_of_scikit_learn_on_float64_scores():
    for seed in range(3):
        templates = pool_templates(*make(seed=seed)[:3])
        pairs = all_pairs(templates)
        result = verify_templates(templates, pairs, fars=(1e-3, 0.01, 0.1, 0.5))
        wide = templates.vectors.astype(np.float64)
        scores = (wide[pairs.rows_a] * wide[pairs.rows_b]).sum(axis=1)
        far, tar, threshold = roc_curve(pairs.is_same, scores, drop_intermediate=False)
        assert set(result.refused_fars) == {1e-3}
        for target, mine in result.tar_at_far.items():
            last = np.flatnonzero(far <= target)[-1]
            assert (mine, result.far_reached[target]) == (tar[last], far[last])
            assert result.tar_thresholds[target] < threshold[last]
        far, tar, _ = roc_curve(pairs.is_same, scores)
        far, tar = far[::-1], tar[::-1]
        for target, mine in result.nearest_tar.items():
            place = np.argmin(np.abs(far - target))
            assert (mine, result.nearest_far[target]) == (tar[place], far[place])
        assert result.genuine_pairs + result.impostor_pairs == len(pairs)
        assert result.templates == len(templates.ids)


def test_ties_of_equal_templates_are_refused_together():
    """Ten impostor pairs tie at the top: a FAR that allows five of them accepts none."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 512))
    vectors[1:20] = vectors[0]
    templates = Templates(np.arange(300), unit_rows(vectors, str))
    a = np.concatenate([np.arange(10), np.arange(20, 100), [200]]).astype(np.int32)
    b = np.concatenate([np.arange(10, 20), np.arange(100, 180), [200]]).astype(np.int32)
    same = np.arange(91) == 90  # a template and itself: the norm of 200 is not that of 0
    for order in (np.arange(91), rng.permutation(91)):
        pairs = TemplatePairs(a[order], b[order], same[order], "ties")
        result = verify_templates(templates, pairs, fars=(5 / 90, 10 / 90))
        assert result.far_reached == {5 / 90: 0.0, 10 / 90: 10 / 90}
        assert result.tar_at_far[10 / 90] == 1.0


def test_pairs_of_one_kind_and_wrong_rates():
    templates = pool_templates(*make()[:3])
    pairs = all_pairs(templates)
    for kind, same in (("genuine", True), ("impostor", False)):
        alone = TemplatePairs(
            pairs.rows_a, pairs.rows_b, np.full_like(pairs.is_same, same), "the list"
        )
        with pytest.raises(ValueError, match=f"the list are {kind} pairs"):
            verify_templates(templates, alone)
    with pytest.raises(ValueError, match="FAR target"):
        verify_templates(templates, pairs, fars=(0.0,))


def test_json_and_rows():
    templates = pool_templates(*make()[:3])
    result = verify_templates(templates, all_pairs(templates), fars=(1e-6, 0.1, 1.0))
    held = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert held["refused_fars"] == {"1e-06": 1_000_000}
    assert held["tar_thresholds"]["1"] is None and held["tar_at_far"]["1"] == 1.0
    with pytest.raises(ValueError, match="1 of 2 templates have no image, such as 4"):
        templates.rows_of(np.array([templates.ids[0], 4]))


def test_collapsed_model():
    """Every score is nearly 1: all of them are settled exactly."""
    embeddings, templates, media, _ = make()
    collapsed = pool_templates(np.ones_like(embeddings) + 1e-6 * embeddings, templates, media)
    pairs = all_pairs(collapsed)
    result = verify_templates(collapsed, pairs, fars=(0.1,))
    wide = collapsed.vectors.astype(np.float64)
    scores = (wide[pairs.rows_a] * wide[pairs.rows_b]).sum(axis=1)
    far, tar, _ = roc_curve(pairs.is_same, scores, drop_intermediate=False)
    assert result.tar_at_far[0.1] == tar[far <= 0.1][-1]
