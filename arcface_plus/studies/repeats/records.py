"""The numbers of single runs: read from run folders, kept in one JSON file, read from it again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from arcface_plus.evaluation.classification import logged_scorings
from arcface_plus.files import written_beside
from arcface_plus.runs.results import ACCURACY, VERIFICATION, read_measured, read_verification
from arcface_plus.settings import Section
from arcface_plus.studies.repeats.runs import Run, finished_config, settings_hash

TEST_IMAGES = "test images"
# Of the last log line of training, where it has them; degrees.
LOGGED = ("target_angle", "nearest_angle", "nearest_angle_uniform")
_TAR = "tar@"


class SetNumbers(Section):
    """What a run scored on one pair set, or on its test images. Shares, not percent.

    Of test images: the mean over the last evaluations as the papers' tables have it, and that of
    the final net.
    """

    accuracy: float | None = None
    auc: float | None = None
    eer: float | None = None
    tar_at_far: dict[float, float] = Field({}, description="share by FAR, the key")
    fold_accuracies: tuple[float, ...] = ()
    accuracy_interval: tuple[float, float] | None = None  # 95 %, over people where they are known
    top1: float | None = None
    top5: float | None = None
    top1_final: float | None = None
    top5_final: float | None = None

    @property
    def measured(self) -> dict[str, float]:
        """Every number that a table may show: accuracy, auc, eer, tar@0.01, top1 …"""
        names = ("accuracy", "auc", "eer", "top1", "top5", "top1_final", "top5_final")
        found = {name: getattr(self, name) for name in names}
        found |= {f"{_TAR}{far:g}": tar for far, tar in self.tar_at_far.items()}
        return {name: value for name, value in found.items() if value is not None}


class Record(Section):
    """One run: its row and seed, how it was trained, and what it measured.

    ``settings``: the hash of ``settings_hash``. ``step`` and ``log`` are of its last log line.
    ``minimum_angles``: of runs on test images, the smallest angle of each layer in degrees.
    """

    row: str
    seed: int
    run: str
    config: str
    settings: str
    step: int | None = None
    log: dict[str, float] = Field({})
    sets: dict[str, SetNumbers] = Field({})
    minimum_angles: dict[str, float] = Field({})


class Records(Section):
    """The file of a study: a record for every finished run."""

    format: Literal[1] = 1
    runs: tuple[Record, ...]


def read_runs(wanted: Iterable[Run], runs: Path) -> list[Record]:
    """Return the record of each of ``wanted`` that has ended in the folder ``runs``."""
    folders = ((run, runs / run.name) for run in wanted)
    return [read_run(folder, run) for run, folder in folders if has_ended(folder)]


def has_ended(folder: Path) -> bool:
    """Whether a run left results in ``folder``."""
    return any((folder / name).is_file() for name in (VERIFICATION, ACCURACY))


def read_run(folder: Path, run: Run) -> Record:
    """Return the record of the finished ``run`` in ``folder``.

    Raises ValueError or FileNotFoundError that names a file which is damaged or missing.
    """
    config = finished_config(folder)
    sets = {n: _of_pairs(numbers) for n, numbers in (read_verification(folder) or {}).items()}
    minimum_angles: dict[str, float] = {}
    if (folder / ACCURACY).is_file():
        needed = {"final", "mean_of_last", "minimum_angles"}
        measured = read_measured(folder / ACCURACY, needed)
        sets[TEST_IMAGES] = _of_test_images(measured["mean_of_last"], measured["final"])
        minimum_angles = measured["minimum_angles"]
    last = (logged_scorings(folder / "metrics.jsonl", "train") or [{}])[-1]
    log = {name: last[name] for name in LOGGED if math.isfinite(last.get(name, math.nan))}
    return Record(
        row=run.label,
        seed=config.seed,
        run=run.name,
        config=run.config.stem,
        settings=settings_hash(config),
        step=last.get("step"),
        log=log,
        sets=sets,
        minimum_angles=minimum_angles,
    )


def _of_pairs(numbers: dict[str, Any]) -> SetNumbers:
    same = ("accuracy", "auc", "eer", "tar_at_far", "fold_accuracies")
    known = {name: numbers[name] for name in same if name in numbers}
    interval = numbers.get("intervals", {}).get("accuracy")
    return SetNumbers(**known, accuracy_interval=interval)


def _of_test_images(mean_of_last: dict[str, Any], final: dict[str, Any]) -> SetNumbers:
    return SetNumbers(
        top1=mean_of_last.get("top1"),
        top5=mean_of_last.get("top5"),
        top1_final=final.get("top1"),
        top5_final=final.get("top5"),
    )


def write_records(records: Iterable[Record], path: Path) -> None:
    """Write ``records`` as the JSON file ``path``, a run a line."""
    lines = [json.dumps(r.model_dump(mode="json", exclude_defaults=True)) for r in records]
    with written_beside(path) as beside:
        runs = ",\n".join(lines)
        beside.write_text(f'{{"format": 1, "runs": [\n{runs}\n]}}\n', encoding="utf-8")


def read_records(path: Path) -> list[Record]:
    """Return the records of a file of ``write_records``; ValueError where it is another file."""
    try:
        return list(Records.model_validate_json(path.read_bytes()).runs)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(
            f"{path} is not a study's file of its runs: {where}: {first['msg']}. Give the JSON "
            "file that a study wrote beside its tables, or the folder of the runs."
        ) from error
