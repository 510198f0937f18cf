"""The list of images that could not be read and were replaced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from arcface_plus.data.batches.loader import Batch
from arcface_plus.files import written_beside


class Quarantine:
    """Appends a line for each new bad image to ``quarantine-rank{r}.jsonl``.

    A run resumed from a checkpoint continues the list as it was at that step.
    """

    def __init__(self, folder: Path, rank: int, limit: int, describe: Callable[[int], str]) -> None:
        self.path = folder / f"quarantine-rank{rank}.jsonl"
        self.limit, self.describe = limit, describe
        self.known: set[int] = set()
        self._is_first = True

    def record(self, batch: Batch) -> None:
        """List what was not known yet; ValueError once this rank has met more than ``limit``."""
        if self._is_first:
            self._keep_entries_before(batch.step)
            self._is_first = False
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

    def _keep_entries_before(self, step: int) -> None:
        """Drop what an interrupted run listed at or after the step it is resumed from."""
        if not self.path.is_file():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a run that was killed while writing it
            if entry["step"] < step:
                kept.append(line + "\n")
                self.known.add(entry["index"])
        with written_beside(self.path) as beside:
            beside.write_text("".join(kept), encoding="utf-8")
