"""The runs behind a study's table: which there are, and training those that are missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from arcface_plus.runs.configuration import RunConfig
    from arcface_plus.studies.tables.accuracy_rows import Row

# Of a command whose further options are settings of every run.
TAKES_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}

# Settings that say where and how fast a run is, not what comes out of it.
_PLACES = {
    ("output",),
    ("data", "path"),
    ("data", "workers"),
    ("train", "log_every"),
    ("train", "checkpoint_every"),
    ("train", "keep_checkpoints"),
}


class Run(NamedTuple):
    """A run of a study: its name, its configuration, and the settings that differ from it."""

    name: str
    config: Path
    overrides: Sequence[str]


def runs_of_rows(rows: Iterable[Row], configs: Path, seeds: Sequence[int]) -> list[Run]:
    """Return a run for each row and seed.

    Seed by seed: an interrupted study has whole comparisons, not whole rows.
    """
    from arcface_plus.studies.tables.accuracy_tables import run_name

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
    wanted: Iterable[Run], runs: Path, result: str, overrides: Sequence[str]
) -> None:
    """Train (or continue) those of ``wanted`` without ``runs/NAME/result``, one after the other.

    Raises ValueError, before any is trained, where a finished one had other settings.
    """
    from arcface_plus.runs.configuration import load_config
    from arcface_plus.runs.train import train

    unfinished = []
    for run in wanted:
        words = [*run.overrides, "--name", run.name, "--output", str(runs), *overrides]
        config = load_config(run.config, words)
        if (runs / run.name / result).is_file():
            _check_same(runs / run.name, config)
        else:
            unfinished.append((run, words))
    for run, words in unfinished:
        train(run.config, words, resume="auto")


def _check_same(folder: Path, wanted: RunConfig) -> None:
    """Raise ValueError where the finished run in ``folder`` is not the one that is wanted."""
    from arcface_plus.runs.configuration import load_config

    done = load_config(folder / "config.yaml").model_dump(mode="json")
    now = wanted.model_dump(mode="json")
    changed = [
        f"{'.'.join(key)}: {value!r} → {after!r}"
        for key, value, after in _differences(done, now)
        if key not in _PLACES
    ]
    if changed:
        raise ValueError(
            f"{folder} was trained with other settings: {'; '.join(changed)}. Ask for those, "
            "remove the folder, or choose another folder of runs."
        )


def _differences(
    done: dict[str, Any], now: dict[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    for key in {**done, **now}:
        before, after = done.get(key), now.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, (*path, key))
        elif before != after:
            yield (*path, key), before, after


def settings_need_training(settings: Sequence[str], *, train: bool) -> None:
    """Raise ValueError where settings of runs are given, but none would be trained."""
    if settings and not train:
        raise ValueError(f"{' '.join(settings)} would change runs, but without --train none runs.")


def whole_numbers(text: str) -> list[int]:
    """Return the numbers of ``1,2,3``; ValueError where one is none."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} must be whole numbers separated by commas.") from None
