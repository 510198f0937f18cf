"""IJB-B and IJB-C from a model or from embeddings to their numbers.

Shapes: N images, T templates, D dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from arcface_plus import distributed
from arcface_plus.data.alignment import AlignedImages
from arcface_plus.data.ijb_meta import GALLERIES, IjbFaces, Subjects, meta_file, read_subjects
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions, Progress, embed_images
from arcface_plus.evaluation.embedding.sets import EmbeddingSet
from arcface_plus.evaluation.pairs.roc import json_ready
from arcface_plus.evaluation.search.identification import IdentificationResult, identify_templates
from arcface_plus.evaluation.search.templates import TemplatePool, Templates
from arcface_plus.models.embedding_model import EmbeddingModel

_IMAGES_AT_ONCE = 4096  # a rank's part of what is pooled before the next is embedded
_SHOWN = 3


class IjbIdentification(NamedTuple):
    """Hold 1:N results by gallery, and of both galleries as one (closed set alone)."""

    galleries: dict[str, IdentificationResult]
    union: IdentificationResult

    def means(self) -> dict[str, dict[Any, float]]:
        """Return ``rank_rates`` (by k) and ``tpir`` (by FPIR): plain means over the galleries.

        A rate that one gallery does not state is left out.
        """
        found: dict[str, dict[Any, float]] = {}
        for name in ("rank_rates", "tpir"):
            rates = [getattr(result, name) for result in self.galleries.values()]
            shared = [key for key in rates[0] if all(key in each for each in rates)]
            found[name] = {key: float(np.mean([each[key] for each in rates])) for key in shared}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return plain types that JSON can hold."""
        return {
            "galleries": {name: result.to_dict() for name, result in self.galleries.items()},
            "mean": json_ready(self.means()),
            "union": self.union.to_dict(),
        }


def template_pool(
    faces: IjbFaces, *, use_norm_score: bool = True, use_detector_score: bool = True
) -> TemplatePool:
    """Return the empty pool of ``faces``; the weights are ``TemplatePool``'s."""
    return TemplatePool(
        faces.templates,
        faces.media,
        detector_scores=faces.detector_scores if use_detector_score else None,
        use_norm_score=use_norm_score,
        describe=lambda image: faces.names[image],
    )


def pool_faces(
    model: EmbeddingModel,
    faces: IjbFaces,
    images: str | Path,
    pool: TemplatePool,
    options: EmbeddingOptions,
    *,
    group: distributed.Group = None,
    progress: Progress | None = None,
) -> Templates:
    """Align, embed and pool the images of ``faces`` in the folder ``images``.

    Ranks of ``group`` share the embedding; all return the templates. Embeddings are pooled as they
    come: memory is that of a few thousand.

    Raises FileNotFoundError for missing images, before any is embedded, and as ``embed``.
    """
    root = Path(images)
    missing = [name for name in faces.names if not (root / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{root} lacks {len(missing)} of the {len(faces)} images of {faces.source}: "
            f"{', '.join(missing[:_SHOWN])}{', …' if len(missing) > _SHOWN else ''}."
        )
    size = model.preprocessing.size
    step = _IMAGES_AT_ONCE * distributed.world_size(group)
    for start in range(0, len(faces), step):
        part = slice(start, min(start + step, len(faces)))
        aligned = AlignedImages(faces.names[part], faces.landmarks[part], root=root, size=size)
        pool.add(embed_images(model, aligned, options, group=group))
        if progress is not None:
            progress(part.stop, len(faces))
    return pool.finish()


def pool_embedded(embedded: EmbeddingSet, faces: IjbFaces, pool: TemplatePool) -> Templates:
    """Pool embeddings that exist, matched to ``faces`` by the image's name.

    Raises ValueError for images that are missing or there twice, and as ``TemplatePool``.
    """
    rows = embedded.rows_of(faces.names, faces.source)
    for start in range(0, len(rows), _IMAGES_AT_ONCE):
        pool.add(embedded.embeddings[rows[start : start + _IMAGES_AT_ONCE]])
    return pool.finish()


class IjbSearches(NamedTuple):
    """Hold the probes of a target and its galleries by name."""

    probes: Subjects
    galleries: dict[str, Subjects]


def read_searches(meta: str | Path, target: str, known: np.ndarray) -> IjbSearches:
    """Read the 1:N lists of ``target`` in the folder ``meta``.

    ``known``: sorted ids of templates with images. Raises as ``read_subjects``.
    """
    return IjbSearches(
        read_subjects(meta_file(meta, target, "1N_probe_mixed.csv"), known),
        {
            name: read_subjects(meta_file(meta, target, f"1N_gallery_{name}.csv"), known)
            for name in GALLERIES[target]
        },
    )


def identify_ijb(templates: Templates, searches: IjbSearches) -> IjbIdentification:
    """Search each gallery for the mixed probes, and both galleries as one.

    Raises ValueError for a template that is in both galleries, and as ``identify``.
    """
    probes, galleries = searches
    return IjbIdentification(
        galleries={
            name: identify_templates(templates, gallery, probes)
            for name, gallery in galleries.items()
        },
        union=identify_templates(templates, _union(list(galleries.values())), probes),
    )


def _union(galleries: list[Subjects]) -> Subjects:
    templates = np.concatenate([gallery.templates for gallery in galleries])
    found, counts = np.unique(templates, return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"Template {found[counts > 1][0]} is in both galleries: "
            f"{' and '.join(gallery.source for gallery in galleries)}."
        )
    subjects = np.concatenate([gallery.subjects for gallery in galleries])
    return Subjects(templates, subjects, " and ".join(gallery.source for gallery in galleries))
