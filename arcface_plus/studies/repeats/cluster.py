"""The unfinished runs of a study as commands: one a line, or the script of a SLURM array."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from arcface_plus.studies.repeats.runs import Run, unfinished_of

TRAIN = ("arcface-plus", "train")
TRAIN_ON_EIGHT_GPUS = ("torchrun", "--nproc_per_node=8", "tools/train.py")

_SCRIPT = """\
#!/usr/bin/env bash
# {count} runs of one study, one a task:  sbatch THIS_FILE  (--array=0-{last}%4: four at a time)
# A task that is started again continues its run from the newest checkpoint.
#SBATCH --job-name=arcface_plus
#SBATCH --array=0-{last}
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

case "${{SLURM_ARRAY_TASK_ID:?start it with sbatch}}" in
{cases}
  *) echo "there is no run $SLURM_ARRAY_TASK_ID, the last is {last}" >&2; exit 2 ;;
esac
"""


def commands(
    wanted: Iterable[Run],
    runs: Path,
    overrides: Sequence[str],
    launcher: Sequence[str] = TRAIN,
) -> list[str]:
    """Return the command that trains (or continues) each of ``wanted`` that has not ended.

    Raises ValueError as ``unfinished_of``.
    """
    return [
        shlex.join([*launcher, str(run.config), *run.words, "--resume", "auto"])
        for run in unfinished_of(wanted, runs, overrides)
    ]


def slurm_script(lines: Sequence[str]) -> str:
    """Return the script of a SLURM array, a task for each command of ``lines``."""
    if not lines:
        raise ValueError("Every run is finished: there is nothing to give to sbatch.")
    cases = "\n".join(f"  {i}) exec {line} ;;" for i, line in enumerate(lines))
    return _SCRIPT.format(count=len(lines), last=len(lines) - 1, cases=cases)
