"""The runs behind a table: which there are, and which of them still have to be trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from arcface_plus.runs.configuration import RunConfig, load_config
from arcface_plus.runs.results import ACCURACY, VERIFICATION
from arcface_plus.settings import load_section

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
    """A run of a study: the row it belongs to, its name, its configuration, what differs from it.

    ``seed`` is None where the study has one run a row, with the configuration's own.
    """

    label: str
    name: str
    config: Path
    overrides: Sequence[str] = ()
    seed: int | None = None


class Unfinished(NamedTuple):
    """A run to train: its folder, its configuration, every override, the files it will leave."""

    folder: Path
    config: Path
    words: list[str]
    results: tuple[str, ...]

    @property
    def finished(self) -> bool:
        return all((self.folder / name).is_file() for name in self.results)


def runs_of_rows(rows: Iterable[Row], configs: Path, seeds: Sequence[int]) -> list[Run]:
    """Return a run for each row and seed.

    Seed by seed: an interrupted study has whole comparisons, not whole rows.
    """
    return [
        Run(
            row.label,
            f"{row.name}-seed{seed}",
            configs / f"{row.config}.yaml",
            [*row.overrides, "--seed", str(seed)],
            seed,
        )
        for seed in seeds
        for row in rows
    ]


def unfinished_of(
    wanted: Iterable[Run], runs: Path, overrides: Sequence[str] = ()
) -> list[Unfinished]:
    """Return those of ``wanted`` that have not ended in ``runs``, with ``overrides`` for all.

    Raises ValueError, before anything is trained, where a finished run had other settings, where
    two rows have the same, where a run would measure nothing, and for settings of the study's own.
    """
    unfinished: list[Unfinished] = []
    rows: dict[str, str] = {}
    for run in wanted:
        words = [*run.overrides, "--name", run.name, "--output", str(runs), *overrides]
        config = load_config(run.config, words)
        if config.folder != runs / run.name or run.seed not in (None, config.seed):
            raise ValueError(
                f"{' '.join(overrides)} would change name, output or seed, which the study gives "
                "its runs; leave them out (the seeds of a study are its option --seeds)."
            )
        # Without seeds a study may name one run twice: a margin of 0 begins two series of a sweep.
        same = run.label if run.seed is None else rows.setdefault(settings_hash(config), run.label)
        if same != run.label:
            raise ValueError(
                f"The rows {same!r} and {run.label!r} have the same settings"
                + (f" (with {' '.join(overrides)})" if overrides else "")
                + "; let them differ, or leave one out."
            )
        one = Unfinished(config.folder, run.config, words, results_of(config))
        if one.finished:
            _check_same(config.folder, config)
        else:
            unfinished.append(one)
    return unfinished


def results_of(config: RunConfig) -> tuple[str, ...]:
    """Return the names of the files with which a run of ``config`` ends."""
    wanted = config.evaluation
    files = {ACCURACY: wanted.accuracy, VERIFICATION: bool(wanted.sets)}
    if not any(files.values()):
        raise ValueError(
            f"{config.name} measures nothing to tabulate; give it --evaluation.sets (pairs) or "
            "--evaluation.accuracy true (test images)."
        )
    return tuple(name for name, holds in files.items() if holds)


def finished_config(folder: Path) -> RunConfig:
    """Return the configuration of the run in ``folder``, which an earlier release may have trained.

    What was null and is no setting any more is left out. Errors as those of ``load_config``.
    """

    def without_gone(values: dict[str, Any]) -> None:
        for name, section in values.items():
            field = RunConfig.model_fields.get(name)
            known = getattr(field and field.annotation, "model_fields", {})
            if isinstance(section, dict):
                for gone in [k for k, v in section.items() if v is None and k not in known]:
                    del section[gone]

    return load_section(RunConfig, folder / "config.yaml", resolve=without_gone)


def settings_hash(config: RunConfig) -> str:
    """Return 16 hex digits that runs share whose results may differ by their seed alone.

    Name, seed, places and what is at its default do not count: neither another folder nor a
    setting that a later release adds makes another hash.
    """
    changed = _settings(config.model_dump(mode="json", exclude_defaults=True))
    counted = {k: v for k, v in changed.items() if k not in _PLACES | {"name", "seed"}}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16]


def _check_same(folder: Path, wanted: RunConfig) -> None:
    """Raise ValueError where the finished run in ``folder`` is not the one that is wanted."""
    both = (finished_config(folder), wanted)
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
