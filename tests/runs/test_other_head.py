"""Class weights of arcface_torch's files; those of our runs are in test_beginning.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from arcface_plus.distributed import World
from arcface_plus.runs.other_head import OtherHead

ALONE = World(0, 1, torch.device("cpu"))
WEIGHT = torch.arange(35, dtype=torch.float32).view(7, 5)


def write(folder: Path, ranks: int, *, checkpoint: bool = False) -> Path:
    """Write ``WEIGHT`` as arcface_torch's ranks do: the first of them have one class more."""
    folder.mkdir()
    for rank, part in enumerate(torch.tensor_split(WEIGHT, ranks)):
        content = {"weight": part.clone()}
        if checkpoint:
            torch.save(
                {"epoch": 1, "state_dict_backbone": {}, "state_dict_softmax_fc": content},
                folder / f"checkpoint_gpu_{rank}.pt",
            )
        else:
            torch.save(content, folder / f"softmax_fc_gpu_{rank}.pt")
    return folder


def read(head: OtherHead) -> torch.Tensor:
    weight = torch.full((head.count, head.dim), torch.nan)
    for first, rows in head.parts():
        weight[first : first + len(rows)] = rows
    return weight


@pytest.mark.parametrize(("ranks", "checkpoint"), [(1, False), (3, False), (2, True), (11, False)])
def test_files_of_all_ranks_are_one_head(tmp_path, ranks, checkpoint) -> None:
    folder = write(tmp_path / "theirs", ranks, checkpoint=checkpoint)
    head = OtherHead(folder, ALONE)
    assert (head.count, head.dim) == (7, 5) and torch.equal(read(head), WEIGHT)
    one = next(folder.iterdir())
    assert torch.equal(read(OtherHead(one, ALONE)), WEIGHT), "one file means all of them"


def test_what_is_no_head_is_refused(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        OtherHead(tmp_path / "none", ALONE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"neither a run .* softmax_fc_gpu_N\.pt"):
        OtherHead(tmp_path / "empty", ALONE)
    folder = write(tmp_path / "gap", 3)
    (folder / "softmax_fc_gpu_1.pt").unlink()
    with pytest.raises(ValueError, match=r"lacks softmax_fc_gpu_1\.pt"):
        OtherHead(folder, ALONE)
    folder = write(tmp_path / "widths", 2)
    torch.save({"weight": torch.zeros(3, 4)}, folder / "softmax_fc_gpu_1.pt")
    with pytest.raises(ValueError, match="differ in width"):
        OtherHead(folder, ALONE)
    for content in ({"bias": torch.zeros(3)}, {"weight": torch.zeros(3)}, [1], "x"):
        torch.save(content, folder / "softmax_fc_gpu_1.pt")
        with pytest.raises(ValueError, match="no class weights"):
            OtherHead(folder, ALONE)
    (folder / "softmax_fc_gpu_1.pt").write_bytes(b"no torch file")
    with pytest.raises(ValueError, match=r"softmax_fc_gpu_1\.pt: "):
        OtherHead(folder, ALONE)
