"""The running average of the weights: kept beside them, scored beside them, saved as the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from arcface_plus.checkpoints.parts import Part, Stored
from arcface_plus.models.batch_statistics import average_batch_norm_buffers
from arcface_plus.models.embedding_model import EmbeddingModel

OF_WEIGHTS = "_of_weights"  # what scores of the weights are called, beside those of their average
Evaluate = Callable[[EmbeddingModel, int], dict[str, float]]


class WeightAverage(Part):
    """The exponential moving average of ``model``: ``decay`` of it is kept each step.

    It begins at the weights of the first step. Batch statistics are averaged too. Moved after each
    step of ``optimizer``.
    """

    def __init__(self, model: EmbeddingModel, optimizer: Optimizer, decay: float) -> None:
        self.averaged = AveragedModel(
            model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True
        )
        optimizer.register_step_post_hook(lambda *_: self.averaged.update_parameters(model))

    @property
    def model(self) -> EmbeddingModel:
        net = self.averaged.module
        assert isinstance(net, EmbeddingModel)
        return net

    def tensors(self) -> dict[str, Stored]:
        named = {f"average.{key}": value for key, value in self.model.state_dict().items()}
        return {**named, "average_steps": self.averaged.n_averaged}


def scores(
    model: EmbeddingModel,
    average: WeightAverage | None,
    evaluations: Mapping[str, Evaluate],
    step: int,
) -> dict[str, dict[str, float]]:
    """Return what ``evaluations`` measure by their names: of the average, where there is one.

    Then the weights' own numbers are there too, under names with ``OF_WEIGHTS``. Leaves both in
    eval mode, with batch statistics averaged over ranks, on which this is called together.
    """
    beside: dict[str, dict[str, float]] = {}
    average_batch_norm_buffers(model)
    model.eval()
    scored = model
    if average is not None:
        # First, so that what the evaluations keep is in the end of the model that is saved.
        beside = {f"{kind}{OF_WEIGHTS}": call(model, step) for kind, call in evaluations.items()}
        scored = average.model
        average_batch_norm_buffers(scored)
        scored.eval()
    return {kind: call(scored, step) for kind, call in evaluations.items()} | beside
