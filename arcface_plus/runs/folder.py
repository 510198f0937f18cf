"""The folder of a run: what is in it, and when an old one may be used again."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from arcface_plus import __version__
from arcface_plus.checkpoints.reading import read_state
from arcface_plus.checkpoints.store import Checkpoints, Choice
from arcface_plus.distributed import World, barrier, broadcast_object
from arcface_plus.randomness import changed_streams
from arcface_plus.runs.configuration import RunConfig
from arcface_plus.settings import Section

FINISHED = "model.safetensors"
START = "start.safetensors"  # the net that a run began with, where model.init is a file
LOCK = ".lock"  # stays in the folder, whether or not it is locked
_PACKAGES = ("torch", "torchvision", "numpy", "opencv-python", "scikit-learn", "safetensors")


# A run may be resumed only with the settings of these sections unchanged but for the ones named:
# they decide what step k computes.
_FREE: dict[str, set[str]] = {
    "data": {"path", "workers", "timeout", "on_bad_image", "quarantine_limit"},
    "model": {"init", "weights", "checkpoint_gradients"},  # weights: what init was called before
    "head": {"class_chunk", "init", "from_head", "from_names"},
    "regularizer": set(),
    "branch": set(),
    "train": {
        "steps", "device", "log_every", "wandb", "checkpoint_every", "keep_checkpoints", "keep_every",
        "on_nonfinite", "nonfinite_limit", "channels_last", "deterministic", "best", "patience",
        "timeout", "compile", "gradient_compression",
    },
    "optim": set(),
    "schedule": set(),
}  # fmt: skip


def choose_together(
    config: RunConfig, checkpoints: Checkpoints, *, resume: str, overwrite: bool
) -> Choice:
    """Return what rank 0 chooses (``choose_start``), checked to be resumable; the same on all ranks.

    File systems show ranks different folders, so that the others must not look for themselves.
    """
    answer: Choice | Exception = Choice(None)
    if checkpoints.world.is_main:
        try:
            answer = choose_start(config, checkpoints, resume=resume, overwrite=overwrite)
            if answer.step is not None:
                check_resumable(checkpoints.path(answer.step), config)
        except (ValueError, OSError) as error:
            answer = error
    answer = broadcast_object(answer, checkpoints.world.control)
    if isinstance(answer, Exception):
        raise answer
    return answer


def choose_start(
    config: RunConfig, checkpoints: Checkpoints, *, resume: str, overwrite: bool
) -> Choice:
    """Return the checkpoint step to continue from, or None to start anew; change nothing.

    ``resume``: ``never``, ``auto`` (the newest whole one of ``checkpoints``; a run that was
    interrupted before its first checkpoint starts anew) or a checkpoint folder of this run. Raises
    ValueError where that would overwrite a run without being asked, or no checkpoint is whole.
    """
    folder = config.folder
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another --name or --output.")
    used = folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())
    if overwrite:
        if resume != "never":
            raise ValueError(f"--overwrite starts over, --resume {resume} continues: give one.")
        if used and not is_run(folder):
            raise ValueError(
                f"{folder} is not the folder of a run (it lacks config.yaml or environment.json), "
                "so --overwrite will not remove it; choose another --name or --output."
            )
        return Choice(None)
    steps = checkpoints.steps()
    newest = checkpoints.newest_whole() if resume == "auto" else Choice(None)
    interrupted = is_run(folder) and not (folder / FINISHED).exists()
    nothing = resume == "auto" and newest.step is None
    if resume == "never" or (nothing and used and not interrupted):
        if used:
            state = f"a run with checkpoints up to step {steps[-1]}" if steps else "files"
            raise ValueError(
                f"{folder} already holds {state}. "
                + ("Continue it with --resume auto, start" if steps else "Start")
                + " over with --overwrite, or choose another --name."
            )
        return Choice(None)
    return newest if resume == "auto" else Choice(_named(resume, checkpoints, steps))


def _named(resume: str, checkpoints: Checkpoints, steps: list[int]) -> int:
    """Return the step of the checkpoint folder ``resume`` of this run."""
    known = {checkpoints.path(step).resolve(): step for step in steps}
    step = known.get(Path(resume).resolve())
    if step is None:
        raise ValueError(
            f"--resume {resume} is not a whole checkpoint of this run; {checkpoints.folder} holds: "
            f"{', '.join(path.name for path in known) or 'none'}. To start a new run from other "
            "weights, set --model.init."
        )
    return step


def check_resumable(path: Path, config: RunConfig) -> None:
    """Raise ValueError where ``path`` was saved with settings that make another step k."""
    state = read_state(path)
    if streams := changed_streams(state.get("random_streams", {})):
        raise ValueError(
            f"{path} was saved by a release that drew other random numbers (stream "
            f"{'; '.join(streams)}): the run would not continue as it began. Resume it with the "
            "release that its environment.json names, or start a run of another --name."
        )
    saved = state["config"]
    now = config.model_dump(mode="json")
    free = {section: set(keys) for section, keys in _FREE.items()}
    if config.schedule.kind != "milestones":
        free["train"].discard("steps")  # the rate of every step depends on how many there are
    changed = [f"seed: {saved['seed']} → {now['seed']}"] if saved["seed"] != now["seed"] else []
    for section, keys in free.items():
        before = _with_defaults(type(getattr(config, section)), saved.get(section, {}))
        for key, value in before.items():
            if key not in keys and now[section].get(key) != value:
                changed.append(f"{section}.{key}: {value!r} → {now[section].get(key)!r}")
    if changed:
        raise ValueError(
            f"{path} was saved by a run with other settings: {'; '.join(changed)}. Resume with "
            "those, or start a run of another --name (model.init starts it from these weights)."
        )


def _with_defaults(kind: type[Section], saved: dict[str, Any]) -> dict[str, Any]:
    """Return ``saved`` settings with the defaults, at any depth, of those that came after them."""
    known = {key: value for key, value in saved.items() if key in kind.model_fields}
    return saved | kind.model_validate(known).model_dump(mode="json")


def is_run(folder: Path) -> bool:
    """Return whether ``folder`` is that of a run, and not somebody's with a config.yaml."""
    return (folder / "config.yaml").is_file() and (folder / "environment.json").is_file()


