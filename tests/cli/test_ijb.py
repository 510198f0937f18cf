"""IJB in the published form, drawn small: photographs with painted faces, lists, csv files."""

from __future__ import annotations

import json
import shutil
from functools import partial

import cv2
import numpy as np
import pytest

from arcface_plus.data.alignment import ARCFACE_TEMPLATE, AlignedImages
from arcface_plus.data.ijb_meta import read_faces, read_template_pairs
from arcface_plus.data.images import encode_jpeg
from arcface_plus.evaluation.embedding.embed import embed
from arcface_plus.evaluation.search.templates import TemplatePool, verify_templates
from arcface_plus.models import Preprocessing, build_model, save_model

PEOPLE, TEMPLATES, IMAGES = 6, 36, 90
SUFFIX = {"IJBB": ("S1", "S2"), "IJBC": ("G1", "G2")}


def subject_of(template: np.ndarray) -> np.ndarray:
    return template % PEOPLE + 100


def write_meta(folder, names, target, rng) -> None:
    """Write the lists of ``target``; templates 1 to 36, the first six the galleries."""
    prefix = folder / target.lower()
    template = np.concatenate([np.arange(TEMPLATES), rng.integers(0, TEMPLATES, IMAGES - 36)]) + 1
    with open(f"{prefix}_face_tid_mid.txt", "w") as file:
        file.writelines(
            f"{n} {t} {rng.integers(1, 40)}\n" for n, t in zip(names, template, strict=True)
        )
    with open(f"{prefix}_name_5pts_score.txt", "w") as file:
        for name in names:
            points = " ".join(f"{x:.3f}" for x in (ARCFACE_TEMPLATE + 10).ravel())
            file.write(f"{name} {points} {rng.uniform(0.3, 1):.3f}\n")
    with open(f"{prefix}_template_pair_label.txt", "w") as file:
        for a in range(1, 7):
            for b in range(7, TEMPLATES + 1):
                file.write(f"{a} {b} {int(subject_of(a) == subject_of(b))}\n")
    head = "TEMPLATE_ID,SUBJECT_ID,FILENAME\n"
    for name, rows in zip(SUFFIX[target], (range(1, 4), range(4, 7)), strict=True):
        with open(f"{prefix}_1N_gallery_{name}.csv", "w") as file:
            file.write(head + "".join(f"{t},{subject_of(t)},x.jpg\n" * 2 for t in rows))
    with open(f"{prefix}_1N_probe_mixed.csv", "w") as file:
        file.write(head + "".join(f"{t},{subject_of(t)},y.jpg\n" for t in range(7, 37)))


@pytest.fixture(scope="module")
def ijb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ijb")
    rng = np.random.default_rng(0)
    names = [f"{i + 1}.jpg" for i in range(IMAGES)]
    faces = rng.integers(0, 256, (PEOPLE, 33, 33, 3), dtype=np.uint8)
    (folder / "loose_crop").mkdir()
    for i, name in enumerate(names):
        face = cv2.resize(faces[i % PEOPLE], (132, 132), interpolation=cv2.INTER_LINEAR)
        noisy = np.clip(face + rng.normal(0, 25, face.shape), 0, 255).astype(np.uint8)
        (folder / "loose_crop" / name).write_bytes(encode_jpeg(noisy))
    for target in SUFFIX:
        (folder / target).mkdir()
        write_meta(folder / target, names, target, rng)
    model = build_model(
        "iresnet18", embedding_dim=16, width=16, size=32, preprocessing=Preprocessing(size=32)
    )
    save_model(model.eval(), folder / "m.safetensors")
    return folder


@pytest.fixture
def embedded(tmp_path):
    """Embeddings of the images by name, in another order than the lists."""
    rng = np.random.default_rng(1)
    order = rng.permutation(IMAGES)
    centre = rng.normal(size=(PEOPLE, 32))
    rows = centre[order % PEOPLE] + 0.7 * rng.normal(size=(IMAGES, 32))
    keys = np.array([f"{i + 1}.jpg" for i in order])
    np.savez(tmp_path / "e.npz", key=keys, embedding=rows.astype(np.float32))
    return tmp_path / "e.npz"


