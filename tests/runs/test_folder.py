"""The folder of a run: when it may be used again, and what is put into it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from arcface_plus.checkpoints.reading import fingerprint
from arcface_plus.checkpoints.store import Checkpoints
from arcface_plus.data.settings import DataConfig
from arcface_plus.distributed import World
from arcface_plus.runs import folder as run_folder
from arcface_plus.runs.configuration import RunConfig, load_config
from arcface_plus.runs.folder import choose_start, choose_together, environment, prepare

WORLD = World(rank=0, size=2, device=torch.device("cpu"))


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return RunConfig(
        name="a", output=tmp_path / "runs", data=DataConfig(source="synthetic", num_classes=2)
    )


def begin(config: RunConfig, *steps: int, finished: bool = False) -> list[int]:
    """Make the folder of a run with checkpoints of ``steps``."""
    prepare(config, WORLD, start=None, overwrite=False)
    for step in steps:
        folder = config.folder / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        files = {}
        for name in (".metadata", "state.json"):
            (folder / name).write_text("{}")
            files[name] = fingerprint(folder / name)
        (folder / "manifest.json").write_text(json.dumps({"files": files}))
    if finished:
        (config.folder / run_folder.FINISHED).write_bytes(b"weights")
    return sorted(steps)


def start(config: RunConfig, steps: list[int], resume: str = "never", overwrite: bool = False):
    checkpoints = Checkpoints(config.folder / "checkpoints", WORLD)
    assert checkpoints.steps() == steps
    return choose_start(config, checkpoints, resume=resume, overwrite=overwrite).step


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# -- choosing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resume", "overwrite"), [("never", False), ("auto", False), ("never", True)]
)
def test_a_new_run(config, resume, overwrite):
    assert start(config, [], resume, overwrite) is None
    config.folder.mkdir(parents=True)
    assert start(config, [], resume, overwrite) is None  # an empty folder is as good as none
    assert not list(config.folder.iterdir())


def test_auto_takes_the_newest_checkpoint(config):
    assert start(config, begin(config, 5, 10), "auto") == 10


def test_auto_starts_over_what_was_interrupted_before_its_first_checkpoint(config):
    assert start(config, begin(config), "auto") is None


@pytest.mark.parametrize("steps", [(), (5, 10)])
@pytest.mark.parametrize("finished", [False, True])
def test_never_refuses_every_folder_in_use(config, steps, finished):
    known = begin(config, *steps, finished=finished)
    before = contents(config.folder)
    with pytest.raises(ValueError, match="already holds") as caught:
        start(config, known, "never")
    assert ("--resume auto" in str(caught.value)) == bool(steps)
    assert "--overwrite" in str(caught.value) and "--name" in str(caught.value)
    assert contents(config.folder) == before


def test_auto_does_not_start_over_a_finished_run(config):
    with pytest.raises(ValueError, match="already holds files"):
        start(config, begin(config, finished=True), "auto")


@pytest.mark.parametrize("resume", ["never", "auto"])
def test_files_that_are_no_run_are_left_alone(config, resume):
    config.folder.mkdir(parents=True)
    (config.folder / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="already holds files"):
        start(config, [], resume)


@pytest.mark.parametrize("steps", [(), (5, 10)])
def test_overwrite_starts_over(config, steps):
    assert start(config, begin(config, *steps, finished=True), overwrite=True) is None


@pytest.mark.parametrize("kept", [None, "config.yaml", "environment.json"])
def test_overwrite_removes_nothing_but_runs(config, kept):
    """A folder with a config.yaml may be anybody's."""
    config.folder.mkdir(parents=True)
    (config.folder / "thesis.tex").write_text("x")
    if kept:
        (config.folder / kept).write_text("{}")
    with pytest.raises(ValueError, match="is not the folder of a run"):
        start(config, [], overwrite=True)
    assert (config.folder / "thesis.tex").exists()


