"""``study compare-margins`` on modules written here with the interface of the published ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

ARCFACE_TORCH = """
import math
import torch
from models import iresnet  # losses do not need it


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


def checkout(folder: Path, margin: str) -> Path:
    path = folder / "insightface" / "recognition" / "arcface_torch" / "losses.py"
    path.parent.mkdir(parents=True)
    path.write_text(ARCFACE_TORCH.replace("MARGIN", margin))
    return folder


def test_the_same_losses_agree(cli, tmp_path) -> None:
    answer = cli("study", "compare-margins", checkout(tmp_path, "margin"), "--batches", "2")
    assert answer.exit_code == 0, answer.output
    assert "ArcFace 0.5" in answer.stdout and "constructed" not in answer.stdout
    assert "IrvingMeng/MagFace: not in" in answer.stdout and not answer.stderr


def test_another_margin_does_not(cli, tmp_path) -> None:
    folder = checkout(tmp_path, "margin + 1e-3")
    answer = cli("study", "compare-margins", folder, "--batches", "1")
    assert answer.exit_code == 1 and "ArcFace 0.5" in answer.stderr


def test_nothing_to_compare_is_a_failure(cli, tmp_path) -> None:
    assert cli("study", "compare-margins", tmp_path).exit_code == 1


def test_bare_clone(cli, tmp_path) -> None:
    source = checkout(tmp_path / "work", "margin") / "insightface"
    git = ["git", "-C", str(source), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    bare = tmp_path / "mirror" / "deepinsight+insightface" / "repo"
    subprocess.run(["git", "clone", "-q", "--bare", str(source), str(bare)], check=True)
    answer = cli("study", "compare-margins", tmp_path / "mirror", "--batches", "1")
    assert answer.exit_code == 0, answer.output
