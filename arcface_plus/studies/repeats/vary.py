"""``arcface-plus repeat``: any configuration, some settings varied, some seeds, one table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from arcface_plus.studies.figure import check_drawable
from arcface_plus.studies.repeats.comparison import Comparison, known_measures
from arcface_plus.studies.repeats.output import write_comparison
from arcface_plus.studies.repeats.records import read_runs
from arcface_plus.studies.repeats.runs import Row, Run, runs_of_rows
from arcface_plus.studies.repeats.training import Training, check_trained, train_unfinished

RUNS = "runs"  # the folder of the runs, in that of the tables


class Variation(NamedTuple):
    """A setting and the values it takes, each as it is written on the command line."""

    setting: str
    values: tuple[str, ...]


def parse_variation(text: str) -> Variation:
    """Return the setting and values of ``head.mma_weight=0,0.03``.

    Values are YAML, as those of overrides; commas inside of brackets, braces and quotes belong to
    a value. Raises ValueError for other text, and where a value stands twice.
    """
    setting, equals, listed = text.partition("=")
    try:
        node = yaml.compose(f"[{listed}]", Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"--vary {text}: the values are not YAML: {error}") from error
    assert isinstance(node, yaml.SequenceNode)  # of the brackets
    inside = f"[{listed}]"
    values = [inside[item.start_mark.index : item.end_mark.index].strip() for item in node.value]
    if not setting or not equals or not values:
        raise ValueError(
            f"--vary {text!r} must be a setting and its values: head.mma_weight=0,0.03"
        )
    if len(set(values)) < len(values):
        raise ValueError(f"--vary {text}: a value stands twice.")
    return Variation(setting.removeprefix("--"), tuple(values))


def seed_list(text: str) -> list[int]:
    """Return the seeds of a count, ``3`` for 1, 2, 3, or of a list, ``1,5,7`` (``7,`` for one).

    Raises ValueError for other text, none at all, and a seed twice.
    """
    try:
        words = [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        words = []
    seeds = words if "," in text else list(range(1, sum(words) + 1))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(
            f"--seeds {text!r} must be how many (3 for 1, 2, 3) or which, each once (1,5,7)."
        )
    return seeds


def varied_rows(config: Path, variations: Sequence[Variation]) -> list[Row]:
    """Return a row for each combination of the values, the last setting
    changing fastest.

    Without variations there is one row, the configuration. Raises ValueError for a setting that is
    varied twice, and for values whose runs would have one name.
    """
    if config.suffix != ".yaml":
        raise ValueError(f"{config} must be a YAML file, NAME.yaml.")
    settings = [variation.setting for variation in variations]
    if len(set(settings)) < len(settings):
        raise ValueError(f"--vary names a setting twice: {', '.join(settings)}.")
    rows = []
    for values in itertools.product(*(variation.values for variation in variations)):
        pairs = list(zip(settings, values, strict=True))
        words = tuple(f"--{s}={value}" for s, value in pairs)
        suffix = "".join(f"-{s}-{re.sub(r'[^A-Za-z0-9.-]+', '_', value)}" for s, value in pairs)
        label = ", ".join(f"{s}={value}" for s, value in pairs) or config.stem
        rows.append(Row(label, config.stem, words, suffix))
    if len({row.suffix for row in rows}) < len(rows):
        raise ValueError(f"{config.stem}: two of the values would give runs one name.")
    return rows


def runs_of(config: Path, variations: Sequence[Variation], seeds: Sequence[int]) -> list[Run]:
    """Return the runs of a repeat, seed by seed."""
    return runs_of_rows(varied_rows(config, variations), config.parent, seeds)


def repeat(
    wanted: Sequence[Run],
    output: Path,
    how: Training,
    *,
    measures: Sequence[str] = (),
    reference: str = "",
) -> str:
    """Train those of ``wanted`` that are unfinished in ``output/runs``, then write the tables.

    Writes ``output/repeat`` .md, .tex, .csv, .json, .svg and .png; returns the Markdown.
    ``measures``: by default accuracy and AUC, top-1 and top-5. ``reference``: the label of the row
    to compare with, by default the first. Raises ValueError as ``unfinished_of`` and for names that
    are not known, ChildProcessError where runs broke down.
    """
    labels = list(dict.fromkeys(run.label for run in wanted))
    reference, measures = reference or labels[0], known_measures(measures)
    Comparison(labels, [], reference)  # hours before it is needed, as the figure's package
    check_drawable()
    failures = train_unfinished(wanted, output / RUNS, how)
    comparison = Comparison(labels, read_runs(wanted, output / RUNS), reference)
    if not comparison.all_records:
        check_trained(failures)
    text = write_comparison(comparison, comparison.chosen_measures(measures), output, "repeat")
    check_trained(failures)
    return text
