"""tools/compare_margins.py on modules written here with the interface of the published ones."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ARCFACE_TORCH = """
import math
import torch
from models import iresnet  # stands for what losses do not need


class ArcFace(torch.nn.Module):
    def __init__(self, s, margin):
        super().__init__()
        self.s, self.margin = s, MARGIN

    def forward(self, logits, labels):
        index = torch.arange(len(labels))
        value = torch.cos(logits.detach().acos()[index, labels] + self.margin)
        shifted = logits.clone()
        shifted[index, labels] = logits[index, labels] + (value - logits.detach()[index, labels])
        return self.s * shifted


class CosFace(torch.nn.Module):
    def __init__(self, s, m):
        super().__init__()
        self.s, self.m = s, m

    def forward(self, logits, labels):
        one_hot = torch.nn.functional.one_hot(labels, logits.shape[1])
        return self.s * (logits - self.m * one_hot)


def CombinedMarginLoss(s, m1, m2, m3, interclass_filtering_threshold=0):
    print("constructed")
    return ArcFace(s, m2) if m2 else CosFace(s, m3)
"""


@pytest.fixture
def tool(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "compare_margins", repository / "tools" / "compare_margins.py"
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def checkout(folder: Path, margin: str) -> Path:
    path = folder / "insightface" / "recognition" / "arcface_torch" / "losses.py"
    path.parent.mkdir(parents=True)
    path.write_text(ARCFACE_TORCH.replace("MARGIN", margin))
    return folder


def test_the_same_losses_agree(tool, tmp_path, capsys) -> None:
    assert tool.main([str(checkout(tmp_path, "margin")), "--batches", "2"]) == 0
    shown = capsys.readouterr()
    assert "ArcFace 0.5" in shown.out and "constructed" not in shown.out
    assert "IrvingMeng/MagFace: not in" in shown.out and not shown.err


def test_another_margin_does_not(tool, tmp_path, capsys) -> None:
    assert tool.main([str(checkout(tmp_path, "margin + 1e-3")), "--batches", "1"]) == 1
    assert "ArcFace 0.5" in capsys.readouterr().err


def test_nothing_to_compare_is_a_failure(tool, tmp_path) -> None:
    assert tool.main([str(tmp_path)]) == 1


def test_bare_clone(tool, tmp_path) -> None:
    source = checkout(tmp_path / "work", "margin") / "insightface"
    git = ["git", "-C", str(source), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    bare = tmp_path / "mirror" / "deepinsight+insightface" / "repo"
    subprocess.run(["git", "clone", "-q", "--bare", str(source), str(bare)], check=True)
    assert tool.main([str(tmp_path / "mirror"), "--batches", "1"]) == 0
