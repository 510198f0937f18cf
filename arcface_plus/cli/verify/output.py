"""What ``arcface-plus verify`` shows and writes: tables, rows of a paper, the report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from arcface_plus.evaluation.benchmark.discard import DiscardCurve
    from arcface_plus.evaluation.benchmark.group_rates import GroupErrors, GroupRate
    from arcface_plus.evaluation.pairs.intervals import FarAdvice, Intervals
    from arcface_plus.evaluation.scoring import Compared, Entry

TABLES = {".md": "markdown", ".tex": "latex", ".csv": "csv"}
_UNITS = {
    "people": "people left out in turn",
    "photographs": "people by photographs, left out in turn",
    "pairs": "pairs, taken for independent",
}
# How many of what a calibration or an advice rests on.
_COUNTED = {
    "people": "people",
    "photographs": "people, told apart by which photographs the genuine pairs join",
    "pairs": "pairs, whose people are not known",
}


def result_table(entry: Entry) -> Table:
    """Lay out one result as a table of two columns."""
    result, intervals = entry.section.result, entry.intervals
    pairs = f"{result.genuine_pairs} genuine + {result.impostor_pairs} impostor pairs"
    title = f"{entry.facts['name']}: {pairs}, {result.folds} folds"
    table = Table("measure", "value", title=title, title_justify="left")
    table.add_row("accuracy", f"{result.accuracy:.5f} ± {result.accuracy_std:.5f}")
    basis = f"{intervals.units} {_UNITS[intervals.basis]}"
    table.add_row("95 % interval", f"{_span(intervals.accuracy)} ({basis})")
    table.add_row("pairs would claim", f"{_span(intervals.pairs_claim)} (bootstrap over pairs)")
    table.add_row("folds would claim", f"{_span(result.confidence_interval)} (t over folds)")
    cosine = f"{1 - result.threshold / 2:.4f} cosine"
    table.add_row("threshold", f"{result.threshold:.4f} squared L2, {cosine} (mean of folds)")
    table.add_row("AUC", f"{result.auc:.6f}")
    table.add_row("EER", f"{result.eer:.5f}")
    for (far, tar), ends in zip(result.tar_at_far.items(), intervals.tar, strict=True):
        note = "; coarse: fewer than 10 false accepts" if far in result.coarse_fars else ""
        table.add_row(f"TAR@FAR={far:g}", f"{tar:.5f} ({_span(ends)}{note})")
    for far, needed in result.refused_fars.items():
        table.add_row(f"TAR@FAR={far:g}", f"refused: needs {needed} impostor pairs")
    table.add_row("folds", " ".join(f"{accuracy:.5f}" for accuracy in result.fold_accuracies))
    table.add_row("fold thresholds", " ".join(f"{each:.2f}" for each in result.thresholds))
    table.add_row("as cosine", " ".join(f"{each:.3f}" for each in result.cosine_thresholds))
    if entry.advice is not None:
        _add_advice(table, entry.advice, entry.intervals)
    for other in entry.others:
        _add_comparison(table, other)
    return table


def group_table(found: GroupErrors) -> Table:
    """Lay out the error rates of a column of groups; per cent."""
    where = f"cosine above {1 - found.threshold / 2:.4f} ({found.threshold_of})"
    left = f"; {found.left_out} pairs without a group left out" if found.left_out else ""
    table = Table(
        *("error", "group", "errors", "pairs", "rate", "95 % interval", "differs, p"),
        title=f"groups of {found.column}: accepted at {where}{left}",
        title_justify="left",
    )
    notes: list[str] = []
    parts = (
        ("FNMR", found.fnmr, found.fnmr_p, found.adjusted[0]),
        ("FMR", found.fmr, found.fmr_p, found.adjusted[1]),
    )
    for name, rates, p, adjusted in parts:
        for each in rates:
            table.add_row(name, " × ".join(each.groups), *_rate_cells(each))
        table.add_section()
        words = f"{name}: some group differs: p = {p:.3g} (Holm {adjusted:.3g}); {_ratio(rates)}"
        if name == "FMR" and found.within:
            words += f", within groups {_ratio(found.within)}"
        notes.append(words)
    table.caption, table.caption_justify = "\n".join(notes), "left"
    return table


def discard_table(found: DiscardCurve) -> Table:
    """Lay out an error-versus-discard curve; per cent."""
    where = f"cosine above {1 - found.threshold / 2:.4f} ({found.threshold_of})"
    table = Table(
        *("discarded", "pairs left", "FNMR", "95 % interval"),
        title=f"genuine pairs of low {found.quality} discarded: accepted at {where}",
        title_justify="left",
    )
    for each in found.points:
        ends = _span((100 * end for end in each.interval), ".3f")
        share = f"{100 * each.discarded:.2f}"
        table.add_row(share, str(each.pairs), f"{100 * each.fnmr:.3f}", ends)
    areas = f"{found.area:.3g}; at random {found.area_random:.3g}, ideal {found.area_ideal:.3g}"
    table.caption = f"area up to {100 * found.limit:g} % discarded: {areas}"
    table.caption_justify = "left"
    return table


def store_calibration(entry: Entry, model: Path | None, card: Path | None) -> str:
    """Store the calibration that ``entry`` gives with ``model`` and in ``card``, as far as given.

    Returns words on how good it is.
    """
    from arcface_plus.evaluation.model_calibration import (
        calibrate,
        calibration_file,
        save_calibration,
    )

    calibration = calibrate(entry)
    paths = [] if model is None else [calibration_file(model)]
    paths += [] if card is None else [card]
    for path in paths:
        save_calibration(calibration, path)
    held_out, pairs = calibration.held_out, calibration.pairs
    fars = ", ".join(f"{each.far:g}" for each in calibration.thresholds) or "none"
    units = f"{pairs.units} {_COUNTED[pairs.basis]}"
    return (
        f"calibration on {pairs.name} ({units}): on held-out folds Cllr "
        f"{held_out.cllr:.4f} bits, minCllr {held_out.min_cllr:.4f} (both kinds of pair count "
        f"alike: a prior of 1/2). Thresholds recorded for a FAR of {fars}.\n"
        f"Wrote {' and '.join(map(str, paths))}"
    )


def table_rows(entries: Sequence[Entry], *, style: str, method: str | None) -> str:
    """Return accuracies as rows of a paper's table; a model compared to is a row below."""
    from arcface_plus.evaluation.tables import result_rows

    rows: dict[str, dict[str, Any]] = {}
    for entry in entries:
        rows.setdefault(method or entry.source.stem, {})[entry.facts["name"]] = entry.section.result
    for entry in entries:
        for other in entry.others:
            name = other.entry.source.stem
            if name in rows and name == (method or entry.source.stem):
                name = str(other.entry.source)
            rows.setdefault(name, {})[entry.facts["name"]] = other.entry.section.result
    return result_rows(rows, style=style)


