"""What a run says while it runs: metrics.jsonl, trackers, a progress bar or plain lines."""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from arcface_plus.files import keep_steps
from arcface_plus.training.log.trackers import Csv, TensorBoard, Tracker

# What a line shows, in this order: key, label, format.
_SHOWN = (
    ("loss", "loss", "{:.4f}"),
    ("mma", "MMA", "{:.4f}"),
    ("regularizer", "penalty", "{:.4f}"),
    ("norm_penalty", "norm penalty", "{:.4f}"),
    ("closeness", "closeness", "{:.4f}"),
    ("diversity", "diversity", "{:.4f}"),
    ("quality", "quality", "{:.2f}"),
    ("margin_t", "t", "{:.3f}"),
    ("margin_threshold", "threshold", "{:.2f}"),
    ("nearest_angle", "nearest class", "{:.1f}°"),
    ("target_angle", "own class", "{:.1f}°"),
    ("lr", "lr", "{:.2g}"),
    ("images_per_second", "images/s", "{:.0f}"),
    ("data_wait", "data wait", "{:.0%}"),
    ("forward_share", "forward", "{:.0%}"),
    ("backward_share", "backward", "{:.0%}"),
    ("optimizer_share", "optimizer", "{:.0%}"),
    ("mma_share", "of MMA", "{:.0%}"),
    ("communication_share", "communication", "{:.0%}"),
)
# What stands behind one of them, where it is known: key, and the words with it.
_AGAINST = {
    "nearest_angle": ("nearest_angle_uniform", " of {:.1f}°"),
    "target_angle": ("termination_angle", " to {:.1f}°"),
}


class Monitor:
    """Writes one run's numbers; only rank 0 has one that is ``enabled``."""

    def __init__(
        self,
        folder: Path,
        *,
        total_steps: int,
        start_step: int = 0,
        enabled: bool = True,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.enabled, self.total = enabled, total_steps
        self.console = Console(highlight=False, quiet=not enabled)
        # After the first step, which takes many times as long as another: when, and at which step.
        self._counted_from: tuple[float, int] | None = None
        self._progress: Progress | None = None
        if not enabled:
            return
        self.path = folder / "metrics.jsonl"
        kept = keep_steps(self.path, lambda step: 0 < start_step >= step)
        self._written = {(entry["step"], entry.get("kind")) for entry in kept}
        # Without a buffer: what a full disk did not take is not tried again when it is closed.
        self._lines = self.path.open("ab", buffering=0)
        before = ((e.pop("step"), _numbers(e.pop("kind", "train"), e)) for e in kept)
        self._trackers: list[Tracker] = [
            Csv(folder, before),
            TensorBoard(folder, start_step),
            *trackers,
        ]
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[line]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._progress.add_task(
                "", total=total_steps, completed=start_step, line=""
            )
            self._progress.start()

    def advance(self, step: int) -> None:
        """Show that ``step`` steps are done."""
        self._counted_from = self._counted_from or (time.monotonic(), step)
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Write the numbers of a log step; ``step`` counts finished optimizer steps."""
        if not self.enabled:
            return
        left = self._seconds_left(step)
        self.write(step, values if left is None else {**values, "seconds_left": round(left, 1)})
        line = "  ".join(
            f"{label} {form.format(values[key])}{_against(key, values)}"
            for key, label, form in _SHOWN
            if key in values
        )
        if self._progress is not None:
            self._progress.update(self._task, completed=step, line=line)
        else:
            ending = "" if left is None else f"  left {_duration(left)}"
            self.say(f"step {step}/{self.total}  {line}{ending}")

    def _seconds_left(self, step: int) -> float | None:
        """Return the seconds that the run still takes after ``step``, None before it can tell."""
        self._counted_from = began, first = self._counted_from or (time.monotonic(), step)
        if step == first:
            return None
        return (time.monotonic() - began) / (step - first) * (self.total - step)

    def write(self, step: int, values: dict[str, Any], prefix: str = "train") -> None:
        """Write numbers to metrics.jsonl and the trackers without showing them.

        A step has one line of a kind, warnings aside: a run that is killed between its last
        checkpoint and its end scores that step again when it is resumed.
        """
        if not self.enabled or (step, prefix) in self._written:
            return
        if prefix != "warning":
            self._written.add((step, prefix))
        # JSON has no NaN: a reader other than Python's would refuse the whole file.
        plain = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        line = json.dumps({"step": step, "kind": prefix, **plain}) + "\n"
        with _named(self.path):
            _write_all(self._lines, line.encode())
        numbers = _numbers(prefix, values)
        for tracker in self._trackers if numbers else ():
            with _named(self.path.with_name(tracker.name)):
                tracker.log(step, numbers)

    def sync(self) -> None:
        """Make all that was written durable, before a checkpoint says that it is there."""
        if self.enabled:
            with _named(self.path):
                os.fsync(self._lines.fileno())
            for tracker in self._trackers:
                with _named(self.path.with_name(tracker.name)):
                    tracker.flush()

    def say(self, message: str) -> None:
        """Show a message above the progress bar, or as a line."""
        self.console.print(message, markup=False, soft_wrap=True)

    def warn(self, step: int, message: str) -> None:
        """Show a warning and keep it in metrics.jsonl."""
        self.write(step, {"message": message}, prefix="warning")
        self.say(f"warning: {message}")

    def close_progress(self) -> None:
        """Take the progress bar away, so that tables can follow."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def close(self) -> None:
        self.close_progress()
        if self.enabled:
            self._lines.close()
            for tracker in self._trackers:
                tracker.close()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say with an OSError which file it is about: those of writing name none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {path}") from error


def _numbers(kind: str, values: Mapping[str, Any]) -> dict[str, float]:
    return {f"{kind}/{k}": v for k, v in values.items() if isinstance(v, int | float)}


def _write_all(file: io.FileIO, line: bytes) -> None:
    while line:
        line = line[file.write(line) :]


def _against(key: str, values: dict[str, float]) -> str:
    other, form = _AGAINST.get(key, ("", ""))
    return form.format(values[other]) if other in values else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