@pytest.mark.parametrize("resume", ["auto", "runs/a/checkpoints/step-00000005"])
def test_overwrite_and_resume_contradict_each_other(config, resume):
    """A job that is started again with both would lose its progress each time."""
    with pytest.raises(ValueError, match="give one"):
        start(config, begin(config, 5), resume, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_where_the_folder_should_be(config, overwrite):
    config.output.mkdir()
    config.folder.write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        start(config, [], overwrite=overwrite)


def test_auto_takes_the_newest_whole_checkpoint_and_says_what_it_skips(config, monkeypatch):
    begin(config, 5, 10, 15, 20)
    checkpoints = config.folder / "checkpoints"
    (checkpoints / ".tmp-step-00000025").mkdir()
    (checkpoints / "step-00000020" / "manifest.json").unlink()
    (checkpoints / "step-00000015" / "state.json").write_text("[]")
    (checkpoints / "step-00000010" / ".metadata").unlink()
    monkeypatch.setattr(run_folder, "check_resumable", lambda path, config: None)
    chosen = choose_together(
        config, Checkpoints(checkpoints, WORLD), resume="auto", overwrite=False
    )
    assert chosen.step == 5
    said = [r"step-00000025 was not finished", r"step-00000020 .*manifest\.json is missing"]
    said += [r"step-00000015: state\.json is damaged", r"step-00000010: \.metadata is missing"]
    assert len(chosen.skipped) == 4
    for words, line in zip(said, chosen.skipped, strict=True):
        assert re.search(words, line) and line.startswith("skipped: "), line


def test_auto_does_not_start_over_where_no_checkpoint_is_whole(config):
    begin(config, 5, 10)
    for step in (5, 10):
        (config.folder / "checkpoints" / f"step-{step:08d}" / "state.json").write_text("[]")
    with pytest.raises(ValueError, match=r"no checkpoint .* is whole: .*10.*damaged.*05.*damaged"):
        start(config, [5, 10], "auto")


def test_a_named_checkpoint(config, monkeypatch):
    steps = begin(config, 5, 10)
    path = config.folder / "checkpoints" / "step-00000005"
    assert start(config, steps, str(path)) == 5
    assert start(config, steps, f"{path}/") == 5
    monkeypatch.chdir(config.folder)
    assert start(config, steps, "checkpoints/step-00000005") == 5


@pytest.mark.parametrize(
    "resume",
    [
        "checkpoints/step-00000007",
        "checkpoints",
        "step-00000005",
        "checkpoints/00000005",
        "checkpoints/step-5",
        "checkpoints/step-²",
        "backup/step-00000005",
        "../b/checkpoints/step-00000005",
        "",
    ],
)
def test_what_is_no_checkpoint_of_this_run(config, resume):
    steps = begin(config, 5, 10)
    (config.folder / "backup" / "step-00000005").mkdir(parents=True)
    with pytest.raises(ValueError, match="not a whole checkpoint of this run") as caught:
        start(config, steps, str(config.folder / resume))
    assert "step-00000005, step-00000010" in str(caught.value)


def test_no_checkpoint_at_all(config):
    with pytest.raises(ValueError, match="holds: none"):
        start(config, begin(config), str(config.folder / "checkpoints" / "step-00000005"))


# -- preparing -----------------------------------------------------------------------------------


def test_what_a_run_folder_holds(config):
    prepare(config, WORLD, start=None, overwrite=False)
    assert {p.name for p in config.folder.iterdir()} == {
        "config.yaml",
        "environment.json",
        "README.md",
    }
    assert load_config(config.folder / "config.yaml") == config
    found = json.loads((config.folder / "environment.json").read_text())
    assert (
        found["world_size"] == 2 and found["packages"]["torch"] == torch.__version__.split("+")[0]
    )
    assert (config.folder / "README.md").read_text().startswith("# Run a\n")


def test_overwrite_removes_the_old_run(config):
    begin(config, 5, finished=True)
    prepare(config, WORLD, start=None, overwrite=True)
    assert not (config.folder / "checkpoints").exists()
    assert not (config.folder / run_folder.FINISHED).exists()


def test_resumed_run_keeps_what_the_first_one_wrote(config):
    begin(config, 5, 10)
    first = (config.folder / "environment.json").read_bytes()
    prepare(config, WORLD, start=10, overwrite=False)
    assert (config.folder / "environment.json").read_bytes() == first
    assert (config.folder / "environment-resumed-00000010.json").is_file()
    steps = {p.name for p in (config.folder / "checkpoints").iterdir()}
    assert steps == {"step-00000005", "step-00000010"}


def test_going_on_from_an_older_checkpoint_sets_the_newer_ones_aside(config):
    """Else rotation would remove what is saved next, and auto would continue the other branch."""
    begin(config, 5, 10, 15)
    (config.folder / "checkpoints" / ".tmp-step-00000020").mkdir()
    prepare(config, WORLD, start=5, overwrite=False)
    checkpoints = config.folder / "checkpoints"
    assert [p.name for p in checkpoints.glob("step-*")] == ["step-00000005"]
    assert {p.name for p in (checkpoints / "left-branch-1").iterdir()} == {
        "step-00000010",
        "step-00000015",
    }
    assert (checkpoints / "left-branch-1" / "step-00000010" / "manifest.json").is_file()
    (checkpoints / "step-00000010").mkdir()
    prepare(config, WORLD, start=5, overwrite=False)  # and once more
    assert [p.name for p in (checkpoints / "left-branch-2").iterdir()] == ["step-00000010"]


def test_environment_is_plain_json(monkeypatch):
    monkeypatch.setattr("sys.argv", ["arcface-plus", "train", "x.yaml"])
    found = json.loads(json.dumps(environment()))
    assert found["command"] == ["arcface-plus", "train", "x.yaml"]
    assert found["threads"] == torch.get_num_threads() and "world_size" not in found
    assert set(found["packages"]) >= {"torch", "numpy", "opencv-python"}


def test_package_that_is_absent_has_no_version(monkeypatch):
    monkeypatch.setattr(run_folder, "_PACKAGES", ("torch", "surely-not-installed"))
    assert environment()["packages"]["surely-not-installed"] is None


def test_revision_without_git(monkeypatch):
    def no_git(*words, **settings):
        raise FileNotFoundError("git")

    monkeypatch.setattr(run_folder.subprocess, "run", no_git)
    assert environment()["revision"] is None
