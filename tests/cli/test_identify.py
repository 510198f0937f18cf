from __future__ import annotations

import json

import numpy as np
import pytest

from arcface_plus.evaluation.search.distractors import identify_among_distractors
from arcface_plus.evaluation.search.identification import identify


@pytest.fixture
def sets(tmp_path):
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(40, 16))

    def write(name, people, spread):
        rows = (centre[people] + spread * rng.normal(size=(len(people), 16))).astype(np.float32)
        np.savez(
            tmp_path / f"{name}.npz",
            key=np.array([f"{p}/{i}_{name}.jpg" for i, p in enumerate(people)]),
            # Numbered within the file, as an export of a folder is: no use across files.
            label=np.unique(people, return_inverse=True)[1],
            norm=np.linalg.norm(rows, axis=1),
            embedding=rows,
        )
        return rows, np.array([str(p) for p in people])

    gallery = write("gallery", np.repeat(np.arange(20), 2), 0.8)
    probes = write("probes", rng.integers(5, 25, 300), 0.8)
    distractors = write("distractors", rng.integers(25, 40, 500), 1.0)
    return tmp_path, gallery, probes, distractors


def test_gallery(cli, sets):
    folder, (g, gl), (p, pl), (d, _) = sets
    words = ["--gallery", folder / "gallery.npz", "--probes", folder / "probes.npz"]
    done = cli("identify", *words, "--json", folder / "o.json")
    assert done.exit_code == 0, done.output
    held = json.loads((folder / "o.json").read_text())
    wanted = identify(p, pl, g, gl, ranks=(1, 5, 10, 20))
    assert wanted.to_dict().items() <= held.items() and held["identity"] == "folder"
    assert f"{wanted.rank_rates[1]:.5f}" in done.output and wanted.non_mated > 0
    words += ["--distractors", folder / "distractors.npz", "--json", folder / "o.json"]
    assert cli("identify", *words, "--rank", 1, "--rank", 3).exit_code == 0
    held = json.loads((folder / "o.json").read_text())
    assert identify(p, pl, g, gl, distractors=d, ranks=(1, 3)).to_dict().items() <= held.items()
    assert held["rank_rates"]["1"] < wanted.rank_rates[1]


def test_among_distractors(cli, sets):
    folder, _, (p, pl), (d, _) = sets
    words = ["--probes", folder / "probes.npz", "--distractors", folder / "distractors.npz"]
    done = cli("identify", *words, "--json", folder / "o.json")
    assert done.exit_code == 0, done.output
    wanted = identify_among_distractors(p, pl, d)
    assert wanted.to_dict().items() <= json.loads((folder / "o.json").read_text()).items()
    assert "rank-1" in done.output and "refused: needs 1000000 impostor pairs" in done.output
    assert "500 distractors" in done.output


def test_wrong_use(cli, sets):
    folder = sets[0]

    def fails(match, *words):
        done = cli("identify", *words)
        assert done.exit_code == 2 and match in done.stderr, done.output

    probes = ["--probes", folder / "probes.npz"]
    fails("Give --gallery, --distractors or both", *probes)
    distractors = [*probes, "--distractors", folder / "distractors.npz"]
    fails("among distractors alone rank-1", *distractors, "--rank", 5)
    fails("A rank is a whole number", *probes, "--gallery", folder / "gallery.npz", "--rank", 0)
    fails("no file none.npz", *probes, "--gallery", "none.npz")
    gallery = [*probes, "--gallery", folder / "gallery.npz"]
    fails("must be one of folder, label, prefix", *gallery, "--identity", "name")
    np.savez(folder / "flat.npz", key=np.array(["a.jpg"]), embedding=np.ones((1, 16)))
    fails("a.jpg lies in no folder", *probes, "--gallery", folder / "flat.npz")
    np.savez(folder / "other.npz", key=np.array(["99/a.jpg"]), embedding=np.ones((1, 16)))
    fails("None of the 300 probes", *probes, "--gallery", folder / "other.npz")
    np.savez(folder / "thin.npz", key=np.array(["9/a.jpg"]), embedding=np.ones((1, 8)))
    fails("probes 16, gallery 8", *probes, "--gallery", folder / "thin.npz")
    np.savez(folder / "zero.npz", key=np.array(["9/a.jpg"]), embedding=np.zeros((1, 16)))
    fails("The embedding of 9/a.jpg in", *probes, "--gallery", folder / "zero.npz")


def test_real_faces(cli, shared_data, tmp_path):
    """People of LFW look for their other photographs among everyone else."""
    with np.load(shared_data / "embeddings" / "lfw_mobilefacenet_y1.npz") as held:
        files, rows = held["files"], held["emb"]
    person = np.array([name.rsplit("_", 1)[0].rsplit("/", 1)[-1] for name in files.tolist()])
    _, place, counts = np.unique(person, return_inverse=True, return_counts=True)
    several = counts[place] > 1
    keys = np.array([f"{who}/{i}.jpg" for i, who in enumerate(person)])
    np.savez(tmp_path / "p.npz", key=keys[several], embedding=rows[several])
    np.savez(tmp_path / "d.npz", key=keys[~several], embedding=rows[~several])
    words = ["--probes", tmp_path / "p.npz", "--distractors", tmp_path / "d.npz"]
    assert cli("identify", *words, "--json", tmp_path / "o.json").exit_code == 0
    held = json.loads((tmp_path / "o.json").read_text())
    assert held["rank1"] > 0.98 and held["tar_at_far"]["0.001"] > 0.98
