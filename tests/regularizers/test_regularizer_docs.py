"""The snippets of docs/regularizers.md, run as they are printed there.

Lightning and transformers are stood in for by classes with the hooks that the snippets use.
"""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from arcface_plus.regularizers.angular import AngularRegularizer
from arcface_plus.regularizers.mma import mma_loss
from arcface_plus.regularizers.penalty import KINDS


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "regularizers.md").read_text(encoding="utf-8")


def snippet(page: str, heading: str) -> str:
    """Return the first Python block under ``heading``."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found.group(1)


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(5, 6, generator=generator), torch.randint(0, 4, (5,), generator=generator))
        for _ in range(count)
    ]


def penalty(model: nn.Sequential) -> Tensor:
    return 0.03 * (mma_loss(model[0].weight) + mma_loss(model[2].weight))


def gradient_of(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    module = ModuleType(name)
    module.__dict__.update(members)
    monkeypatch.setitem(sys.modules, name, module)


def test_loop_of_your_own(page: str) -> None:
    model, by_hand = make(), make()
    loader = batches(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names: dict[str, Any] = {"model": model, "loader": loader, "optimizer": optimizer}
    exec(snippet(page, "In a loop of your own"), names | {"criterion": nn.CrossEntropyLoss()})
    for images, labels in loader:
        loss = F.cross_entropy(by_hand(images), labels) + penalty(by_hand)
        with torch.no_grad():
            for p, g in zip(by_hand.parameters(), gradient_of(by_hand, loss), strict=True):
                p -= 0.1 * g
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


class LightningModule(nn.Module):
    global_step = 0


def test_lightning(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "lightning", LightningModule=LightningModule)
    names: dict[str, Any] = {}
    exec(snippet(page, "PyTorch Lightning"), names)
    net = make()
    classifier = names["Classifier"](net)
    (batch,) = batches(1)
    loss = classifier.training_step(batch, 0)
    expected = F.cross_entropy(net(batch[0]), batch[1]) + penalty(net)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient_of(net, loss), gradient_of(net, expected))
    assert set(classifier.state_dict()) == {f"net.{name}" for name in net.state_dict()}


class FakeTrainer:
    """Accumulates micro-batches as transformers' Trainer does."""

    def __init__(self, model: nn.Module, *, accumulate: int, accepts_loss_kwargs: bool) -> None:
        self.model, self.model_accepts_loss_kwargs = model, accepts_loss_kwargs
        self.args = SimpleNamespace(gradient_accumulation_steps=accumulate)
        self.state = SimpleNamespace(global_step=0)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: tuple[Tensor, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: int | None = None,
    ) -> Any:
        outputs = model(inputs[0])
        total = F.cross_entropy(outputs, inputs[1], reduction="sum")
        loss = total / (num_items_in_batch or len(inputs[1]))
        return (loss, outputs) if return_outputs else loss

    def training_step(self, micro_batches: list[tuple[Tensor, Tensor]]) -> None:
        items = sum(len(labels) for _, labels in micro_batches)
        known = items if self.model_accepts_loss_kwargs else None
        for inputs in micro_batches:
            loss = self.compute_loss(self.model, inputs, num_items_in_batch=known)
            if known is None:
                loss = loss / self.args.gradient_accumulation_steps
            loss.backward()


@pytest.mark.parametrize("accepts_loss_kwargs", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_hugging_face(
    page: str, monkeypatch: pytest.MonkeyPatch, accumulate: int, accepts_loss_kwargs: bool
) -> None:
    stand_in(monkeypatch, "transformers", Trainer=FakeTrainer)
    names: dict[str, Any] = {}
    exec(snippet(page, "Hugging Face Trainer"), names)
    model = make()
    trainer = names["RegularizedTrainer"](
        model, accumulate=accumulate, accepts_loss_kwargs=accepts_loss_kwargs
    )
    micro_batches = batches(accumulate)
    plain = copy.deepcopy(model)
    trainer.training_step(micro_batches)  # before a regularizer is set
    images, labels = (torch.cat(parts) for parts in zip(*micro_batches, strict=True))
    loss = F.cross_entropy(plain(images), labels)
    torch.testing.assert_close([p.grad for p in model.parameters()], gradient_of(plain, loss))

    trainer.regularizer = AngularRegularizer(model, weight=0.03)
    model.zero_grad()
    trainer.training_step(micro_batches)
    loss = F.cross_entropy(plain(images), labels) + penalty(plain)
    torch.testing.assert_close([p.grad for p in model.parameters()], gradient_of(plain, loss))

    model.eval()
    evaluated, outputs = trainer.compute_loss(model, (images, labels), return_outputs=True)
    torch.testing.assert_close(evaluated, F.cross_entropy(outputs, labels))


def test_every_kind_and_function_is_in_the_table(page: str) -> None:
    section = page.split("\n## Kinds\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert tuple(rows) == KINDS
    for kind in KINDS:
        assert f"{kind}_loss`" in page
