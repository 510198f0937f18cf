from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from arcface_plus.export.program import export_program
from arcface_plus.export.statement import Statement


def test_pytorch_runs_it_alone_with_its_own_preprocessing(
    make_network, embed_by_hand, faces, tmp_path
):
    network = make_network(mean=100.0, std=50.0)
    stated = Statement(license="MIT")
    path = export_program(network, tmp_path / "net.pt2", statement=stated)
    extra = {"arcface_plus.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    x = ((faces.astype(np.float32) - 100) / 50).transpose(0, 3, 1, 2).copy()
    expected = embed_by_hand(network, faces)
    for batch in (1, 7, 40):
        with torch.inference_mode():
            found = program(torch.from_numpy(x[:batch])).numpy()
        np.testing.assert_allclose(found, expected[:batch], rtol=1e-4, atol=1e-5)
    facts = json.loads(extra["arcface_plus.json"])
    stored = json.loads(facts["arcface_plus.preprocessing"])
    assert (stored["mean"], stored["std"], stored["size"]) == (100.0, 50.0, 32)
    assert facts["arcface_plus.license"] == "MIT"


@pytest.mark.slow
def test_a_face_network_leaves_no_path_of_this_machine(make_network, tmp_path):
    """Its FC layer is in a graph of its own, outside of autocast."""
    path = export_program(make_network("iresnet18"), tmp_path / "net.pt2")
    assert not re.findall(rb"/[\w/.+-]+\.py", path.read_bytes())


def test_a_network_that_cannot_run_elsewhere_is_not_written(make_network, tmp_path, monkeypatch):
    """What is loaded back is compared with the network."""
    loaded = torch.export.load

    def load_another(file):
        program = loaded(file)
        program.state_dict["fc.weight"].data.mul_(1.01)
        return program

    monkeypatch.setattr(torch.export, "load", load_another)
    with pytest.raises(ValueError, match="was not written: the exported program"):
        export_program(make_network(), tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_another_ending_is_refused(make_network, tmp_path):
    with pytest.raises(ValueError, match=r"ends in .pt2"):
        export_program(make_network(), tmp_path / "net.pt")
