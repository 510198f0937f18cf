"""Configurations written here in arcface_torch's form, and all of a checkout where there is one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from arcface_plus import RunConfig, build_model, load_config
from arcface_plus.runs.imports.arcface_torch import _NETWORKS, convert, write_converted

# What these tests' own base.py says; values on purpose others than arcface_torch's.
BASE = {
    "margin_list": (1.0, 0.5, 0.0), "network": "r50", "resume": False, "output": "x",
    "embedding_size": 256, "sample_rate": 1, "interclass_filtering_threshold": 0, "fp16": False,
    "batch_size": 16, "optimizer": "sgd", "lr": 0.2, "momentum": 0.9, "weight_decay": 1e-4,
    "verbose": 60, "frequent": 20, "dali": False, "dali_aug": False, "gradient_acc": 1, "seed": 7,
    "num_workers": 3, "using_wandb": False, "wandb_key": "secret", "save_all_states": False,
}  # fmt: skip
OWN = {
    "output": None, "rec": "/faces/some", "num_classes": 50, "num_image": 1000, "num_epoch": 4,
    "warmup_epoch": 1, "val_targets": ["lfw"],
}  # fmt: skip


def write(path: Path, values: dict[str, Any]) -> Path:
    lines = [f"config.{key} = {value!r}" for key, value in values.items()]
    head = "from easydict import EasyDict as edict\nconfig = edict()\n"
    path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def converted(folder: Path, gpus: int = 2, **changes: Any) -> tuple[RunConfig, list[str], str]:
    """Return what our loader makes of it, what was lost, and what is to be looked at."""
    write(folder / "base.py", BASE)
    theirs = write(folder / "some_set.py", OWN | changes)
    found = convert(theirs, gpus)
    (folder / "ours.yaml").unlink(missing_ok=True)
    write_converted(found, theirs, folder / "ours.yaml")
    return load_config(folder / "ours.yaml"), found.lost, "\n".join(found.by_hand)


def test_every_value_is_carried(tmp_path: Path) -> None:
    config, lost, look = converted(tmp_path)
    assert not lost
    assert (config.name, config.seed, config.output) == ("some_set", 7, Path("runs"))
    assert config.data.path == Path("/faces/some/train.rec")
    assert (config.data.num_classes, config.data.workers) == (50, 3)
    assert (config.model.name, config.model.embedding_dim) == ("iresnet50", 256)
    assert (config.model.mean, config.model.std, config.model.init) == (127.5, 127.5, "normal")
    margin = config.head.margin
    assert (margin.m2, margin.m3, margin.extension) == (0.5, 0.0, "raw")
    assert (config.head.mma_weight, config.head.sample_rate) == (0.0, 1.0)
    assert (config.optim.lr, config.optim.weight_decay, config.optim.decay) == (0.2, 1e-4, "all")
    # 1000 // 32 = 31 steps an epoch.
    assert (config.train.steps, config.schedule.warmup_steps) == (124, 31)
    assert (config.train.global_batch, config.train.log_every) == (32, 20)
    assert (config.schedule.kind, config.schedule.power) == ("polynomial", 1)
    assert config.train.precision == "tf32"
    assert config.evaluation.every == 60
    assert config.evaluation.sets["lfw"].path == Path("/faces/some/lfw.bin")
    assert "batch_size 16 on 2 GPUs" in look and "/faces/some" in look


def test_other_settings_of_theirs(tmp_path: Path) -> None:
    config, lost, look = converted(
        tmp_path,
        margin_list=(1.0, 0.3, 0.4), network="vit_b_dp005_mask_005", output="out/dir/a",
        sample_rate=0.25, interclass_filtering_threshold=0.4, fp16=True, optimizer="adamw",
        batch_size=5, gradient_acc=3, dali=True, dali_aug=True, using_wandb=True, resume=True,
        invented=1,
    )  # fmt: skip
    assert (config.name, config.output) == ("a", Path("out/dir"))
    assert (config.head.margin.m2, config.head.margin.m3) == (0.0, 0.4)
    assert (config.model.name, config.model.drop_path, config.model.mask) == ("vit_b", 0.05, 0.05)
    assert config.model.checkpoint_gradients and config.model.fix_last_gain is False
    assert (config.head.sample_rate, config.head.sample_dense) == (0.25, True)
    assert config.head.filter_threshold == 0.4
    assert (config.optim.kind, config.train.precision) == ("adamw", "fp16")
    assert (config.train.global_batch, config.train.accumulate) == (30, 3)
    assert (config.train.steps, config.schedule.warmup_steps) == (400 // 3, 100 // 3)
    assert config.data.augment.recipe == "arcface_torch"
    keys = [line.split()[0].removeprefix("config.") for line in lost]
    assert keys == ["margin_list", "dali", "invented", "using_wandb", "wandb_key"]
    assert "some_set.py:" in lost[1] and "base.py:" in lost[4] and "secret" not in str(lost)
    for word in ("--resume auto", "filter_threshold", "accumulate", "3 times"):
        assert word in look


def test_synthetic_data_and_the_classes_of_the_batch_alone(tmp_path: Path) -> None:
    config, lost, _ = converted(tmp_path, rec="synthetic", sample_rate=0, warmup_epoch=-1)
    assert (config.data.source, config.data.images_per_class) == ("synthetic", 20)
    assert 0 < config.head.sample_rate < 1e-6 and not lost
    assert config.schedule.warmup_steps == 0 and not config.evaluation.sets


@pytest.mark.parametrize("network", sorted(_NETWORKS))
def test_every_network_is_one_of_ours_that_takes_its_options(network: str) -> None:
    with torch.device("meta"):  # shapes alone: some have a billion weights
        assert build_model(**_NETWORKS[network], size=112).embedding_dim == 512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "r51"}, r"some_set\.py:\d+: network 'r51'"),
        ({"margin_list": (1.5, 0.5, 0.0)}, "its loss stops"),
        ({"margin_list": (1.0, 0.5)}, "three numbers"),
        ({"margin_list": ("a", 0.5, 0)}, "three numbers"),
        ({"optimizer": "lion"}, "optimizer 'lion'"),
        ({"lr": "fast"}, r"some_set\.py:\d+: config\.lr cannot be 'fast'"),
        ({"num_epoch": True}, "num_epoch cannot be True"),
        ({"num_epoch": 0}, r"train\.steps of ours"),
        ({"num_image": 10}, "make no step"),
        ({"gradient_acc": 0}, "make no step"),
        ({"sample_rate": -0.5}, r"sample_rate of ours"),
        ({"val_targets": [1]}, "must be names"),
        ({"output": "a b"}, "name of ours"),
    ],
)
def test_what_is_no_training_run_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        converted(tmp_path, **changes)


def test_a_missing_setting_or_base_is_named(tmp_path: Path) -> None:
    theirs = write(tmp_path / "a.py", {k: v for k, v in OWN.items() if k != "rec"})
    with pytest.raises(FileNotFoundError, match=r"base\.py does not exist"):
        convert(theirs, 8)
    write(tmp_path / "base.py", BASE)
    with pytest.raises(ValueError, match=r"config\.rec is given neither"):
        convert(theirs, 8)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A copy of arcface_torch's configs/, from ARCFACE_TORCH or a mirror beside the repository."""
    folder = tmp_path_factory.mktemp("configs")
    if place := os.environ.get("ARCFACE_TORCH"):
        for path in (Path(place) / "configs").glob("*.py"):
            (folder / path.name).write_bytes(path.read_bytes())
        return folder
    mirror = repository.parent / ".mirror" / "deepinsight+insightface" / "repo"
    if not mirror.is_dir():
        pytest.skip("needs arcface_torch: its folder in ARCFACE_TORCH, or a mirror")
    where = "HEAD:recognition/arcface_torch/configs"
    git = ["git", f"--git-dir={mirror}"]
    names = subprocess.check_output([*git, "ls-tree", "--name-only", where], text=True).split()
    for name in names:
        (folder / name).write_bytes(subprocess.check_output([*git, "show", f"{where}/{name}"]))
    return folder


