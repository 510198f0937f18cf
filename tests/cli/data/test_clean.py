"""``arcface-plus data clean`` from the command line, on faces that an untrained net tells apart."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from arcface_plus.data.images import encode_jpeg
from arcface_plus.models import Preprocessing, build_model, save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    net = build_model(
        "iresnet18", embedding_dim=32, width=8, size=32, preprocessing=Preprocessing(size=32)
    )
    path = tmp_path_factory.mktemp("model") / "net.safetensors"
    save_model(net.eval(), path)
    return path


def write_face(path: Path, person: int, image: int) -> None:
    """Write one of a person's photographs: their own pattern, and noise as coarse."""
    pattern = np.random.default_rng(person).integers(0, 256, (6, 6, 3)).astype(np.float64)
    noise = np.random.default_rng((person, image)).normal(0, 35, (6, 6, 3))
    small = np.clip(pattern + noise, 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_jpeg(cv2.resize(small, (32, 32), interpolation=cv2.INTER_CUBIC)))


@pytest.fixture
def faces(tmp_path) -> Path:
    """24 people of eight photographs; one is with the wrong person, one there twice."""
    for person in range(24):
        for image in range(8):
            write_face(tmp_path / "faces" / f"p{person:02}" / f"{image}.jpg", person, image)
    write_face(tmp_path / "faces" / "p03" / "wrong.jpg", 7, 50)
    original = cv2.imread(str(tmp_path / "faces" / "p05" / "2.jpg"))
    cv2.imwrite(str(tmp_path / "faces" / "p05" / "copy.jpg"), original, [1, 40])
    return tmp_path / "faces"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_wrong_is_found_moved_and_moved_back(cli, model, faces) -> None:
    before, output = tree(faces), faces.with_name("faces-clean")
    done = cli("data", "clean", model, faces)
    assert done.exit_code == 0, done.stderr
    assert "duplicates: 1, labels: 1, merge: 0, split: 0" in done.stdout
    assert tree(faces) == before, "a look changes nothing"
    found = rows(output / "clean.csv")
    assert [(row["kind"], row["photograph"]) for row in found] == [
        ("duplicates", "p05/copy.jpg"),
        ("labels", "p03/wrong.jpg"),
    ]
    assert found[0]["other_photograph"] == "p05/2.jpg" and found[1]["other_person"] == "p07"
    assert "p03/wrong.jpg" in (output / "clean.html").read_text()
    facts = json.loads((output / "clean.json").read_text())
    assert facts["photographs"] == 194 and facts["cosine_typical"] > facts["cosine_strangers"]

    again = cli("data", "clean", model, faces)
    assert again.exit_code == 2 and "--overwrite" in again.stderr
    done = cli("data", "clean", model, faces, "--apply")
    assert done.exit_code == 0 and "2 photographs moved" in done.stdout
    assert set(before) - set(tree(faces)) == {"p05/copy.jpg", "p03/wrong.jpg"}
    assert tree(output / "moved") == {k: before[k] for k in set(before) - set(tree(faces))}
    again = cli("data", "clean", model, faces, "--apply")
    assert again.exit_code == 2 and "undo them" in again.stderr
    done = cli("data", "clean", "--undo", output / "moves.csv")
    assert done.exit_code == 0 and "2 photographs moved back" in done.stdout
    assert tree(faces) == before
    done = cli("data", "clean", model, faces, "--apply", "--kinds", "labels")
    assert done.exit_code == 0 and "1 photographs moved" in done.stdout


def test_findings_of_other_options_are_not_applied(cli, model, faces, tmp_path) -> None:
    first = ["data", "clean", model, faces, "--kinds", "duplicates,labels"]
    assert cli(*first, "--threshold", "labels=0.3").exit_code == 0
    before, again = tree(faces), ["data", "clean", model, faces, "--apply"]
    for words, said in {
        ("--threshold", "labels=0.2"): "threshold labels was 0.3, is 0.2",
        ("--threshold", "merge=0.2"): "threshold merge was not used, is 0.2",
        ("--kinds", "labels,merge"): "kinds was duplicates,labels, is labels,merge",
        ("--resize",): "resize was False, is True",
    }.items():
        refused = cli(*again, *words)
        assert refused.exit_code == 2 and said in refused.stderr, refused.output
        assert "--overwrite" in refused.stderr
    other = build_model(
        "iresnet18",
        embedding_dim=32,
        width=8,
        size=32,
        preprocessing=Preprocessing(size=32, std=127.5),
    )
    save_model(other.eval(), tmp_path / "other.safetensors")
    refused = cli("data", "clean", tmp_path / "other.safetensors", faces, "--apply")
    assert refused.exit_code == 2 and "model was" in refused.stderr
    assert "preprocessing was" in refused.stderr and tree(faces) == before
    done = cli(*again, "--kinds", "labels", "--threshold", "labels=0.3")
    assert done.exit_code == 0, done.stderr


