from __future__ import annotations

from pathlib import Path

import pytest

from arcface_plus.runs.imports.python_config import read_assignments

FRAME = "from easydict import EasyDict as edict\nconfig = edict()\n"


def write(tmp_path: Path, code: str) -> Path:
    path = tmp_path / "theirs.py"
    path.write_text(FRAME + code, encoding="utf-8")
    return path


def test_values_are_those_that_python_assigns(tmp_path: Path) -> None:
    code = """'''A docstring.'''
config.margin_list = (1.0, 0.0, 0.4)
config.rec = "/train_tmp/WebFace42M"  # a comment
config.num_classes = 30 * 10000
config.num_epoch = 20
config.warmup_epoch = config.num_epoch // 10 - 3
config.sample_rate = -1 / 4 + 0.5
config.val_targets = ['lfw', "agedb_30"]
config.fp16 = True
config.output = None
config.fp16 = False
"""
    given = read_assignments(write(tmp_path, code))
    config = type("Config", (), {})()
    exec(code, {"config": config})  # of this very file
    expected = {key: list(v) if type(v) is tuple else v for key, v in vars(config).items()}
    assert {key: value for key, (value, _) in given.items()} == expected
    assert given["rec"].line == 5 and given["fp16"].line == 13


@pytest.mark.parametrize(
    "code",
    [
        "import os",
        "import os; config.a = 1",
        "config.a = __import__('os').system('touch HARM')",
        "config.a = open('HARM', 'w')",
        "config.a = [open('HARM', 'w') for _ in 'a']",
        'config.a = f\'{open("HARM", "w")}\'',
        "config.a = 9 ** 9 ** 9",
        "config.a = 'a' * 10 ** 9",
        "config.a = [0] * 10",
        "config.a = 1 // 0",
        "config.a = True + 1",
        "config.a = config.b",
        "config.a = config['b']",
        "config.a: int = 1",
        "config.a += 1",
        "config.a = config.b = 1",
        "config['a'] = 1",
        "other.a = 1",
        "if True:\n    config.a = 1",
        "def f():\n    pass",
        "config.update(a=1)",
        "config = edict(a=1)",
        "config.a = {'b': 1}",
    ],
)
def test_other_code_is_refused_with_its_line_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"theirs\.py:4: "):
        read_assignments(write(tmp_path, "config.z = 1\n" + code))
    assert not Path("HARM").exists()


@pytest.mark.parametrize(
    "content",
    [b"config.a = ", b"\xff\xfe", b"a\0b", b"# " + b"x" * 2**20, b"config.a = " + b"-" * 10**5],
)
def test_files_that_are_no_configuration_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "theirs.py"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"theirs\.py"):
        read_assignments(path)
