"""Read what a finished run measured."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

VERIFICATION, ACCURACY = "verification.json", "accuracy.json"
CLASSIFIER_WEIGHTS = "classifier.safetensors"


def read_verification(folder: Path) -> dict[str, dict[str, Any]] | None:
    """Return the numbers of each pair set by its name, or None where ``folder`` has not ended.

    Raises ValueError naming a file that is damaged.
    """
    path = folder / VERIFICATION
    return dict(read_measured(path, {"results"})["results"]) if path.is_file() else None


def read_measured(path: Path, needed: Collection[str]) -> dict[str, Any]:
    """Return the JSON object at ``path``; ValueError naming it where it lacks a ``needed`` key."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(result, dict) or not result.keys() >= set(needed):
            raise ValueError(f"it lacks {', '.join(sorted(needed))}")
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged, or another program's ({error}). Train the run again with "
            "--overwrite, or remove its folder."
        ) from error
    return result
