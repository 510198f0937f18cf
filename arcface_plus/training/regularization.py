"""The angular penalty of a run: on the layers of the net, on the class weights, or on both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from arcface_plus.distributed import all_gather_rows, rank, shard_bounds, world_size
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.randomness import output_row_generator
from arcface_plus.regularizers.angular import AngularRegularizer
from arcface_plus.regularizers.penalty import AngularPenalty
from arcface_plus.regularizers.settings import RegularizerConfig

CLASSIFIER = "classifier"  # what the class weights are called beside the net's layers


class RunRegularizer:
    """λ·Σ l(W_i) over the layers that ``config`` names, eq. (13); the same on every rank.

    MMA of the class weights is the head's own (sharded, never gathered): ``head_mma_weight`` gives
    it its λ. Other kinds gather the class weights of all ranks, C × D numbers.
    Raises ValueError for options that the kind lacks.
    """

    def __init__(
        self, config: RegularizerConfig, model: nn.Module, head: ClassifierHead, *, seed: int
    ) -> None:
        self.config, self.head, self.seed = config, head, seed
        try:
            self.penalty = AngularPenalty(
                config.kind,
                s=config.s,
                fraction=config.fraction,
                half_space=config.half_space,
                temperature=config.temperature,
            )
        except ValueError as error:
            raise ValueError(f"regularizer: {error}") from error
        self.layers: AngularRegularizer | None = None
        if config.on_net:
            self.layers = AngularRegularizer(
                model,
                config.kind,
                config.weight,
                layers="all" if config.layers in ("all", "hidden") else config.layers,
                exclude=config.exclude,
                seed=seed,
                s=config.s,
                fraction=config.fraction,
                half_space=config.half_space,
                temperature=config.temperature,
            )
        self.on_classes = config.on_output and config.kind != "mma"

    def __bool__(self) -> bool:
        return self.layers is not None or self.on_classes

    def __call__(self, step: int) -> Tensor:
        """Return the weighted penalty () of optimizer step ``step``."""
        parts = []
        if self.layers is not None:
            parts.append(self.layers(step))
        if self.on_classes:
            generator = output_row_generator(self.seed, step)
            value = self.penalty(all_class_weights(self.head), generator=generator)
            parts.append(self.config.weight * value)
        return torch.stack(parts).sum()

    def describe(self) -> str:
        """Say what is penalised, in one line."""
        count = self.config.on_output + len(self.layers.layer_names if self.layers else ())
        return f"{self.config.weight} × {self.config.kind} on {count} layers"


def head_mma_weight(config: RegularizerConfig, weight: float) -> float:
    """Return the λ of the head's own MMA: ``weight``, or the regularizer's where it covers it."""
    return config.weight if config.on_output and config.kind == "mma" else weight


def all_class_weights(head: ClassifierHead) -> Tensor:
    """Return the class weights of all ranks (C, D), of which only this rank's carry gradient.

    Every rank computes the same loss of the whole matrix, and the gradient of its own rows with the
    others held is the exact one: backward needs no collective.
    """
    sizes = [hi - lo for lo, hi in shard_bounds(head.num_classes, world_size(head.group))]
    own = head.class_weights()
    parts = list(all_gather_rows(own.detach(), head.group, sizes=sizes))
    parts[rank(head.group)] = own
    return torch.cat(parts)