@pytest.mark.parametrize("target", ["IJBB", "IJBC"])
def test_model_to_numbers(cli, ijb, tmp_path, target):
    out = tmp_path / "out.json"
    words = ["--model", ijb / "m.safetensors", "--images", ijb / "loose_crop", "--device", "cpu"]
    done = cli("ijb", *words, "--meta", ijb / target, "--target", target, "--json", out,
               "--protocol", "both")  # fmt: skip
    assert done.exit_code == 0, done.output
    for text in (
        "nearest TAR",
        "refused",
        "coarse",
        "10000 for 0.0001",
        "rank-5",
        *SUFFIX[target],
        "both as one",
    ):
        assert text in done.output
    held = json.loads(out.read_text())
    assert held["use_flip_test"] and held["use_norm_score"] and held["use_detector_score"]
    assert held["verification"]["genuine_pairs"] == 30
    assert held["verification"]["impostor_pairs"] == 150
    galleries = held["identification"]["galleries"]
    assert list(galleries) == list(SUFFIX[target])
    assert [g["mated"] for g in galleries.values()] == [15, 15]
    assert held["identification"]["union"]["mated"] == 30
    # Mean of the galleries, by hand.
    first = [g["rank_rates"]["1"] for g in galleries.values()]
    assert held["identification"]["mean"]["rank_rates"]["1"] == pytest.approx(np.mean(first))


def test_flags_reach_the_pooling(cli, ijb, tmp_path):
    """Each combination equals the pieces put together by hand."""
    from arcface_plus.models import load_model

    model = load_model(ijb / "m.safetensors")
    faces = read_faces(ijb / "IJBC", "IJBC")
    pairs = read_template_pairs(ijb / "IJBC", "IJBC", np.unique(faces.templates))
    images = AlignedImages(faces.names, faces.landmarks, root=ijb / "loose_crop", size=32)
    for flip, norm, detector in ((True, True, True), (False, True, False), (True, False, True)):
        pool = TemplatePool(
            faces.templates,
            faces.media,
            detector_scores=faces.detector_scores if detector else None,
            use_norm_score=norm,
        )
        pool.add(embed(model, images, flip=flip))
        templates = pool.finish()
        wanted = verify_templates(templates, pairs).to_dict()
        words = ["--model", ijb / "m.safetensors", "--images", ijb / "loose_crop"]
        words += ["--meta", ijb / "IJBC", "--target", "IJBC", "--json", tmp_path / "o.json"]
        words += [] if flip else ["--no-use-flip-test"]
        words += [] if norm else ["--no-use-norm-score"]
        words += [] if detector else ["--no-use-detector-score"]
        assert cli("ijb", *words, "--device", "cpu").exit_code == 0
        assert json.loads((tmp_path / "o.json").read_text())["verification"] == wanted


def test_embeddings_to_numbers(cli, ijb, embedded, tmp_path):
    words = ["--embeddings", embedded, "--meta", ijb / "IJBC", "--target", "IJBC"]
    done = cli("ijb", *words, "--json", tmp_path / "o.json", "--protocol", "both")
    assert done.exit_code == 0, done.output
    held = json.loads((tmp_path / "o.json").read_text())
    faces = read_faces(ijb / "IJBC", "IJBC")
    with np.load(embedded) as file:
        row = {key: i for i, key in enumerate(file["key"].tolist())}
        rows = file["embedding"][[row[name] for name in faces.names]]
    pool = TemplatePool(faces.templates, faces.media, detector_scores=faces.detector_scores)
    pool.add(rows)
    templates = pool.finish()
    pairs = read_template_pairs(ijb / "IJBC", "IJBC", templates.ids)
    assert held["verification"] == verify_templates(templates, pairs).to_dict()
    assert "use_flip_test" not in held and held["embeddings"] == str(embedded)
    alone = cli("ijb", *words, "--protocol", "1:N")
    assert "1:1" not in alone.output and "TPIR@FPIR=0.1" in alone.output


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ([], "either --model and --images, or --embeddings"),
        (["--model", "m", "--embeddings", "e"], "either --model and --images"),
        (["--model", "m"], "give both"),
        (["--embeddings", "e", "--use-flip-test"], "it has no say"),
        (["--embeddings", "none.npz"], "no file none.npz"),
        (["--embeddings", "none.npz", "--protocol", "2:2"], "must be one of 1:1, 1:N, both"),
        (["--model", "m", "--images", "none"], "m"),
    ],
)
def test_wrong_use(cli, ijb, words, match):
    done = cli("ijb", *words, "--meta", ijb / "IJBC", "--target", "IJBC")
    assert done.exit_code == 2 and match in done.stderr


