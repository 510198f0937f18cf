"""Results as rows of a paper's table: Method | LFW | CFP-FP | AgeDB-30; with significance, too."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from arcface_plus.evaluation.pairs.verification import VerificationResult
from arcface_plus.evaluation.scoring import Compared, Entry

# In the paper's order: name of the pair set's file -> heading.
HEADINGS = {"lfw": "LFW", "cfp_fp": "CFP-FP", "agedb_30": "AgeDB-30"}
STYLES = ("markdown", "latex")
_MISSING = "–"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_MARKDOWN = {sign: f"\\{sign}" for sign in "\\|*_`<[]"}


def result_rows(
    results: Mapping[str, Mapping[str, VerificationResult]],
    *,
    style: str = "markdown",
    columns: Sequence[str] | None = None,
) -> str:
    """Lay out accuracies in per cent, two decimals, a line a method, as the paper's Table 7.

    ``results``: method → pair set → result. ``style``: ``markdown``, or ``latex`` (a whole tabular,
    rules of booktabs). ``columns``: pair sets in order; None: LFW, CFP-FP and AgeDB-30, then the
    others as they come. A set that a method lacks is a dash.

    Raises ValueError for another style, and for no results.
    """
    if style not in STYLES:
        raise ValueError(f"style is {style!r}, but must be one of {', '.join(STYLES)}.")
    if not results:
        raise ValueError("There are no results to lay out.")
    if columns is None:
        found = dict.fromkeys(name for of_method in results.values() for name in of_method)
        columns = [*HEADINGS, *(name for name in found if name not in HEADINGS)]
    lines = [["Method", *(HEADINGS.get(name, name) for name in columns)]]
    for method, of_method in results.items():
        accuracies = {name: f"{100 * each.accuracy:.2f}" for name, each in of_method.items()}
        lines.append([method, *(accuracies.get(name, _MISSING) for name in columns)])
    return _markdown(lines) if style == "markdown" else _latex(lines)


def significance_table(entries: Sequence[Entry], style: str, *, method: str | None = None) -> str:
    """Lay out many models on many sets: accuracies, and how much each model differs from the first.

    ``entries``: the first model's, a set each, with the ``others`` it was compared to. ``style``:
    ``markdown`` or ``latex`` (a line a model, a column a set, per cent and points), or ``csv`` (a
    line a model and set, every number as a rate). ``method``: what the first model is called.

    Raises ValueError for entries without a comparison.
    """
    if not entries or not all(entry.others for entry in entries):
        raise ValueError("A table with significance needs models to compare the first one to.")
    names = model_names(entries, method)
    if style == "csv":
        return _csv(entries, names)
    lines = [["Method", *(HEADINGS.get(e.facts["name"], e.facts["name"]) for e in entries)]]
    lines.append([names[0], *(_with_interval(entry) for entry in entries)])
    for number, name in enumerate(names[1:]):
        lines.append([name, *(_with_difference(entry.others[number]) for entry in entries)])
    tests = len(entries) * len(entries[0].others)
    note = (
        f"Accuracy (%). {names[0]}: 95 % interval. Others: difference to it in points, paired 95 % "
        f"interval, p of no difference after Holm's correction for {tests} tests."
    )
    if style == "markdown":
        return f"{_markdown(lines)}\n{_escaped(note, _MARKDOWN)}\n"
    return f"{_latex(lines)}% {' '.join(note.split())}\n"


def model_names(entries: Sequence[Entry], method: str | None = None) -> list[str]:
    """Return what rows call the model of ``entries`` and those it is compared to, all different."""
    first = method or " / ".join(dict.fromkeys(entry.source.stem for entry in entries))
    names = [first]
    for other in entries[0].others:
        name = other.entry.source.stem
        names.append(str(other.entry.source) if name in names else name)
    return names


def _markdown(lines: list[list[str]]) -> str:
    cells = [[_escaped(cell, _MARKDOWN) for cell in line] for line in lines]
    rule = ["---", *["---:"] * (len(cells[0]) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [cells[0], rule, *cells[1:]]) + "\n"


def _latex(lines: list[list[str]]) -> str:
    head, *body = (" & ".join(_escaped(cell, _LATEX) for cell in line) + r" \\" for line in lines)
    columns = "l" + "r" * (len(lines[0]) - 1)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            head,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _escaped(cell: str, signs: Mapping[str, str]) -> str:
    return "".join(signs.get(character, character) for character in " ".join(cell.split()))


def _with_interval(entry: Entry) -> str:
    low, high = (100 * end for end in entry.intervals.accuracy)
    return f"{100 * entry.section.result.accuracy:.2f} [{low:.2f}, {high:.2f}]"


def _with_difference(other: Compared) -> str:
    found = other.difference
    less, low, high = (-100 * end for end in (found.difference, *reversed(found.interval)))
    p = "< 0.001" if other.adjusted_p < 0.001 else f"= {other.adjusted_p:.3f}"
    words = f"{less:+.2f} [{low:+.2f}, {high:+.2f}], p {p}".replace("-", "−")
    return f"{100 * other.entry.section.result.accuracy:.2f} ({words})"


def _csv(entries: Sequence[Entry], names: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["method", "set", "accuracy", "low", "high", "difference", "difference_low",
         "difference_high", "p", "p_holm", "basis", "units"]
    )  # fmt: skip
    for entry in entries:
        ends = entry.intervals.accuracy
        basis = [entry.intervals.basis, entry.intervals.units]
        accuracy = entry.section.result.accuracy
        writer.writerow([names[0], entry.facts["name"], accuracy, *ends, *[""] * 5, *basis])
        for name, other in zip(names[1:], entry.others, strict=True):
            found, its = other.difference, other.entry
            low, high = found.interval
            less = [-found.difference, -high, -low, found.p, other.adjusted_p]
            scored = [its.section.result.accuracy, *its.intervals.accuracy]
            writer.writerow([name, its.facts["name"], *scored, *less, *basis])
    return text.getvalue()
