from __future__ import annotations

import json

import pytest

from arcface_plus.runs.provenance import read_provenance


@pytest.fixture
def folder(tmp_path):
    run = tmp_path / "mine"
    run.mkdir()
    (run / "config.yaml").write_text(
        "name: mine\ndata: {path: /home/someone/faces/train.rec}\n"
        "evaluation: {sets: {lfw: {path: 'D:\\\\faces\\\\lfw.bin'}}}\nfolders: [a/b/, c]\n"
    )
    environment = {"arcface_plus": "1.2", "revision": "c0ffee", "packages": {"torch": "2.14"}}
    (run / "environment.json").write_text(json.dumps(environment))
    (run / "verification.json").write_text(json.dumps({"results": {"lfw": {"accuracy": 0.9}}}))
    return run


def test_a_run_tells_where_its_model_comes_from(folder):
    found = read_provenance(folder)
    assert (found.name, found.revision) == ("mine", "c0ffee")
    assert found.packages == {"arcface_plus": "1.2", "torch": "2.14"}
    assert found.results == {"lfw": {"accuracy": 0.9}}


def test_paths_do_not_describe_the_machine(folder):
    config = read_provenance(folder).config
    assert config["data"] == {"path": "train.rec"}
    assert config["evaluation"]["sets"]["lfw"]["path"] == "lfw.bin"
    assert config["folders"] == ["b", "c"] and config["name"] == "mine"


def test_of_a_file_only_its_name_is_known(tmp_path):
    found = read_provenance(tmp_path / "backbone.pth")
    assert found.name == "backbone" and not found.config and found.revision is None


@pytest.mark.parametrize("name", ["environment.json", "verification.json"])
def test_damaged_files_are_named(folder, name):
    (folder / name).write_text("{")
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        read_provenance(folder)


def test_a_damaged_configuration_is_named(folder):
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(ValueError, match=r"config.yaml is not YAML"):
        read_provenance(folder)