def test_wrong_lists_and_images(cli, ijb, embedded, tmp_path):
    def fails(match, *words, meta=ijb / "IJBC", target="IJBC"):
        done = cli("ijb", *words, "--meta", meta, "--target", target)
        assert done.exit_code == 2 and match in done.stderr, done.output

    fails("must be one of IJBB, IJBC", "--embeddings", embedded, target="IJBX")
    fails("must hold ijbb_face_tid_mid.txt", "--embeddings", embedded, target="IJBB")
    model = ["--model", ijb / "m.safetensors", "--device", "cpu"]
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "1.jpg").write_bytes((ijb / "loose_crop" / "1.jpg").read_bytes())
    fails("lacks 89 of the 90 images", *model, "--images", tmp_path / "few")
    for i in range(2, IMAGES + 1):
        (tmp_path / "few" / f"{i}.jpg").write_bytes(b"no image")
    fails("2.jpg: unknown image format", *model, "--images", tmp_path / "few")
    shutil.copytree(ijb / "IJBC", tmp_path / "meta")
    broken = [*model, "--images", tmp_path / "few", "--protocol", "both"]
    for name, line, match in (  # each is found before an image is opened
        ("template_pair_label.txt", "1 99 0", "line 181: template 99 has no image"),
        ("1N_gallery_G2.csv", "99,1,x", "templates have no image, such as 99"),
        ("1N_probe_mixed.csv", "7,1,x", "template 7 is of subject 1, but of"),
    ):
        path = tmp_path / "meta" / f"ijbc_{name}"
        text = path.read_text()
        path.write_text(text + line + "\n")
        fails(match, *broken, meta=tmp_path / "meta")
        path.write_text(text)
    path = tmp_path / "meta" / "ijbc_1N_gallery_G2.csv"
    path.write_text(path.read_text() + "1,101,x\n")
    both = ["--embeddings", embedded, "--protocol", "1:N"]
    fails("Template 1 is in both galleries", *both, meta=tmp_path / "meta")
    with np.load(embedded) as held:
        keys, rows = held["key"], held["embedding"]
    np.savez(tmp_path / "short.npz", key=keys[1:], embedding=rows[1:])
    fails("lacks 1 of the 90 images", "--embeddings", tmp_path / "short.npz")
    for value, match in ((np.nan, "has NaN"), (0, "is zero")):
        bad = rows.copy()
        bad[5] = value
        np.savez(tmp_path / "bad.npz", key=keys, embedding=bad)
        fails(f"The embedding of {keys[5]} {match}", "--embeddings", tmp_path / "bad.npz")


@pytest.mark.slow
def test_script_under_torchrun_scores_as_the_command_does(cli, torchrun, ijb, tmp_path):
    words = ["--model", ijb / "m.safetensors", "--images", ijb / "loose_crop", "--device", "cpu"]
    words += ["--meta", ijb / "IJBC", "--target", "IJBC", "--protocol", "both"]
    results = []
    for number, call in enumerate((partial(cli, "ijb"), partial(torchrun, "eval/ijb.py"))):
        out = tmp_path / f"{number}.json"
        done = call(*words, "--json", out)
        assert done.exit_code == 0, done.stderr
        assert done.stdout.count("30 genuine") == 1, "only rank 0 speaks"
        results.append(json.loads(out.read_text()))
    one, two = (each["verification"] for each in results)
    assert one["tar_at_far"] == pytest.approx(two["tar_at_far"], abs=0.07)
    assert one["tar_thresholds"] == pytest.approx(two["tar_thresholds"], abs=1e-4)
