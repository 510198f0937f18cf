"""The page of a cleaning: every finding with its photographs side by side, in one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from arcface_plus.data.images import jpeg_uri, shrunk
from arcface_plus.evaluation.cleaning.findings import Finding, Kind
from arcface_plus.evaluation.cleaning.photographs import Photographs
from arcface_plus.evaluation.cleaning.search import Found
from arcface_plus.evaluation.report.page import page_templates
from arcface_plus.evaluation.report.words import shortened
from arcface_plus.files import written_beside

# What a page shows at most, which keeps it below some 20 MB.
MOST_FINDINGS, MOST_PHOTOGRAPHS = 150, 4  # of a kind; of a person
_SIDE, _QUALITY = 96, 80

_HEADINGS: dict[Kind, tuple[str, str]] = {
    "duplicates": (
        "Near-duplicates",
        "One photograph twice: encoded anew, scaled, brightened or mirrored. Score: correlation of "
        "the two thumbnails.",
    ),
    "labels": (
        "Likely wrong labels",
        "The photograph is far from the others of its person and near another person. Score: "
        "likeness to the other person less likeness to its own one.",
    ),
    "merge": (
        "Likely one person under two labels",
        "The two are each other's nearest, and nearer than people are. Score: their likeness.",
    ),
    "split": (
        "Likely two people under one label",
        "The photographs fall into two tight groups that are as far apart as people are. Score: "
        "1 less the likeness of the groups.",
    ),
}


def write_page(path: Path, found: Found, photographs: Photographs, *, title: str) -> None:
    """Write the page. Of more than ``MOST_FINDINGS`` of a kind it shows the strongest and says so.

    Photographs are inside it as thumbnails; one that cannot be read any more is named instead.
    """
    pictures = _Pictures(found, photographs)
    by_kind = {kind: [one for one in found.findings if one.kind == kind] for kind in _HEADINGS}
    kinds = [
        {
            "anchor": kind,
            "heading": heading,
            "meaning": meaning,
            "total": len(by_kind[kind]),
            "shown": [pictures.of(finding) for finding in by_kind[kind][:MOST_FINDINGS]],
        }
        for kind, (heading, meaning) in _HEADINGS.items()
        if by_kind[kind]
    ]
    template = page_templates(Path(__file__).parent).get_template("page.html.j2")
    html = template.render(
        title=title,
        photographs=len(photographs.keys),
        people=len(np.unique(photographs.images.labels)),
        kinds=kinds,
        stranger=found.stranger,
        typical=found.typical,
    )
    with written_beside(path) as beside:
        beside.write_text(html, encoding="utf-8", errors="replace")


class _Pictures:
    """Makes what the page shows of a finding."""

    def __init__(self, found: Found, photographs: Photographs) -> None:
        self.photographs = photographs
        self.numbers = {id(finding): n for n, finding in enumerate(found.findings, 1)}
        # A person's most typical photographs first.
        order = np.lexsort((-found.labels.own, found.labels.suspect, photographs.images.labels))
        labels = photographs.images.labels[order]
        starts = np.flatnonzero(np.diff(labels, prepend=-1))
        self.of_person = {
            int(labels[start]): rows.tolist()
            for start, rows in zip(starts, np.split(order, starts[1:]), strict=True)
        }

    def of(self, finding: Finding) -> dict[str, Any]:
        """Return title, score and groups of photographs of ``finding``."""
        keys, people = self.photographs.keys, self.photographs.people
        person, moved = people[finding.person], finding.photographs
        first = keys[moved[0]]
        if finding.kind == "duplicates":
            assert finding.kept is not None
            title = f"{first} is a copy of {keys[finding.kept]}"
            groups = [("copy", moved, True), ("kept", (finding.kept,), False)]
        elif finding.kind == "labels":
            assert finding.other is not None
            title = f"{first} is likely {people[finding.other]}"
            groups = [
                (first, moved, True),
                (f"others of {person}", self._typical(finding.person, moved), False),
                (f"{people[finding.other]}", self._typical(finding.other, moved), False),
            ]
        elif finding.kind == "merge":
            assert finding.other is not None
            title = f"{person} is likely {people[finding.other]}"
            groups = [
                (person, self._typical(finding.person, ()), True),
                (people[finding.other], self._typical(finding.other, ()), False),
            ]
        else:
            title = f"{person} is likely two people"
            groups = [
                (f"{len(moved)} photographs", moved, True),
                ("the others", self._typical(finding.person, moved), False),
            ]
        return {
            "number": self.numbers[id(finding)],
            "title": title,
            "score": finding.score,
            "groups": [
                {"caption": shortened(caption), "suspect": framed, "photos": self._photos(rows)}
                for caption, rows, framed in groups
            ],
        }

    def _typical(self, person: int, but: Sequence[int]) -> tuple[int, ...]:
        return tuple(row for row in self.of_person[person] if row not in set(but))

    def _photos(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        return [self._photo(row) for row in rows[:MOST_PHOTOGRAPHS]]

    def _photo(self, row: int) -> dict[str, Any]:
        name = shortened(self.photographs.keys[row])
        try:
            image = self.photographs.images[row]
        except (OSError, ValueError):  # gone since: the findings stand without it
            return {"name": name, "source": None}
        return {"name": name, "source": jpeg_uri(shrunk(image, _SIDE), _QUALITY)}
