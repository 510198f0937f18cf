"""Durations in epochs and rates per 512 images: the numbers that a run counts with."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from arcface_plus.runs.configuration import load_config
from arcface_plus.runs.train import train

# 13 classes of 6 images; 7 global batches of 10 in an epoch, 8 images left over.
BASE = """
name: a
data: {source: synthetic, num_classes: 13, images_per_class: 6, size: 32}
train: {global_batch: 10, steps: 20 epochs}
"""


@pytest.fixture
def load(tmp_path: Path):
    def load(*overrides: str, text: str = BASE):
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return load_config(path, overrides)

    return load


def test_an_epoch_is_its_whole_global_batches(load) -> None:
    assert load().train.steps == 20 * 7
    assert load("--train.global_batch", "13").train.steps == 20 * 6
    assert load("--train.steps", "2.5 epochs").train.steps == 18  # 17.5, to even
    assert load("--train.steps", "1 epoch").train.steps == 7
    assert load("--train.steps", "0.01 epochs").train.steps == 1
    assert load("--train.steps", "33").train.steps == 33


def test_every_duration_may_be_given_in_epochs(load) -> None:
    config = load(
        *("--schedule.milestones", "[5 epochs, 50, 10 epochs]"),
        *("--schedule.warmup_steps", "1 epoch", "--head.margin.warmup_steps", "10 epochs"),
        *("--evaluation.every", "2 epochs", "--train.checkpoint_every", "4 epochs"),
        *("--branch.start_step", "3 epochs"),
    )
    assert config.schedule.milestones == (35, 50, 70)
    assert (config.schedule.warmup_steps, config.head.margin.warmup_steps) == (7, 70)
    assert (config.evaluation.every, config.train.checkpoint_every) == (14, 28)
    assert config.branch.start_step == 21
    adaptive = load("--head.adaptive", "{kind: adaface, warmup_steps: 1 epoch}").head.adaptive
    assert adaptive.warmup_steps == 7


def test_rates_per_512_images_follow_the_global_batch(load) -> None:
    assert load("--optim.lr", "0.1 per 512 images").optim.lr == pytest.approx(0.1 * 10 / 512)
    config = load("--schedule", "{kind: cosine, final_lr: 1e-3 per 512 images}")
    assert config.schedule.final_lr == pytest.approx(1e-3 * 10 / 512)
    text = "name: a\ndata: {source: synthetic, num_classes: 10}\n"
    default = load("--optim.lr", "0.1 per 512 images", text=text)
    assert default.optim.lr == pytest.approx(0.1 * 440 / 512)


def test_data_are_opened_only_for_epochs(load) -> None:
    text = "name: a\ndata: {source: folder, path: nowhere}\n"
    assert load(text=text).train.steps == 38_000
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load("--train.steps", "2 epochs", text=text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--train.steps", "2 epoks"), r"^--train\.steps: train\.steps: .*'3 epochs' .*'2 epoks'"),
        (("--train.steps", "-2 epochs"), r"train\.steps: .*'-2 epochs'"),
        (("--schedule.milestones", "[1, 2 epoks]"), r"schedule\.milestones.*'3 epochs'.*'2 epoks'"),
        (
            ("--head.adaptive", "{kind: adaface, warmup_steps: 3 epoks}"),
            r"head\.adaptive.*warmup_steps: must be a number of steps, .*'3 epoks'",
        ),
        (("--evaluation.every", "often"), r"evaluation\.every: .*'3 epochs' .*'often'"),
        (("--seed", "3 epochs"), r"seed: .*'3 epochs'"),
        (("--optim.lr", "0.1 per 256 images"), r"optim\.lr: .*0.1 per 512 images' .*per 256"),
        (("--optim.lr", "a per 512 images"), r"optim\.lr: .*'a per 512 images'"),
        (("--train.global_batch", "many"), r"train\.global_batch .*'many'"),
        (("--data.size", "3"), r"data\.size"),
    ],
)
def test_what_is_not_a_duration_is_refused_with_its_key(load, words, message) -> None:
    with pytest.raises(ValueError, match=message):
        load(*words)


def test_a_duration_that_is_none_is_named_with_its_file_and_line(load) -> None:
    with pytest.raises(ValueError, match=r"run\.yaml:4: train\.steps: must be .*'3 epochs'"):
        load(text=BASE.replace("20 epochs", "20 epoks"))


def test_a_run_records_the_steps_it_counted(tiny: Path) -> None:
    words = ["--train.steps", "1 epoch", "--optim.lr", "0.5 per 512 images"]
    folder = train(tiny, [*words, "--train.global_batch", "26", "--schedule.warmup_steps", "0"])
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["train"]["steps"] == 3
    assert written["optim"]["lr"] == pytest.approx(0.5 * 26 / 512)
    assert load_config(folder / "config.yaml").train.steps == 3
