from __future__ import annotations

from pathlib import Path

import pytest

from arcface_plus import load_config
from arcface_plus.shipped import FOLDER, names


def test_lists_every_shipped_configuration(cli, repository: Path) -> None:
    answer = cli("configs")
    assert answer.exit_code == 0, answer.output
    listed = dict(line.split(maxsplit=1) for line in answer.stdout.splitlines())
    files = {
        p.relative_to(repository / "configs").as_posix().removesuffix(".yaml")
        for p in (repository / "configs").rglob("*.yaml")
    }
    assert listed.keys() == files and len(files) > 40
    assert listed["quickstart"].startswith("ArcFace+ on the embedded AT&T/ORL faces")


@pytest.mark.slow
def test_every_copy_is_the_same_configuration_anywhere(cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = 0
    for name in names():
        copy = name.replace("/", "_") + ".yaml"
        assert cli("configs", "copy", name, copy).exit_code == 0
        if name.startswith("classification/") or "epochs" in Path(copy).read_text("utf-8"):
            continue  # counts epochs of data that are not here
        assert load_config(copy) == load_config(FOLDER / f"{name}.yaml") == load_config(name)
        loaded += 1
    assert loaded > 25


def test_copies_here_and_never_over_a_file(cli, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("configs", "copy", "margins/cosface").exit_code == 0
    assert load_config("cosface.yaml").head.margin.m3 == 0.35
    Path("cosface.yaml").write_text("mine")
    again = cli("configs", "copy", "margins/cosface")
    assert again.exit_code == 2 and "cosface.yaml exists" in again.stderr
    assert Path("cosface.yaml").read_text() == "mine"


def test_a_file_of_that_name_wins_and_may_be_laid_over_the_shipped_one(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("base: quickstart\noptim: {lr: 0.25}\n")
    config = load_config("mine.yaml")
    assert (config.optim.lr, config.data.source) == (0.25, "orl")
    Path("quickstart").write_text("base: mine.yaml\nname: other\n")
    with pytest.raises(ValueError, match="base leads back"):
        load_config("quickstart")  # mine.yaml is laid over the file here, not the shipped one
    Path("quickstart").write_text("name: other\ndata: {source: digits}\n")
    assert load_config("mine.yaml").name == "other"


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("quikstart", "quickstart"),
        ("configs/quickstart.yaml", "quickstart"),
        ("cosface", "margins/cosface"),
        ("ms1mv2_r5", "web/ms1mv2_r50"),
        ("margins/ada", "margins/adacos"),
    ],
)
def test_an_unknown_name_lists_close_ones(cli, tmp_path, monkeypatch, name: str, near: str) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("train", name), ("configs", "copy", name)):
        answer = cli(*words)
        assert answer.exit_code == 2 and near in answer.stderr, answer.stderr
        assert "Traceback" not in answer.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../quickstart", "/etc/passwd2", "quickstart.yaml", ".", "", "§"])
def test_names_do_not_lead_out_of_the_folder(cli, tmp_path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    answer = cli("configs", "copy", name, "out.yaml")
    assert answer.exit_code == 2 and not (tmp_path / "out.yaml").exists()


BASE = """from easydict import EasyDict as edict
config = edict()
config.margin_list = (1.0, 0.5, 0.0)
config.network = "r18"
config.resume = False
config.output = None
config.embedding_size = 16
config.sample_rate = 1
config.interclass_filtering_threshold = 0
config.fp16 = True
config.batch_size = 4
config.optimizer = "sgd"
config.lr = 0.1
config.weight_decay = 5e-4
config.verbose = 2000
config.frequent = 10
config.dali = True
config.dali_aug = False
config.gradient_acc = 1
config.seed = 2048
config.num_workers = 0
config.using_wandb = False
"""
THEIRS = """from easydict import EasyDict as edict
config = edict()
config.rec = "synthetic"
config.num_classes = 4
config.num_image = 16
config.num_epoch = 1
config.warmup_epoch = 0
config.val_targets = []
"""


def test_a_converted_configuration_trains(cli, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.py", tmp_path / "ours.yaml"
    theirs.write_text(THEIRS)
    theirs.with_name("base.py").write_text(BASE)
    answer = cli("configs", "convert", theirs, ours, "--gpus", "1")
    assert answer.exit_code == 0, answer.output
    assert "not carried: config.dali" in answer.stderr and "look at: train.glob" in answer.stderr
    small = ["--model.width", 8, "--data.size", 32, "--train.device", "cpu"]
    small += ["--train.precision", "fp32", "--output", tmp_path / "runs"]
    trained = cli("train", ours, *small)
    assert trained.exit_code == 0, trained.output
    assert (tmp_path / "runs" / "theirs" / "model.safetensors").is_file()
    again = cli("configs", "convert", theirs, ours, "--gpus", "1")
    assert again.exit_code == 2 and "exists" in again.stderr


def test_code_is_refused_by_its_line(cli, tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text(BASE)
    (tmp_path / "theirs.py").write_text(THEIRS + "import os\n")
    answer = cli("configs", "convert", tmp_path / "theirs.py", tmp_path / "ours.yaml")
    assert answer.exit_code == 2 and "theirs.py:9: 'import os'" in answer.stderr
    assert not (tmp_path / "ours.yaml").exists()
    missing = cli("configs", "convert", tmp_path / "none.py", tmp_path / "ours.yaml")
    assert missing.exit_code == 2
