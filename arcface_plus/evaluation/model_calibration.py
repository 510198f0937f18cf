"""The calibration of a model on a pair set: measured, stored beside the model, read back.

A run folder holds it as ``calibration.json``; beside any other weights file ``NAME`` it is
``NAME.calibration.json``. The same content in a file of one's own choice is a threshold card. It
knows weights, preprocessing and flip that it was measured with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from arcface_plus.evaluation.embedding.set_files import ORIGIN, Origin, origin_of
from arcface_plus.evaluation.pairs.calibration import (
    CalibrationQuality,
    RatioCurve,
    calibration_quality,
    fit_ratios,
    held_out_ratios,
)
from arcface_plus.evaluation.pairs.intervals import threshold_at_far
from arcface_plus.evaluation.scoring import Entry
from arcface_plus.files import written_beside
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.weight_files import RUN_WEIGHTS, weights_path


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Threshold(_Stored):
    """A cosine above which pairs pass, with the rates measured there and 95 % intervals.

    ``false_accepts``: how many of the impostor pairs pass. Calibrations written by older releases
    know neither these nor the intervals of threshold, FAR and TAR.
    """

    far: float = Field(gt=0, le=1)
    cosine: float
    tar: float
    cosine_interval: tuple[float, float] | None = None
    far_interval: tuple[float, float] | None = None
    tar_interval: tuple[float, float] | None = None
    false_accepts: int | None = None
    coarse: bool  # fewer than ten false accepts decide


class MeasuredOn(_Stored):
    """The pair set: ``units`` of ``basis`` (people, photographs or pairs) were in it."""

    name: str
    fingerprint: str
    genuine: int
    impostor: int
    basis: str
    units: int


class Calibration(_Stored):
    """Hold what a model's cosines mean: thresholds, likelihood ratios and how good these are."""

    format_version: Literal[1] = 1
    origin: Origin
    pairs: MeasuredOn
    thresholds: tuple[Threshold, ...]
    ratios: RatioCurve
    held_out: CalibrationQuality

    @field_validator("ratios")
    @classmethod
    def _rising(cls, curve: RatioCurve) -> RatioCurve:
        if len(curve.cosines) != len(curve.log_ratios) or len(curve.cosines) < 2:
            raise ValueError("it needs as many log_ratios as cosines, at least 2")
        for values in (curve.cosines, curve.log_ratios):
            if not all(map(math.isfinite, values)) or any(b < a for a, b in pairwise(values)):
                raise ValueError("its numbers must be finite and must not fall")
        return curve

    def threshold(self, far: float | None = None) -> Threshold | None:
        """Return the threshold at ``far``; without, at the lowest rate that ten false accepts show.

        None where no rate could be measured. Raises ValueError for a rate that is not recorded.
        """
        if far is None:
            sure = [each for each in self.thresholds if not each.coarse] or self.thresholds
            return min(sure, key=lambda each: each.far, default=None)
        for each in self.thresholds:
            if each.far == far:
                return each
        recorded = ", ".join(f"{each.far:g}" for each in self.thresholds) or "none"
        raise ValueError(
            f"no threshold for a FAR of {far:g} is recorded, only for {recorded}; choose one of "
            "them, or calibrate on more impostor pairs (verify --calibrate --far)."
        )


def calibrate(entry: Entry) -> Calibration:
    """Return the calibration of a model on the pair set that ``entry`` scored (``score_model``)."""
    facts, section, result = entry.facts, entry.section, entry.section.result
    cosines, is_same = 1 - section.distances / 2, section.is_same
    held_out = held_out_ratios(cosines, is_same, result.folds)
    return Calibration(
        origin=Origin(**{name: facts[name] for name in ORIGIN}),
        pairs=MeasuredOn(
            name=facts["name"],
            fingerprint=facts["fingerprint"],
            genuine=result.genuine_pairs,
            impostor=result.impostor_pairs,
            basis=entry.units.basis,
            units=entry.units.count,
        ),
        thresholds=tuple(_thresholds(entry)),
        ratios=fit_ratios(cosines, is_same),
        held_out=calibration_quality(held_out, is_same, result.folds),
    )


def _thresholds(entry: Entry) -> Iterator[Threshold]:
    section, result = entry.section, entry.section.result
    tar_ends = dict(zip(entry.intervals.fars.tolist(), entry.intervals.tar.tolist(), strict=True))
    for far, tar in result.tar_at_far.items():
        if not math.isfinite(result.tar_thresholds[far]):
            continue
        found = threshold_at_far(section.distances, section.is_same, entry.units, far)
        low, high = found.threshold_interval
        yield Threshold(
            far=far,
            cosine=1 - found.threshold / 2,
            tar=tar,
            cosine_interval=(1 - high / 2, 1 - low / 2),
            far_interval=found.far_interval,
            tar_interval=tar_ends[far],
            false_accepts=round(found.far_reached * result.impostor_pairs),
            coarse=found.coarse,
        )


def calibration_file(model: str | Path) -> Path:
    """Return where the calibration of a run folder or weights file is, as ``weights_path``."""
    weights = weights_path(model)
    if weights.name == RUN_WEIGHTS:
        return weights.with_name("calibration.json")
    return weights.with_name(f"{weights.name}.calibration.json")


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration beside ``path`` and rename it."""
    with written_beside(path) as beside:
        beside.write_text(calibration.model_dump_json(indent=1) + "\n", encoding="utf-8")


def load_card(path: Path, model: EmbeddingModel) -> Calibration:
    """Return the card of ``model`` in the file, as ``load_calibration`` but the file must exist."""
    found = load_calibration(path, model)
    if found is None:
        raise FileNotFoundError(f"There is no card {path}; verify --card writes one.")
    return found


def load_calibration(path: Path, model: EmbeddingModel) -> Calibration | None:
    """Return the calibration of ``model`` in the file, None where there is no file.

    Raises ValueError naming the file where it is damaged or of another model.
    """
    if not path.is_file():
        return None
    try:
        calibration = Calibration.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{path}: not a calibration: {place + ': ' if place else ''}{first['msg']}; calibrate "
            "again (verify --calibrate)."
        ) from error
    if calibration.origin != origin_of(model, flip=calibration.origin.flip):
        raise ValueError(
            f"{path} is of another model: weights or preprocessing differ; calibrate again (verify "
            "--calibrate)."
        )
    return calibration
