"""Where numbers of a run go besides metrics.jsonl: CSV, TensorBoard, and W&B where asked for."""

from __future__ import annotations

import csv
import math
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from arcface_plus.files import written_beside


class Tracker(Protocol):
    """A place for numbers. Each raises OSError where it cannot write."""

    name: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take numbers of ``step`` under names such as train/loss."""

    def flush(self) -> None:
        """Make durable what was logged."""

    def close(self) -> None: ...


class Csv:
    """``metrics.csv``: a row a step, a column a number; the whole file is written at each flush.

    ``kept``: what the run logged before it was resumed, as (step, numbers).
    """

    name = "metrics.csv"

    def __init__(self, folder: Path, kept: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        self.path = folder / self.name
        self.rows: dict[int, dict[str, float]] = {}
        for step, values in kept:
            self.log(step, values)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        self.rows.setdefault(step, {"step": step}).update(finite)

    def flush(self) -> None:
        columns = dict.fromkeys(key for row in self.rows.values() for key in row)
        with (
            written_beside(self.path) as beside,
            beside.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.DictWriter(file, list(columns))
            table.writeheader()
            table.writerows(self.rows[step] for step in sorted(self.rows))

    def close(self) -> None:
        """Do nothing: a run that failed on a full disk must not fail on it again."""


class TensorBoard:
    """Event files in the folder ``tensorboard`` of a run."""

    name = "tensorboard"

    def __init__(self, folder: Path, start_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        # It hides what an interrupted run wrote from this step on.
        purge = start_step + 1 if start_step else 0
        self.writer = SummaryWriter(str(folder / self.name), purge_step=purge)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


def import_wandb() -> Any:
    """Return the package; raise ModuleNotFoundError where it is not installed."""
    try:
        import wandb
    except ModuleNotFoundError as error:
        said = 'train.wandb needs wandb: pip install "arcface_plus[wandb]"'
        raise ModuleNotFoundError(said) from error
    return wandb


class WandB:
    """A run of the project ``project`` at Weights & Biases, named as the run folder.

    A resumed run goes on in the same one. What a run that was killed had logged since its
    checkpoint is logged again, with the same values: W&B takes nothing back.
    """

    name = "wandb"

    def __init__(self, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        wandb = import_wandb()
        known = folder / "wandb.txt"
        identity = known.read_text().strip() if known.exists() else secrets.token_hex(4)
        self.run = wandb.init(
            project=project,
            name=folder.name,
            id=identity,
            resume="allow",
            dir=folder,
            config=dict(config),
        )
        known.write_text(identity + "\n", encoding="utf-8")
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({**values, "step": step})

    def flush(self) -> None:
        """Do nothing: W&B's own process writes and uploads."""

    def close(self) -> None:
        self.run.finish()
