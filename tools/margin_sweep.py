"""Train the sweep of margins m0 … m3 (Table 3 of the margin softmax paper) and make its table.

python tools/margin_sweep.py configs/casia_r50_arcface.yaml --output runs/sweep
       [--series amp sphere arc cos] [--wc-relu paper|on|off|both] [--list] [--train.steps 2000 …]

Each run is a folder under --output; finished ones are kept and interrupted ones go on, so the same
command continues a sweep. Settings after these go to every run. --list shows each run's command
instead, for a cluster; once those are done, the same call without --list makes the table.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from arcface_plus.cli.study.runs import (
    Run,
    train_unfinished,
)
from arcface_plus.runs.results import VERIFICATION
from arcface_plus.studies.tables.margin_sweep import (
    TABLE3,
    WC_RELU,
    SweepRun,
    read_accuracies,
    sweep_runs,
    write_sweep,
)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--series", nargs="+", choices=list(TABLE3), default=list(TABLE3))
    parser.add_argument("--wc-relu", choices=WC_RELU, default="paper")
    parser.add_argument("--list", action="store_true", help="show commands, train nothing")
    known, overrides = parser.parse_known_args(words)
    runs = sweep_runs(known.series, known.wc_relu)
    if known.list:
        for run in runs:
            settings = run_words(run, known.output, overrides)
            command = ["tools/train.py", str(known.config), *settings, "--resume", "auto"]
            print("torchrun --nproc_per_node=8 " + shlex.join(command))
        return 0
    try:
        wanted = [Run(run.name, known.config, run.overrides()) for run in runs]
        train_unfinished(wanted, known.output, VERIFICATION, overrides)
        results = {run.name: read_accuracies(known.output / run.name) or {} for run in runs}
        for path in write_sweep(known.output, runs, results):
            print(path)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def run_words(run: SweepRun, output: Path, overrides: Sequence[str]) -> list[str]:
    return [*run.overrides(), "--output", str(output), *overrides]


if __name__ == "__main__":
    sys.exit(main())
