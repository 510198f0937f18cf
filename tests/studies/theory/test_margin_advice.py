from __future__ import annotations

import math

import pytest

from arcface_plus.losses.theory.uniform_prediction import nearest_class_angle, termination_angle
from arcface_plus.studies.theory.advice_figure import draw_advice
from arcface_plus.studies.theory.margin_advice import KINDS, advise, margin_of, predict

MS1M = predict(85_742, 512, 64.0)


@pytest.mark.parametrize(
    ("kind", "papers_best", "tolerance"),
    [("amp", 0.35, 0.05), ("sphere", 1.85, 0.05), ("arc", 0.6, 0.05), ("cos", 0.5, 0.05)],
)
def test_proposals_for_the_papers_data_are_the_papers_best(kind, papers_best, tolerance) -> None:
    """The paper searched in steps of .1 (.35 for m0); 1.85 is what it says m1 would have to be."""
    advice = advise(kind, MS1M)
    assert advice.value == pytest.approx(papers_best, abs=tolerance)
    assert advice.note == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("classes", "dim", "scale"), [(10_572, 512, 64.0), (1000, 128, 40.0)])
def test_proposal_ends_at_half_the_predicted_angle(kind, classes, dim, scale) -> None:
    prediction = predict(classes, dim, scale)
    half = nearest_class_angle(classes, dim) / 2
    assert prediction.target_angle == pytest.approx(half, rel=1e-12)
    advice = advise(kind, prediction)
    ends = termination_angle(advice.margin, classes, dim)
    assert advice.termination_angle == ends == pytest.approx(half, abs=1e-6)
    assert getattr(advice.margin, advice.parameter) == advice.value
    assert advice.margin == margin_of(kind, advice.value, scale)
    # And a little less margin ends later.
    less = advice.value + 0.02 * (1 if kind == "amp" else -1)
    assert termination_angle(margin_of(kind, less, scale), classes, dim) > half


def test_polar_collapse_is_reported_and_avoided() -> None:
    plain = {"amp": "likely", "sphere": "likely", "arc": "early", "cos": "no"}
    with_it = {"amp": "no", "sphere": "no", "arc": "early", "cos": "no"}
    for kind in KINDS:
        advice = advise(kind, MS1M)
        assert (advice.plain_risk, advice.risk) == (plain[kind], with_it[kind])
        assert (advice.plain_pole_loss < math.log(2)) == (plain[kind] == "likely")
        assert advice.pole_loss > 1


def test_where_no_margin_is_needed_or_none_suffices() -> None:
    few = advise("arc", predict(10, 3, 64.0))
    assert few.value == 0 and "no margin needed" in few.note
    # In 8 dimensions the crowd weighs so much that a small m0 cannot end as low.
    crowded = predict(10**6, 8, 20.0)
    advice = advise("amp", crowded)
    assert "this one comes nearest" in advice.note
    assert advice.termination_angle > crowded.target_angle


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="kind is 'arcs'"):
        advise("arcs", MS1M)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="choose a smaller threshold"):
        advise("arc", predict(100, 512, 1.0))
    with pytest.raises(ValueError, match="classes is 1"):
        predict(1, 512, 64.0)


def test_figure(tmp_path) -> None:
    pytest.importorskip("matplotlib")
    paths = draw_advice(tmp_path / "f", MS1M, [advise(kind, MS1M) for kind in KINDS])
    assert [path.name for path in paths] == ["margins.svg", "margins.png"]
    assert all(path.stat().st_size > 5000 for path in paths)
