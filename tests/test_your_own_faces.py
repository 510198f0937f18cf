"""docs/your_own_faces.md: every command of the page, in its order, on the embedded faces."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from arcface_plus.data.sources.orl import OrlFaces

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your_own_faces.md"
PEOPLE = 8
# What the page leaves to the reader, and less work than its recipe asks for.
INSTEAD = {
    "MODEL": "seen.safetensors",
    "photographs/A/": "photographs/s1/",
    "--test-people 10": "--test-people 4",
    "--folds 5": "--folds 2",
    "train configs/own_faces.yaml": f"train {PAGE.parents[1]}/configs/own_faces.yaml "
    "--train.steps 8 --train.global_batch 16 --model.width 8 --data.size 32 --data.workers 0 "
    "--schedule.warmup_steps 2 --evaluation.every 4 --evaluation.folds 2",
}


def commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch) -> Path:
    """Eight people of the embedded faces as JPEGs of any size, loosely cut; a model to clean with.

    Greyscale, with a wide grey border and larger than in their file, as photographs are.
    """
    from arcface_plus.models import build_model, save_model

    faces = OrlFaces(range(1, PEOPLE + 1), size=112)
    for index, path in enumerate(faces.paths):
        image = cv2.resize(faces[index], (220 + 7 * (index % 5),) * 2)
        framed = cv2.copyMakeBorder(image, 40, 40, 60, 60, cv2.BORDER_CONSTANT, value=(127,) * 3)
        target = tmp_path / "photographs" / path.parent.name / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), framed)
    save_model(build_model("iresnet18", width=8).eval(), tmp_path / "seen.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_page_works_on_the_first_try(photographs: Path, cli) -> None:
    pytest.importorskip("onnxruntime")
    shown = {}
    for line in commands():
        for words, others in INSTEAD.items():
            line = line.replace(words, others)
        program, *words = shlex.split(line)
        assert program == "arcface-plus"
        answer = cli(*words)
        assert answer.exit_code == 0, (line, answer.output)
        shown[words[0] if words[0] != "data" else words[1]] = answer.stdout
    table = (photographs / "faces" / "alignment.csv").read_text(encoding="utf-8")
    assert table.count(",aligned,") > 0.9 * 10 * PEOPLE
    faces = list((photographs / "faces").glob("*/*.jpg"))
    assert faces and all(cv2.imread(str(path)).shape == (112, 112, 3) for path in faces)
    assert (photographs / "faces" / "alignment.html").is_file()
    assert (photographs / "runs" / "own_faces" / "calibration.json").is_file()
    measured = json.loads((photographs / "runs" / "own_faces" / "verification.json").read_text())
    assert measured["model"]["chosen_by"] == "heldout/accuracy"
    assert (photographs / "own_faces.onnx").is_file()
    with np.load(photographs / "people.npz") as index:
        assert len(index["key"]) == len(faces)
    assert "likelihood ratio" in shown["compare"]
    assert (photographs / "both.png").is_file()
    assert "s1/1.jpg" in shown["search"].splitlines()[0] + shown["search"]


def test_the_page_has_ten_commands_and_names_real_ones() -> None:
    assert len(commands()) == 10
