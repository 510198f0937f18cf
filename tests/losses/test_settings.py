from __future__ import annotations

from pathlib import Path

import pytest

from arcface_plus.losses.margins.adacos import AdaCos
from arcface_plus.losses.margins.adaface import AdaFace
from arcface_plus.losses.margins.curricularface import CurricularFace
from arcface_plus.losses.margins.elasticface import ElasticFace
from arcface_plus.losses.margins.family import Margin
from arcface_plus.losses.margins.magface import MagFace
from arcface_plus.losses.margins.mv_softmax import MVSoftmax
from arcface_plus.losses.margins.uniface import UniFace
from arcface_plus.losses.settings import HeadConfig
from arcface_plus.runs.configuration import RunConfig, load_config

KINDS = [MVSoftmax, CurricularFace, MagFace, AdaFace, ElasticFace, UniFace, AdaCos]


@pytest.mark.parametrize("loss", KINDS)
def test_every_kind_is_a_setting(loss: type) -> None:
    default = loss()
    config = HeadConfig(adaptive={"kind": default.kind})
    assert config.margin_loss == default
    assert HeadConfig(**config.model_dump()) == config
    assert "kind" not in repr(default)


def test_fixed_family_and_none() -> None:
    assert HeadConfig().margin_loss == Margin()
    assert HeadConfig(margin={"m2": 0.3, "m3": 0.2}).margin_loss == Margin(m2=0.3, m3=0.2)
    assert HeadConfig(logits="linear").margin_loss is None


def test_what_does_not_go_together_names_the_key() -> None:
    with pytest.raises(ValueError, match=r"adaptive.*\n.*MagFace\.l_a is 200"):
        HeadConfig(adaptive={"kind": "magface", "l_a": 200})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adaptive": {"kind": "adaface"}, "logits": "linear"}, "made of cosines"),
        ({"adaptive": {"kind": "adaface"}, "margin": {"m2": 0.3}}, "takes the place of margin"),
        ({"adaptive": {"kind": "mv_softmax"}, "filter_threshold": 0.4}, "gives more weight"),
        ({"adaptive": {"kind": "curricularface"}, "filter_threshold": 0.4}, "gives more weight"),
        ({"adaptive": {"kind": "arcface"}}, "kind must be mv_softmax, curricularface"),
        ({"adaptive": {"m": 0.3}}, "kind must be"),
        ({"logits": "linear", "margin": {"m2": 0.3}}, "margin does nothing"),
        ({"bias": True}, "bias is for linear logits"),
        ({"centres": 3, "logits": "linear"}, "linear logits know one row a class"),
        ({"centres": 3, "init": "class_means"}, "give each class one row"),
        ({"centres": 3, "from_head": "runs/other"}, "give each class one row"),
        ({"bias": True, "logits": "linear", "sample_rate": 0.1}, "every class in every step"),
    ],
)
def test_refuses_combinations(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        HeadConfig(**settings)


def load(folder: Path, adaptive: str, *overrides: str) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(
        f"name: x\ndata: {{source: synthetic, num_classes: 9}}\nhead:\n  adaptive: {adaptive}\n"
    )
    return load_config(path, overrides)


def test_file_and_overrides(tmp_path: Path) -> None:
    config = load(tmp_path, "{kind: adaface, m: 0.3}", "--head.adaptive.h", "0.5")
    assert (config.head.adaptive.m, config.head.adaptive.h) == (0.3, 0.5)
    again = tmp_path / "again.yaml"
    again.write_text(config.to_yaml())
    assert load_config(again) == config
    assert load(tmp_path, "{kind: adaface}", "--head.adaptive", "null").head.adaptive is None


@pytest.mark.parametrize(
    ("adaptive", "message"),
    [
        ("{kind: adaface, l_a: 1}", r"run.yaml:4: unknown key 'head.adaptive.l_a'"),
        ("{kind: magface, la: 1}", r"did you mean 'head.adaptive.l_a'"),
        ("{kind: adaface, m: -1}", r"run.yaml:4: head.adaptive.m: .*\(got -1\)"),
        ("{kind: adaface, m: yes}", r"head.adaptive.m: this setting is not a yes or no"),
        ("{kind: arcface, m: 1}", r"run.yaml:4: head.adaptive: kind must be mv_softmax"),
        ("{kind: [adaface]}", r"run.yaml:4: head.adaptive: kind must be mv_softmax"),
        ("adaface", r"run.yaml:4: head.adaptive: kind must be mv_softmax"),
    ],
)
def test_file_errors_name_line_and_key(tmp_path: Path, adaptive: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, adaptive)
