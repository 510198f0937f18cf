"""Plant faults in a folder of faces and count what `arcface-plus data clean` finds of them.

    python tools/bench/bench_clean.py DATA MODEL [--preprocessing JSON] [--leave-out LIST]
        [--embeddings FILE] [--kinds labels merge …] [--draws 3] [--share 0.05] [--json out.json]

DATA is a folder PERSON/IMAGE. LIST names photographs, one at the start of each line, that are left
out because their labels are doubtful. --embeddings: what `arcface-plus embed` exported of DATA with
MODEL, so that only copies are embedded here. In each draw, --share of

- photographs exchange labels in pairs (labels),
- photographs get a copy, encoded anew, scaled to 50-80 %, brighter or darker, or mirrored, half of
  them with another person (duplicates),
- people are cut into two labels at random (merge), and
- labels are two people put together (split),
- people are cut as for merge, and named by the log of a head that trains on the embeddings with a
  linear layer before it: 500 steps, ArcFace with m = 0.5, s = 32, MMA, a warm-up (training).

One kind is planted at a time; the search is that of the command, with its thresholds. DATA has
faults of its own: what is found in it before anything is planted is counted apart, as there before.
Bars over all draws, from 1 000 photographs on: 90 % of wrong labels at 90 % precision, 95 % of cut
people at 95 %, all copies.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from math import cos, pi
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from arcface_plus.data.images import encode_jpeg
from arcface_plus.data.lazy_images import EncodedImages, ImageSequence
from arcface_plus.evaluation.cleaning.duplicates import thumbnail
from arcface_plus.evaluation.cleaning.findings import KINDS
from arcface_plus.evaluation.cleaning.photographs import Looks, look, open_photographs
from arcface_plus.evaluation.cleaning.search import Found, find
from arcface_plus.evaluation.embedding.embed import SelectedImages, embed
from arcface_plus.evaluation.embedding.sets import read_embedding_set
from arcface_plus.losses.head.classifier import ClassifierHead
from arcface_plus.losses.margins.family import Margin
from arcface_plus.models import Preprocessing, load_model
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.training.health.uniform_monitor import NearClasses

BARS = {"labels": (0.90, 0.90), "duplicates": (1.0, 0.0), "merge": (0.95, 0.95)}
ALL = (*KINDS, "training")
FULL_SIZE = 1_000
Names = set[Any]  # rows, labels, or frozen sets of two of them


@dataclass(frozen=True)
class Faces:
    """Hold N faces: embeddings (N, D), labels (N,), what is seen without a model, the images."""

    embeddings: np.ndarray
    labels: np.ndarray
    looks: Looks
    images: ImageSequence


Plant = Callable[[Faces, float, np.random.Generator], tuple[Faces, Names]]


def swap_labels(faces: Faces, share: float, rng: np.random.Generator) -> tuple[Faces, Names]:
    """Exchange the labels of photographs in pairs; return the faces and whose labels are wrong."""
    pairs = int(share * len(faces.labels)) // 2
    first, second = rng.choice(len(faces.labels), (2, pairs), replace=False)
    labels = faces.labels.copy()
    labels[first], labels[second] = faces.labels[second], faces.labels[first]
    return replace(faces, labels=labels), set(np.flatnonzero(labels != faces.labels).tolist())


def cut_people(faces: Faces, share: float, rng: np.random.Generator) -> tuple[Faces, Names]:
    """Give half of some people's photographs another label; return the pairs of labels."""
    labels, count = faces.labels.copy(), int(faces.labels.max()) + 1
    people, sizes = np.unique(labels, return_counts=True)
    cut = rng.choice(people[sizes >= 4], max(1, round(share * len(people))), replace=False)
    for number, person in enumerate(cut.tolist()):
        rows = rng.permutation(np.flatnonzero(labels == person))
        labels[rows[len(rows) // 2 :]] = count + number
    truth = {frozenset({person, count + number}) for number, person in enumerate(cut.tolist())}
    return replace(faces, labels=labels), truth


def join_people(faces: Faces, share: float, rng: np.random.Generator) -> tuple[Faces, Names]:
    """Put people together in pairs; return the labels that are two people."""
    people = np.unique(faces.labels)
    first, second = rng.choice(people, (2, max(1, round(share * len(people)))), replace=False)
    number = np.arange(int(people.max()) + 1)
    number[second] = first
    return replace(faces, labels=number[faces.labels]), set(first.tolist())


def add_copies(
    faces: Faces, share: float, rng: np.random.Generator, model: EmbeddingModel
) -> tuple[Faces, Names]:
    """Add copies, every second one with another person; return the pairs of copy and original."""
    count = len(faces.labels)
    originals = rng.choice(count, max(4, int(share * count)), replace=False)
    data = [copied(faces.images[int(row)], number % 4, rng) for number, row in enumerate(originals)]
    images = EncodedImages(data, source="copies")
    made = embed(model, images, flip=model.preprocessing.flip_sum, resize=True)
    strangers = rng.permutation(faces.labels)[: len(originals)]
    labels = np.where(np.arange(len(originals)) % 8 < 4, faces.labels[originals], strangers)
    seen = [images[i] for i in range(len(images))]
    looks = Looks(
        np.concatenate([faces.looks.thumbnails, [thumbnail(image) for image in seen]]),
        np.concatenate([faces.looks.pixels, [image[..., 0].size for image in seen]]),
        np.concatenate([faces.looks.size, [len(blob) for blob in data]]),
        "",
    )
    more = Faces(
        np.concatenate([faces.embeddings, made]),
        np.concatenate([faces.labels, labels]),
        looks,
        faces.images,
    )
    return more, {frozenset({count + i, int(row)}) for i, row in enumerate(originals)}


def copied(image: np.ndarray, way: int, rng: np.random.Generator) -> bytes:
    """Return a JPEG of ``image``: of quality 20-70, scaled, brighter or darker, or mirrored."""
    if way == 1:
        scale = rng.uniform(0.5, 0.8)
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    elif way == 2:
        image = cv2.convertScaleAbs(image, alpha=rng.uniform(0.8, 1.2), beta=rng.uniform(-40, 40))
    elif way == 3:
        image = np.ascontiguousarray(image[:, ::-1])
    return encode_jpeg(image, int(rng.integers(20, 71)))


def named(found: Found, kind: str) -> Names:
    """Return what is found of ``kind``, the same whichever way round it is said.

    Of copies of one photograph, every two.
    """
    names: Names = set()
    copies: dict[int | None, list[int]] = {}
    for one in found.findings:
        if one.kind == kind == "duplicates":
            copies.setdefault(one.kept, []).append(one.photographs[0])
        elif one.kind == kind == "merge":
            names.add(frozenset({one.person, one.other}))
        elif one.kind == kind:
            names.add(one.photographs[0] if kind == "labels" else one.person)
    for kept, others in copies.items():
        names |= {frozenset(pair) for pair in combinations([kept, *others], 2)}
    return names


def counted(listed: Names, truth: Names, before: Names, kind: str) -> dict[str, int]:
    """Return how many were planted, how many of them are found, and what else is listed."""
    others = listed - truth
    if kind == "duplicates":  # a copy of a copy that was there before is no news
        originals = {max(pair): min(pair) for pair in truth}
        said = [frozenset(originals.get(row, row) for row in pair) for pair in others]
        others = {pair for pair in said if len(pair) == 2}
    return {
        "planted": len(truth),
        "found": len(truth & listed),
        "false": len(others - before),
        "there_before": len(others & before),
    }


def named_in_training(faces: Faces, seed: int) -> Names:
    """Return the pairs of labels that the log of a run on the embeddings calls one person."""
    torch.manual_seed(seed)
    inputs = F.normalize(torch.from_numpy(faces.embeddings).float())
    labels, dim = torch.from_numpy(faces.labels), faces.embeddings.shape[1]
    classes = int(labels.max()) + 1
    layer, head = nn.Linear(dim, dim), ClassifierHead(classes, dim, Margin(s=32), mma_weight=0.03)
    nn.init.eye_(layer.weight)
    weights = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=5e-4)
    source: Any = SimpleNamespace(labels=faces.labels, names=lambda: None)
    world: Any = SimpleNamespace(is_main=True)
    with TemporaryDirectory() as folder:
        epoch = -(-len(labels) // 256)
        near = NearClasses(head, source, steps=epoch, folder=Path(folder), world=world)
        for step in range(1, 501):
            rows = torch.randperm(len(labels))[:256]
            optimizer.zero_grad()
            head(layer(inputs[rows]), labels[rows], step=step).loss.backward()
            nn.utils.clip_grad_norm_(weights, 5.0)
            optimizer.param_groups[0]["lr"] = 0.1 * min(step / 50, (1 + cos(pi * step / 500)) / 2)
            optimizer.step()
            if step % 20 == 0:
                terms = head.mma.terms(head.weight, step, need_gradient=False)
                near.warnings(step, terms.angle.rad2deg(), terms.index)
        return {frozenset(map(int, pair)) for pair in near.named or ()}


def measure(
    faces: Faces, model: EmbeddingModel, kinds: Sequence[str], draws: int, share: float
) -> dict[str, list[dict[str, int]]]:
    """Return what ``counted`` says of each kind and draw."""
    plants: dict[str, Plant] = {
        "labels": swap_labels,
        "duplicates": partial(add_copies, model=model),
        "merge": cut_people,
        "split": join_people,
        "training": cut_people,
    }
    untouched = find(faces.embeddings, faces.labels, faces.looks)

    def listed(of: Faces, kind: str, seed: int) -> Names:
        if kind == "training":
            return named_in_training(of, seed)
        return named(find(of.embeddings, of.labels, of.looks), kind)

    results: dict[str, list[dict[str, int]]] = {}
    for kind in kinds:
        before, results[kind] = named(untouched, "merge" if kind == "training" else kind), []
        for seed in range(draws):
            planted, truth = plants[kind](faces, share, np.random.default_rng(seed))
            row = counted(listed(planted, kind, seed), truth, before, kind)
            results[kind].append(row)
            print(
                f"{kind:<11} draw {seed}: " + ", ".join(f"{n} {v}" for n, v in row.items()),
                flush=True,
            )
    return results


def open_faces(options: argparse.Namespace, model: EmbeddingModel) -> Faces:
    photographs = open_photographs(options.data)
    listed = options.leave_out.read_text().splitlines() if options.leave_out else []
    doubtful = {line.split()[0] for line in listed if line.strip()}
    rows = np.array([i for i, key in enumerate(photographs.keys) if key not in doubtful])
    images = SelectedImages(photographs.images, rows)
    if options.embeddings:
        exported = read_embedding_set(options.embeddings)
        keys = [photographs.keys[row] for row in rows]
        embeddings = exported.embeddings[exported.rows_of(keys, str(options.data))]
    else:
        embeddings = embed(model, images, flip=model.preprocessing.flip_sum)
    looks = look(photographs)
    seen = Looks(looks.thumbnails[rows], looks.pixels[rows], looks.size[rows], "")
    return Faces(embeddings, photographs.images.labels[rows], seen, images)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--preprocessing", help="JSON, for files that do not state it")
    parser.add_argument("--leave-out", type=Path)
    parser.add_argument("--embeddings", type=Path)
    parser.add_argument("--kinds", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--json", type=Path, help="write the results there as well")
    options = parser.parse_args()
    stated = options.preprocessing and Preprocessing.from_json(options.preprocessing)
    model = load_model(options.model, preprocessing=stated)
    faces = open_faces(options, model)
    results, missed = measure(faces, model, options.kinds, options.draws, options.share), False
    print(f"\n{'kind':<12}{'planted':>8}{'found':>8}{'precision':>11}   there before, a draw")
    for kind, rows in results.items():
        total = {name: sum(row[name] for row in rows) for name in rows[0]}
        recall = total["found"] / total["planted"]
        precision = total["found"] / max(1, total["found"] + total["false"])
        before = total["there_before"] / len(rows)
        print(f"{kind:<12}{total['planted']:>8}{recall:>8.1%}{precision:>11.1%}   {before:.1f}")
        bar = BARS.get(kind, (0.0, 0.0))
        missed |= recall < bar[0] or precision < bar[1]
    if options.json:
        report = {"photographs": len(faces.labels), "share": options.share, "results": results}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(missed and len(faces.labels) >= FULL_SIZE)


if __name__ == "__main__":
    raise SystemExit(main())
