"""The list of images that could not be read and were replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from arcface_plus.data.batches.loader import Batch
from arcface_plus.files import keep_steps


class Quarantine:
    """Appends a line for each new bad image to ``quarantine-rank{r}.jsonl``.

    A run resumed from a checkpoint continues the list as it was at that step.
    """

    def __init__(self, folder: Path, rank: int, limit: int, describe: Callable[[int], str]) -> None:
        self.path = folder / f"quarantine-rank{rank}.jsonl"
        self.limit, self.describe = limit, describe
        self.known: set[int] | None = None  # until the first step, which a resumed run is at

    def record(self, batch: Batch) -> None:
        """List what was not known yet; ValueError once this rank has met more than ``limit``."""
        if self.known is None:
            kept = keep_steps(self.path, lambda step: step < batch.step)
            self.known = {entry["index"] for entry in kept}
        new = [(i, why) for i, why in batch.quarantined if i not in self.known]
        if not new:
            return
        self.known.update(i for i, _ in new)
        with open(self.path, "a", encoding="utf-8") as file:
            for index, reason in new:
                image = self.describe(index)
                entry = {"step": batch.step, "index": index, "image": image, "reason": reason}
                file.write(json.dumps(entry) + "\n")
        if len(self.known) > self.limit:
            raise ValueError(
                f"{len(self.known)} images could not be read, more than data.quarantine_limit "
                f"({self.limit}); they are listed in {self.path}. Mend the data set, or raise "
                "the limit."
            )