def test_all_of_a_checkout_convert_and_load_without_edits(checkout: Path, tmp_path: Path) -> None:
    runs = [p for p in checkout.glob("*.py") if p.name not in ("__init__.py", "base.py")]
    assert len(runs) >= 40
    for path in runs:
        write_converted(convert(path, 8), path, tmp_path / f"{path.stem}.yaml")
        assert load_config(tmp_path / f"{path.stem}.yaml").name == path.stem


SHIPPED = {
    "wf12m_r100": "wf12m_pfc02_r100",
    "wf42m_r100": "wf42m_pfc02_r100",
    "wf42m_r50": "wf42m_pfc02_8gpus_r50_bs4k",
}


@pytest.mark.parametrize("size", ["r50", "r100"])
@pytest.mark.parametrize("of", ["ms1mv2", "ms1mv3", "glint360k", "wf4m", "wf12m", "wf42m"])
def test_shipped_recipes_are_those_of_a_checkout(checkout: Path, of: str, size: str) -> None:
    """All but paths, MMA, and what is ours to choose: precision, workers, the way of sampling."""
    name = f"{of}_{size}"
    ours = load_config(f"web/{name}")
    found = convert(checkout / f"{SHIPPED.get(name, name)}.py", 8)
    theirs = RunConfig.model_validate(found.values)
    assert ours.data.num_classes == theirs.data.num_classes
    for section in ("model", "optim", "schedule"):
        assert getattr(ours, section) == getattr(theirs, section), section
    for key in ("steps", "global_batch"):
        assert getattr(ours.train, key) == getattr(theirs.train, key)
    assert ours.head.sample_rate == theirs.head.sample_rate
    assert (ours.head.margin.m2, ours.head.margin.m3) == (
        theirs.head.margin.m2,
        theirs.head.margin.m3,
    )
    assert (ours.head.mma_rows is not None) == (ours.data.num_classes > 200_000)
