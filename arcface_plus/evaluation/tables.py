"""Results as rows of a paper's table: Method | LFW | CFP-FP | AgeDB-30."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from arcface_plus.evaluation.pairs.verification import VerificationResult

# In the paper's order: name of the pair set's file -> heading.
HEADINGS = {"lfw": "LFW", "cfp_fp": "CFP-FP", "agedb_30": "AgeDB-30"}
STYLES = ("markdown", "latex")
_MISSING = "–"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
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
