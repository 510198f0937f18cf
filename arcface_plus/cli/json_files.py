"""Results as JSON files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from arcface_plus.files import written_beside


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` beside ``path`` and rename it, so that a broken run leaves no half file."""
    with written_beside(path) as beside:
        beside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
