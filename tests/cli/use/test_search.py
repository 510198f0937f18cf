from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch

from arcface_plus.evaluation.embedding.sets import read_embedding_set
from arcface_plus.models import Preprocessing, build_model, save_model


def rows(text: str) -> list[tuple[str, str, float]]:
    """Return key, person and cosine of each line of the tables."""
    found = re.findall(r"│ \d+ +│ (\S+) +│ (\S*) +│ ([-\d.]+) ", text)
    return [(key, person, float(cosine)) for key, person, cosine in found]


def test_search_finds_the_photograph_then_its_person(cli, in_use, index):
    words = ["search", "--index", index, "--model", in_use.model]
    done = cli(*words, "--query", in_use.photo(3, 1), "--top", 4)
    assert done.exit_code == 0, done.output
    found = rows(done.stdout)
    assert found[0] == ("p3/1.png", "p3", 1.0) and len(found) == 4
    held = read_embedding_set(index)
    unit = held.embeddings / np.linalg.norm(held.embeddings, axis=1, keepdims=True)
    cosines = unit @ unit[held.keys.tolist().index("p3/1.png")]
    order = np.argsort(-cosines)[:4]
    assert [key for key, _, _ in found] == held.keys[order].tolist()
    assert [c for _, _, c in found] == pytest.approx(cosines[order].tolist(), abs=1e-4)
    both = cli(*words, "--query", in_use.photo(3, 1), "--query", in_use.photo(5), "--top", 4)
    assert rows(both.stdout)[:4] == found and rows(both.stdout)[4][0] == "p5/0.png"


def test_faiss_and_numpy_show_the_same(cli, in_use, index, monkeypatch):
    pytest.importorskip("faiss", reason="needs the extra search")
    words = ["search", "--index", index, "--model", in_use.model, "--query", in_use.photo(0)]
    with_faiss = cli(*words, "--top", 30).stdout
    monkeypatch.setitem(sys.modules, "faiss", None)
    without = cli(*words, "--top", 30).stdout
    assert "(exact, by faiss)" in with_faiss and "(exact, by NumPy)" in without
    assert rows(with_faiss) == rows(without) and len(rows(without)) == 24


def test_ratios_where_calibrated(cli, calibrated, tmp_path):
    words = ["--model", calibrated.model]
    query = [*words, "--query", calibrated.photo(0)]
    for name, flip in (("e.npz", "--flip"), ("n.npz", "--no-flip")):
        out = ["--output", tmp_path / name, flip]
        assert cli("embed", *words, "--input", calibrated.photos, *out).exit_code == 0
    done = cli("search", "--index", tmp_path / "e.npz", *query)
    assert "likelihood ratio" in done.stdout, done.output
    # Ratios of mirrored sums say nothing of embeddings without.
    done = cli("search", "--index", tmp_path / "n.npz", *query)
    assert done.exit_code == 0 and "likelihood ratio" not in done.stdout
    assert rows(done.stdout)[0][2] == 1.0


def test_wrong_inputs_get_one_line(cli, in_use, tmp_path):
    index = tmp_path / "e.npz"
    assert cli("embed", "--model", in_use.model, "--input", in_use.photos,
               "--output", index).exit_code == 0  # fmt: skip

    def fails(match, index=index, query=in_use.photo(0), model=in_use.model):
        done = cli("search", "--index", index, "--query", query, "--model", model)
        assert done.exit_code == 2 and match in done.stderr, done.output
        assert done.stderr.count("\n") == 1 and done.stdout == ""

    fails("no such image file", query=tmp_path / "none.jpg")
    fails("no file", index=tmp_path / "none.npz")
    (tmp_path / "text.jpg").write_text("no face")
    fails("unknown image format", query=tmp_path / "text.jpg")
    fails("not readable as embeddings", index=in_use.pairs)
    torch.manual_seed(1)
    for name, options in (
        ("weights.safetensors", {"embedding_dim": 8}),
        ("dims.safetensors", {"embedding_dim": 4}),
    ):
        shape = {"width": 8, "size": 32, "preprocessing": Preprocessing(size=32)}
        save_model(build_model("iresnet18", **options, **shape).eval(), tmp_path / name)
        fails("made by another model (its weights differ)", model=tmp_path / name)
    np.savez(tmp_path / "o.npz", files=np.array(["a/1.jpg"]), emb=np.ones((1, 8)))
    fails("does not say which model made it", index=tmp_path / "o.npz")
    with np.load(index) as held:
        arrays = dict(held)
    np.savez(tmp_path / "d.npz", **{**arrays, "embedding": arrays["embedding"][:, :5]})
    fails("query has 8 dimensions, the index 5", index=tmp_path / "d.npz")
