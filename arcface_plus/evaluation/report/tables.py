"""The report's tables, as words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arcface_plus.evaluation.pairs.dependence import PAIRS, PHOTOGRAPHS
from arcface_plus.evaluation.pairs.intervals import Intervals
from arcface_plus.evaluation.pairs.verification import VerificationResult
from arcface_plus.evaluation.report.curves import basis_words
from arcface_plus.evaluation.report.section import Baseline, MainNumbers, ReportSection
from arcface_plus.evaluation.report.words import percent, rate_words, span, whole

NOTHING = "–"
_COARSE = "†"
_REFUSED = "refused"
_FEW_PEOPLE = 20


Row = tuple[str, Sequence[str]]  # what is measured, and a cell a column, rates in per cent
KeyFigure = tuple[str, str, str, str]  # label, number, unit, and what qualifies it


def lead(sections: Sequence[ReportSection]) -> str:
    """Return the finding in a sentence."""
    if len(sections) > 1:
        found = (f"{percent(each.result.accuracy)} % on {each.name}" for each in sections)
        return f"The model tells one person from two with an accuracy of {', '.join(found)}."
    (only,) = sections
    return (
        f"The model decides {percent(only.result.accuracy)} % of {whole(len(only.distances))} "
        "pairs of photographs rightly: one person, or two? The 95 % interval is "
        f"{span(only.intervals.accuracy)} %."
    )


def key_figures(result: VerificationResult, intervals: Intervals) -> list[KeyFigure]:
    """Return accuracy, EER, AUC, and TAR at the smallest FAR that is not coarse."""
    figures: list[KeyFigure] = [
        (
            "Accuracy",
            percent(result.accuracy),
            "%",
            f"95 % interval {span(intervals.accuracy)}",
        ),
        ("Equal error rate", percent(result.eer), "%", "both errors alike"),
        ("Area under ROC", f"{result.auc:.5f}", "", "1 is perfect, 0.5 is chance"),
    ]
    if sure := [far for far in result.tar_at_far if far not in result.coarse_fars]:
        far = min(sure)
        tar = percent(result.tar_at_far[far])
        figures.append((f"TAR at FAR {rate_words(far)}", tar, "%", "genuine accepted"))
    return figures


def measures(
    result: VerificationResult,
    baselines: Mapping[str, Baseline],
    intervals: Intervals,
) -> list[Row]:
    """Return every measure of the baselines, in their order, and of the model, last."""
    every: list[Baseline] = [*baselines.values(), result]
    missing = [NOTHING] * len(baselines)
    rows: list[Row] = [
        ("Accuracy ± std over folds", [_with_spread(each) for each in every]),
        ("95 % interval", [*missing, span(intervals.accuracy)]),
        ("… as a bootstrap over pairs claims", [*missing, span(intervals.pairs_claim)]),
        ("… as t over folds claims", [_interval(each) for each in every]),
        ("Area under ROC (AUC)", [f"{each.auc:.5f}" for each in every]),
        ("Equal error rate (EER)", [percent(each.eer) for each in every]),
    ]
    for far in sorted({*result.tar_at_far, *result.refused_fars}, reverse=True):
        cells = [_tar(each, far) for each in every]
        rows.append((f"TAR at FAR {rate_words(far)}", cells))
    rows.append(("Threshold, mean of folds (squared L2)", [_threshold(each) for each in every]))
    return rows


def notes(result: VerificationResult, intervals: Intervals) -> list[str]:
    """Return what must be said under the table of measures."""
    basis = f"95 % intervals: {basis_words(intervals)}; "
    if intervals.basis == PAIRS:
        basis += "people are not known, so they are too narrow where pairs share people."
    elif intervals.units < _FEW_PEOPLE:
        basis += "a rough guide, for these people are few."
    else:
        basis += "wide rather than narrow. The two claims under it are too narrow: one takes pairs "
        basis += "for independent, the other folds."
    if intervals.basis == PHOTOGRAPHS:
        basis += " Those whose photographs no genuine pair joins count as different people."
    found = [basis]
    if result.coarse_fars:
        found.append(f"{_COARSE} Fewer than ten false accepts decide: one pair moves it visibly.")
    if result.refused_fars:
        needs = ", ".join(
            f"{whole(needed)} for FAR {rate_words(far)}"
            for far, needed in result.refused_fars.items()
        )
        found.append(
            f"Refused: {whole(result.impostor_pairs)} impostor pairs cannot show so small a rate "
            f"(needed: {needs})."
        )
    return found


def overview(sections: Sequence[ReportSection]) -> tuple[list[str], list[Row]]:
    """Return header and rows of the table of all pair sets."""
    names = list(dict.fromkeys(name for section in sections for name in section.baselines))
    header = ["Accuracy (%)", "95 % interval", "AUC", "EER (%)", *(f"{name} (%)" for name in names)]
    rows: list[Row] = []
    for section in sections:
        result, others = section.result, section.baselines
        cells = [
            _with_spread(result),
            span(section.intervals.accuracy),
            f"{result.auc:.5f}",
            percent(result.eer),
            *(percent(others[name].accuracy) if name in others else NOTHING for name in names),
        ]
        rows.append((section.name, cells))
    return header, rows


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted names and values of nested mappings."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", " ".join(str(each) for each in value)
        else:
            yield f"{prefix}{key}", NOTHING if value is None else str(value)


def _with_spread(result: Baseline) -> str:
    return f"{percent(result.accuracy)} ± {percent(result.accuracy_std)}"


def _interval(result: Baseline) -> str:
    return NOTHING if isinstance(result, MainNumbers) else span(result.confidence_interval)


def _threshold(result: Baseline) -> str:
    return NOTHING if isinstance(result, MainNumbers) else f"{result.threshold:.3f}"


def _tar(result: Baseline, far: float) -> str:
    if isinstance(result, MainNumbers):
        return NOTHING
    if far in result.refused_fars:
        return _REFUSED
    if far not in result.tar_at_far:
        return NOTHING
    mark = f"\u202f{_COARSE}" if far in result.coarse_fars else ""
    return percent(result.tar_at_far[far]) + mark