def _set_newer_aside(checkpoints: Path, start: int) -> None:
    """Move the checkpoints after ``start`` into a folder beside them, before a run resumes there.

    They would count as the newest: rotation would remove what the run saves from now on, and
    ``auto`` would continue the branch that was left.
    """
    steps = {p: p.name.removeprefix("step-") for p in checkpoints.glob("step-*")}
    newer = [p for p, step in steps.items() if step.isdecimal() and int(step) > start]
    if not newer:
        return
    number = 1
    while (aside := checkpoints / f"left-branch-{number}").exists():
        number += 1
    aside.mkdir()
    for path in newer:
        path.rename(aside / path.name)


def _empty(folder: Path) -> None:
    """Remove everything in ``folder`` but its lock, which this run holds."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def prepare(config: RunConfig, world: World, *, start: int | None, overwrite: bool) -> None:
    """Make the folder this run's own, with ``config.yaml``, ``environment.json`` and a README.

    Where a run resumes from an older checkpoint, the newer ones are set aside. Called by all ranks
    together.
    """
    barrier(world.control)  # no rank may still be looking at a folder that rank 0 removes
    if world.is_main:
        folder = config.folder
        if overwrite and folder.is_dir():
            _empty(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        name = "environment.json" if start is None else f"environment-resumed-{start:08d}.json"
        (folder / name).write_text(json.dumps(environment(world), indent=1), encoding="utf-8")
        if start is not None:
            _set_newer_aside(folder / "checkpoints", start)
        (folder / "README.md").write_text(_README.format(name=config.name), encoding="utf-8")
    barrier(world.control)


def environment(world: World | None = None) -> dict[str, Any]:
    """Return what a result depends on besides its configuration: versions, revision, machine."""
    found: dict[str, Any] = {
        "arcface_plus": __version__,
        "revision": _revision(),
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu": {"capability": torch.backends.cpu.get_cpu_capability(), "count": os.cpu_count()},
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        found["cuda"] = {
            "version": torch.version.cuda,
            "devices": [*map(torch.cuda.get_device_name, range(torch.cuda.device_count()))],
        }
    if world is not None:
        found["world_size"], found["device"] = world.size, str(world.device)
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """Return the git revision of this source tree, with + where it has changes; None elsewhere."""
    root = Path(__file__).resolve().parents[2]
    # Named, so that git does not look in the folders above for a repository.
    git = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    words = ["describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+"]
    try:
        done = subprocess.run([*git, *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


# ruff: noqa: E501  (rows of a table)
_README = """# Run {name}

| file | what it is |
|---|---|
| `model.safetensors` | the trained net, with its architecture and preprocessing: `arcface_plus.load_model("…/{name}")` |
| `start.safetensors` | of runs with `model.init`: the net that it began with; resuming needs no other file |
| `teacher.npy`, `compatible_with.npy` | of runs with `train.teacher`, `train.compatible_with`: the other net's embeddings of the training images, with `.rows.npz` |
| `classes.txt` | what class c is called, on line c + 1, where the data says |
| `verification.json` | accuracy on the held-out pairs, next to what needs no training |
| `report.html` | the same with curves and the hardest pairs; open it in a browser |
| `accuracy.json`, `classifier.safetensors` | of runs scored on test images: top-1 and top-5, smallest angle of every layer; the last layer's weights |
| `metrics.jsonl` | a line a log step: loss, MMA, angles, learning rate, speed |
| `tensorboard/` | the same numbers: `tensorboard --logdir <this folder>` |
| `checkpoints/` | whole states of the run; `--resume auto` continues from the newest whole one |
| `config.yaml` | every setting of the run; train again with `arcface-plus train config.yaml --name other` |
| `environment.json` | versions, source revision, machine, command |
| `requeue` | there while the run was asked to stop before its end: `--resume auto` continues it |
| `quarantine-rank*.jsonl` | images that could not be read, if any |
"""