def write_report_page(path: Path, entries: Sequence[Entry]) -> None:
    """Write the HTML report of ``entries``."""
    from arcface_plus.evaluation.report.page import write_report
    from arcface_plus.evaluation.tables import model_names
    from arcface_plus.runs.folder import environment

    sections = []
    for e in entries:
        names = model_names([e])[1:]
        others = {
            f"other: {name}": other.entry.section.result
            for name, other in zip(names, e.others, strict=True)
        }
        sections.append(replace(e.section, baselines=others, groups=e.groups, discards=e.discards))
    facts = {f"{e.facts['name']}: {key}": value for e in entries for key, value in e.facts.items()}
    write_report(
        path,
        sections,
        title="Verification",
        environment={**facts, **environment()},
        command=shlex.join(sys.argv),
    )


def _add_advice(table: Table, advice: FarAdvice, intervals: Intervals) -> None:
    low, high = advice.threshold_interval
    cautions = {
        "coarse: fewer than 10 false accepts decide": advice.coarse,
        f"a rough guide: {intervals.units} {_COUNTED[intervals.basis]}": intervals.units < 20,
    }
    notes = [caution for caution, holds in cautions.items() if holds]
    note = f" ({'; '.join(notes)})" if notes else ""
    name = f"advice for FAR={advice.far:g}"
    table.add_row(
        name, f"accept below {advice.threshold:.4f} squared L2 ({low:.4f} to {high:.4f}){note}"
    )
    cosine = f"{1 - advice.threshold / 2:.4f} cosine ({1 - high / 2:.4f} to {1 - low / 2:.4f})"
    table.add_row("", f"that is, above {cosine}")
    table.add_row("", f"FAR there: {advice.far_reached:.2g} ({_span(advice.far_interval, '.2g')})")


def _add_comparison(table: Table, other: Compared) -> None:
    difference, result = other.difference, other.entry.section.result
    table.add_row("compared to", other.entry.source.name)
    table.add_row("its accuracy", f"{result.accuracy:.5f} ± {result.accuracy_std:.5f}")
    ends = _span(difference.interval, "+.5f")
    table.add_row("difference", f"{difference.difference:+.5f} ({ends}, 95 %, paired)")
    table.add_row("p of no difference", f"{difference.p:.3g}, Holm {other.adjusted_p:.3g}")
    pairs = f"{difference.gained} pairs gained, {difference.lost} lost"
    table.add_row("exact McNemar", f"p = {difference.mcnemar_p:.3g} ({pairs})")
    table.add_row("", "takes pairs for independent")


def _rate_cells(each: GroupRate) -> list[str]:
    few = "" if each.basis == "people" else f" ({each.basis})"
    ends = _span((100 * end for end in each.interval), ".3f") + few
    return [str(each.errors), str(each.pairs), f"{100 * each.rate:.3f}", ends, f"{each.p:.3g}"]


def _ratio(rates: tuple[GroupRate, ...]) -> str:
    from arcface_plus.evaluation.benchmark.group_rates import worst_over_best

    ratio = worst_over_best(rates)
    return f"worst over best {'not defined' if ratio is None else format(ratio, '.2f')}"


def write_tables(paths: Sequence[Path], entries: Sequence[Entry], method: str | None) -> None:
    """Write models and sets with significance, in the form that each ending says."""
    from arcface_plus.evaluation.tables import significance_table
    from arcface_plus.files import written_beside

    for path in paths:
        text = significance_table(entries, TABLES[path.suffix], method=method)
        with written_beside(path) as beside:
            beside.write_text(text, encoding="utf-8")


def _span(ends: Iterable[float], form: str = ".5f") -> str:
    return " to ".join(format(end, form) for end in ends)
