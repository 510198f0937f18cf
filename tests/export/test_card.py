from __future__ import annotations

import json

import pytest
import yaml

from arcface_plus.export.card import Provenance, write_card
from arcface_plus.export.statement import Statement
from arcface_plus.models import model_hash

RESULT = {
    "accuracy": 0.87654321,
    "accuracy_std": 0.01,
    "auc": 0.95,
    "eer": 0.12,
    "folds": 10,
    "genuine_pairs": 450,
    "impostor_pairs": 440,
    "intervals": {"accuracy": [0.81, 0.93]},
}
STATED = Statement("cc-by-nc-4.0", "research | only", "ten people of ORL")


def write(folder, network, provenance, statement=STATED):
    weights = folder / "model.safetensors"
    weights.write_bytes(b"12345")
    write_card(folder, network, provenance, statement, [weights])
    head, _, body = (folder / "README.md").read_text().removeprefix("---\n").partition("---\n")
    return yaml.safe_load(head), body


def test_a_card_tells_scores_provenance_and_licences(make_network, tmp_path):
    config = {"name": "orl", "optim": {"lr": 0.05}}
    source = Provenance("orl", config, "c0ffee", {"torch": "2.14"}, {"held-out": RESULT})
    head, body = write(tmp_path, make_network(), source)
    assert head["license"] == "cc-by-nc-4.0" and "license_name" not in head
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"]["name"] == "held-out"
    assert {m["type"]: m["value"] for m in result["metrics"]} == {
        "accuracy": 0.876543,
        "roc_auc": 0.95,
    }
    for words in (
        "| held-out (450 + 440, 10 folds) | 0.8765 ± 0.0100 | 0.8100 to 0.9300 | 0.9500 | 0.1200 |",
        "c0ffee",
        "| torch | 2.14 |",
        "lr: 0.05",
        r"| licence of the training data | research \| only |",
        "| training data | ten people of ORL |",
        "| `model.safetensors` | 5 | (pixel − 127.5) / 128, RGB |",
    ):
        assert words in body


def test_the_configuration_rebuilds_the_network(make_network, tmp_path):
    network = make_network(std=100.0)
    write(tmp_path, network, Provenance("net", {"seed": 3}))
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == network.architecture
    assert config["preprocessing"]["std"] == 100.0 and config["embedding_dim"] == 16
    assert config["weights_sha256"] == model_hash(network)
    assert config["training"] == {"seed": 3} and config["license"] == "cc-by-nc-4.0"


def test_what_is_not_known_is_left_out(make_network, tmp_path):
    stated = Statement("My Own Terms", "unknown")
    head, body = write(tmp_path, make_network(), Provenance("net"), stated)
    assert (head["license"], head["license_name"]) == ("other", "My Own Terms")
    assert "model-index" not in head and "training data | ten" not in body
    assert "No run is known" in body and "is not known" in body
    assert "| None |" not in body and "None" not in body.replace("run(None,", "")


@pytest.mark.parametrize("stated", [Statement(), Statement("mit"), Statement(None, "mit")])
def test_a_licence_is_asked_for_and_never_invented(make_network, tmp_path, stated):
    with pytest.raises(ValueError, match=r"give --license .* and --data-license"):
        write(tmp_path, make_network(), Provenance("net"), stated)
    assert not (tmp_path / "README.md").exists()
