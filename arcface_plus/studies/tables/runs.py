"""The runs behind a table: which there are, and training those that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arcface_plus.runs.configuration import RunConfig, load_config
from arcface_plus.runs.train import train as run_training

# Settings that say where and how fast a run is, not what comes out of it.
_PLACES = {
    "output",
    "data.path",
    "data.workers",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
}


class Row(NamedTuple):
    """A row of a table: its label, its runs' configuration and overrides, the paper's numbers."""

    label: str
    config: str
    overrides: tuple[str, ...] = ()
    suffix: str = ""
    paper: tuple[float | None, ...] = (None, None)

    @property
    def name(self) -> str:
        """Name of the runs of this row, before the seed."""
        return self.config + self.suffix


class Run(NamedTuple):
    """A run of a study: its name, its configuration, and the settings that differ from it."""

    name: str
    config: Path
    overrides: Sequence[str]


def run_name(row: Row, seed: int) -> str:
    """Return the name of the run of ``row`` with ``seed``."""
    return f"{row.name}-seed{seed}"


def runs_of_rows(rows: Iterable[Row], configs: Path, seeds: Sequence[int]) -> list[Run]:
    """Return a run for each row and seed.

    Seed by seed: an interrupted study has whole comparisons, not whole rows.
    """
    return [
        Run(
            run_name(row, seed),
            configs / f"{row.config}.yaml",
            [*row.overrides, "--seed", str(seed)],
        )
        for seed in seeds
        for row in rows
    ]


def train_unfinished(
    wanted: Iterable[Run], runs: Path, result: str, overrides: Sequence[str], *, train: bool = True
) -> None:
    """Train (or continue) those of ``wanted`` without ``runs/NAME/result``, one after the other.

    Without ``train`` none is. Raises ValueError, before any is trained, where a finished one had
    other settings, or where there are ``overrides`` and no training.
    """
    if not train:
        if overrides:
            raise ValueError(
                f"{' '.join(overrides)} would change runs, but without --train none runs."
            )
        return
    unfinished = []
    for run in wanted:
        words = [*run.overrides, "--name", run.name, "--output", str(runs), *overrides]
        config = load_config(run.config, words)
        if (runs / run.name / result).is_file():
            _check_same(runs / run.name, config)
        else:
            unfinished.append((run, words))
    for run, words in unfinished:
        run_training(run.config, words, resume="auto")


def _check_same(folder: Path, wanted: RunConfig) -> None:
    """Raise ValueError where the finished run in ``folder`` is not the one that is wanted."""
    both = (load_config(folder / "config.yaml"), wanted)
    done, now = (_settings(config.model_dump(mode="json")) for config in both)
    changed = [
        f"{key}: {done.get(key)!r} → {now.get(key)!r}"
        for key in {**done, **now}
        if done.get(key) != now.get(key) and key not in _PLACES
    ]
    if changed:
        raise ValueError(
            f"{folder} was trained with other settings: {'; '.join(changed)}. Ask for those, "
            "remove the folder, or choose another folder of runs."
        )


def _settings(part: Any, name: str = "") -> dict[str, Any]:
    """Return every setting by its whole name, such as ``head.margin.m2``."""
    if not isinstance(part, dict):
        return {name.removesuffix("."): part}
    return {k: v for key in part for k, v in _settings(part[key], f"{name}{key}.").items()}
