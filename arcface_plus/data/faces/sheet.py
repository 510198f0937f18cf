"""The contact sheet of an alignment: one HTML page that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from arcface_plus.data.faces.outcomes import Outcome, Status
from arcface_plus.data.images import jpeg_uri, read_image, shrunk
from arcface_plus.files import written_beside

# What a page shows at most, which keeps it below some 10 MB.
CROPS, PHOTOGRAPHS = 2000, 200
_CROP_SIDE, _PHOTOGRAPH_SIDE = 72, 160  # pixels
_CHOSEN = (0, 200, 90)  # RGB of the box about the chosen face

_MEANING = {
    Status.NONE: "No crop was made.",
    Status.TINY: "No crop was made: the largest face is below the smallest size.",
    Status.UNREADABLE: "No crop was made.",
    Status.NO_IMAGE: "No crop was made.",
    Status.SEVERAL: "The crop is of the framed face. Is it the right person?",
}


def write_sheet(path: Path, outcomes: Sequence[Outcome], source: Path, output: Path) -> None:
    """Write the page: failures and photographs with several faces on top, then crops by person.

    ``source`` and ``output`` are the folders of photographs and crops. Of more than ``CROPS``
    crops, and of more than ``PHOTOGRAPHS`` failures in one way, as many are shown, evenly spaced,
    and the page says so.
    """
    rows = sorted(outcomes, key=lambda outcome: outcome.photograph)
    crops = [o for o in rows if o.crop and (output / o.crop).is_file()]
    people = [
        (person, [_shown(outcome, output / outcome.crop, _CROP_SIDE) for outcome in group])
        for person, group in groupby(_some(crops, CROPS), key=_person)
    ]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    html = environment.get_template("sheet.html.j2").render(
        title=output.name,
        counts={str(status): n for status, n in Counter(o.status for o in rows).most_common()},
        photographs=len(rows),
        problems=[_problem(status, rows, source) for status in _MEANING],
        people=people,
        all_crops=len(crops),
        shown_crops=min(len(crops), CROPS),
        all_people=len({_person(outcome) for outcome in crops}),
    )
    with written_beside(path) as beside:
        beside.write_text(html, encoding="utf-8", errors="replace")


def _problem(status: Status, rows: Sequence[Outcome], source: Path) -> dict[str, Any]:
    found = [outcome for outcome in rows if outcome.status == status]
    shown = [
        _shown(outcome, source / outcome.photograph, _PHOTOGRAPH_SIDE, box=outcome.box)
        for outcome in _some(found, PHOTOGRAPHS)
    ]
    return {"status": str(status), "meaning": _MEANING[status], "all": len(found), "shown": shown}


def _shown(
    outcome: Outcome,
    path: Path,
    side: int,
    box: tuple[float, float, float, float] | None = None,
) -> dict[str, Any]:
    """Return name, note and thumbnail of an image; without one where the file is not readable."""
    try:
        image = read_image(path)
    except (OSError, ValueError):
        source = None
    else:
        source = jpeg_uri(_thumbnail(image, side, box), quality=80)
    return {"name": outcome.photograph, "note": outcome.note, "source": source}


def _thumbnail(
    image: np.ndarray, side: int, box: tuple[float, float, float, float] | None
) -> np.ndarray:
    """Return ``image`` (H, W, 3) within ``side`` × ``side``, with ``box`` drawn."""
    small = shrunk(image, side)
    if box is not None:
        x1, y1, x2, y2 = (round(value * len(small) / len(image)) for value in box)
        small = cv2.rectangle(small, (x1, y1), (x2, y2), _CHOSEN, 2)
    return np.asarray(small)


def _some(outcomes: Sequence[Outcome], limit: int) -> list[Outcome]:
    """Return all of ``outcomes``, or ``limit`` of them, evenly spaced."""
    if len(outcomes) <= limit:
        return list(outcomes)
    return [outcomes[i * len(outcomes) // limit] for i in range(limit)]


def _person(outcome: Outcome) -> str:
    return outcome.photograph.partition("/")[0]
