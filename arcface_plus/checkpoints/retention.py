"""Which old snapshots stay when a new one is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Retention:
    """Keep the ``newest`` and, for good, those of every ``every``-th step."""

    newest: int = 2
    every: int | None = None

    def removable(self, steps: Sequence[int], protected: int | None) -> list[int]:
        """Return those of ``steps`` (ascending) that need not stay; ``protected`` stays."""
        return [
            step
            for step in steps[: -self.newest]
            if step != protected and not (self.every and step and step % self.every == 0)
        ]


def remove(snapshot: Path) -> None:
    """Remove a snapshot, which loses its name first: a kill leaves nothing that looks like one."""
    if snapshot.exists():
        aside = snapshot.with_name(f".tmp-removed-{snapshot.name}")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(snapshot, aside)
        shutil.rmtree(aside)
