"""Train, verify and export face embeddings with ArcFace+: ArcFace and the MMA penalty.

Data flows one way, and imports point backwards only:

yaml_files         YAML files laid over their bases, with the line of every key
shipped            configurations that come with the package, by name; configs/ has them
settings           sections of settings, overrides, errors with file and line
randomness         every keyed stream of random numbers, with its version
files              files written beside and renamed; logs cut to a step; hashes
devices            how the host works beside a GPU without waiting for it
distributed        process groups and collectives; the identity at world size 1
process_group      the default process group: made, and left so that no failure hangs
watch              what each rank is doing; who failed, who is late, where all stop
data/              images, record files, pair sets, sources, batches
checkpoints/       snapshots, saved beside training, that any number of ranks can load
models/            embedding nets, classification nets, weights, ONNX
regularizers/      MMA, its rivals, exact nearest rows, sharded MMA
losses/            softmax, margins, the class-sharded head, closeness and diversity, theory
training/          the loop, the state of a run, optimizers, guard, monitor
evaluation/        embedding, 10-fold verification, search, the HTML report
export/            embeddings of a whole data set
runs/              a run put together: configuration, build, ``train``, folder, results
studies/           tables and figures of the papers
cli/               words to calls; __main__ is ``python -m arcface_plus``

Names are imported when first used, so that ``import arcface_plus`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "AngularRegularizer": "arcface_plus.regularizers.angular",
    "ClassifierHead": "arcface_plus.losses.head.classifier",
    "HeadOutput": "arcface_plus.losses.head.classifier",
    "Margin": "arcface_plus.losses.margins.family",
    "margin_logits": "arcface_plus.losses.margins.family",
    "mma_loss": "arcface_plus.regularizers.mma",
    "nearest_neighbors": "arcface_plus.regularizers.nearest.search",
    "build_model": "arcface_plus.models",
    "load_model": "arcface_plus.models",
    "RecordReader": "arcface_plus.data.records.reader",
    "RecordWriter": "arcface_plus.data.records.reader",
    "PairSet": "arcface_plus.data.pairs.sets",
    "load_pairs": "arcface_plus.data.pairs.sets",
    "verify": "arcface_plus.evaluation.pairs.verification",
    "VerificationResult": "arcface_plus.evaluation.pairs.verification",
    "embed": "arcface_plus.evaluation.embedding.embed",
    "solve_tammes": "arcface_plus.studies.tammes.solve",
    "load_config": "arcface_plus.runs.configuration",
    "RunConfig": "arcface_plus.runs.configuration",
    "train": "arcface_plus.runs.train",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from arcface_plus.data.pairs.sets import PairSet as PairSet
    from arcface_plus.data.pairs.sets import load_pairs as load_pairs
    from arcface_plus.data.records.reader import RecordReader as RecordReader
    from arcface_plus.data.records.reader import RecordWriter as RecordWriter
    from arcface_plus.evaluation.embedding.embed import embed as embed
    from arcface_plus.evaluation.pairs.verification import VerificationResult as VerificationResult
    from arcface_plus.evaluation.pairs.verification import verify as verify
    from arcface_plus.losses.head.classifier import ClassifierHead as ClassifierHead
    from arcface_plus.losses.head.classifier import HeadOutput as HeadOutput
    from arcface_plus.losses.margins.family import Margin as Margin
    from arcface_plus.losses.margins.family import margin_logits as margin_logits
    from arcface_plus.models import build_model as build_model
    from arcface_plus.models import load_model as load_model
    from arcface_plus.regularizers.angular import AngularRegularizer as AngularRegularizer
    from arcface_plus.regularizers.mma import mma_loss as mma_loss
    from arcface_plus.regularizers.nearest.search import nearest_neighbors as nearest_neighbors
    from arcface_plus.runs.configuration import RunConfig as RunConfig
    from arcface_plus.runs.configuration import load_config as load_config
    from arcface_plus.runs.train import train as train
    from arcface_plus.studies.tammes.solve import solve_tammes as solve_tammes


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("arcface_plus")
        except metadata.PackageNotFoundError:  # on the path, not installed
            return "0+unknown"
    if name not in _HOMES:
        raise AttributeError(f"module 'arcface_plus' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