def test_lines_that_were_taken_out_are_not_applied(cli, model, faces) -> None:
    output = faces.parent / "findings"
    assert cli("data", "clean", model, faces, "--output", output).exit_code == 0
    lines = (output / "clean.csv").read_text().splitlines(keepends=True)
    (output / "clean.csv").write_text("".join(lines[:2]))
    assert cli("data", "clean", model, faces, "--output", output, "--apply").exit_code == 0
    assert not (faces / "p05" / "copy.jpg").exists()
    assert (faces / "p03" / "wrong.jpg").exists()


def test_people_are_merged_and_cut_only_where_asked(cli, model, faces) -> None:
    """Half of person 9 is called p90; person 10's photographs are in the folder of person 11."""
    (faces / "p90").mkdir()
    for image in range(4):
        (faces / "p09" / f"{image}.jpg").rename(faces / "p90" / f"{image}.jpg")
        (faces / "p10" / f"{image}.jpg").rename(faces / "p11" / f"x{image}.jpg")
    for image in range(4, 8):
        (faces / "p10" / f"{image}.jpg").unlink()
    (faces / "p10").rmdir()
    before, output = tree(faces), faces.with_name("faces-clean")
    done = cli("data", "clean", model, faces, "--apply")
    assert done.exit_code == 0, done.stderr
    assert "merge: 1, split: 1" in done.stdout and "2 photographs moved" in done.stdout
    assert cli("data", "clean", "--undo", output / "moves.csv").exit_code == 0
    done = cli("data", "clean", model, faces, "--apply", "--kinds", "merge,split")
    assert done.exit_code == 0, done.stderr
    after = tree(faces)
    assert not (faces / "p90").exists() or not (faces / "p09").exists()
    assert {after[f"p11_2/p11_x{image}.jpg"] for image in range(4)} == {
        before[f"p11/x{image}.jpg"] for image in range(4)
    }
    assert cli("data", "clean", "--undo", output / "moves.csv").exit_code == 0
    assert tree(faces) == before


def test_a_folder_that_changed_is_not_touched(cli, model, faces) -> None:
    assert cli("data", "clean", model, faces).exit_code == 0
    write_face(faces / "p01" / "new.jpg", 1, 60)
    before = tree(faces)
    refused = cli("data", "clean", model, faces, "--apply")
    assert refused.exit_code == 2 and "has changed since" in refused.stderr
    assert tree(faces) == before
    done = cli("data", "clean", model, faces, "--overwrite", "--apply")
    assert done.exit_code == 0 and "2 photographs moved" in done.stdout


def test_another_look_needs_no_second_embedding(cli, model, faces) -> None:
    assert "embedding" in cli("data", "clean", model, faces).stderr
    done = cli(
        "data", "clean", model, faces, "--overwrite", "--kinds", "labels", "--threshold", "labels=9"
    )
    assert done.exit_code == 0 and "labels: 0" in done.stdout
    assert "embedding" not in done.stderr
    assert len(rows(faces.with_name("faces-clean") / "clean.csv")) == 0


def test_records_are_read_and_never_changed(cli, model, faces) -> None:
    records = faces.with_name("records") / "train.rec"
    assert cli("data", "pack", faces, records.parent, "--size", 32).exit_code == 0
    content = records.read_bytes()
    done = cli("data", "clean", model, records)
    assert done.exit_code == 0, done.stderr
    found = rows(records.with_name("train-clean") / "clean.csv")
    assert [row["kind"] for row in found] == ["duplicates", "labels"]
    assert (found[1]["person"], found[1]["other_person"]) == ("3", "7")
    refused = cli("data", "clean", model, records, "--apply", "--overwrite")
    assert refused.exit_code == 2 and "unpack" in refused.stderr
    assert records.read_bytes() == content


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["M", "D", "--kinds", "beauty"], "none of duplicates"),
        (["M", "D", "--threshold", "labels"], "KIND=NUMBER"),
        (["M", "D", "--threshold", "labels=nan"], "KIND=NUMBER"),
        (["M", "D", "--threshold", "beauty=1"], "KIND=NUMBER"),
        (["M"], "data clean MODEL DATA"),
        (["M", "D/absent"], "does not exist"),
        (["M", "D", "--output", "D/inside"], "count as a person"),
        (["M", "D", "--undo", "D/moves.csv"], "alone"),
        (["--undo", "D/moves.csv"], "No such file"),
    ],
)
def test_what_does_not_go_together_is_one_line(cli, model, faces, words, message) -> None:
    given = [word.replace("D", str(faces)) if word[0] == "D" else word for word in words]
    refused = cli("data", "clean", *[str(model) if word == "M" else word for word in given])
    assert refused.exit_code == 2 and message in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unreadable_photograph_is_named(cli, model, faces) -> None:
    (faces / "p02" / "text.jpg").write_text("no photograph")
    refused = cli("data", "clean", model, faces)
    assert refused.exit_code == 2 and "p02/text.jpg" in refused.stderr
