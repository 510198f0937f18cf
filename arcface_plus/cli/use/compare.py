"""``arcface-plus compare``: two photographs, one person or two?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arcface_plus.cli.data.align import Align, Detector
from arcface_plus.cli.model_options import Preprocessing, Resize, parse_preprocessing
from arcface_plus.cli.use.photographs import Card, Model, embed_faces, read_calibration, read_faces

if TYPE_CHECKING:
    from arcface_plus.evaluation.model_calibration import Calibration


def compare_command(
    first: Annotated[Path, typer.Argument(metavar="A", help="A photograph.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another photograph.")],
    model: Model,
    align: Align = False,
    detector: Detector = "mtcnn",
    resize: Resize = False,
    card: Card = None,
    far: Annotated[
        float | None,
        typer.Option(
            help="Decide at this recorded false accept rate (the lowest one that ten false accepts"
            " show)."
        ),
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option(
            help="How probable one person is before looking, such as 0.5: states the probability"
            " after it."
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw both faces side by side into this .png or .jpg.")
    ] = None,
    preprocessing: Preprocessing = None,
) -> None:
    """Compare two photographs: cosine, decision and likelihood ratio, as calibrated.

    Thresholds and likelihood ratios are those that verify --calibrate stored with the model,
    or those of a --card.
    """
    from arcface_plus.evaluation.pairs.calibration import probability
    from arcface_plus.evaluation.pairs.verification import squared_distances
    from arcface_plus.evaluation.photographs import check_picture, draw_comparison
    from arcface_plus.models import load_model

    if prior is not None:
        probability(0.0, prior)  # refuses a wrong prior before the work
    if picture is not None:
        check_picture(picture)
    network = load_model(model, preprocessing=parse_preprocessing(preprocessing))
    calibration = read_calibration(model, card, network)
    if calibration is None and (far is not None or prior is not None):
        raise ValueError(f"--far and --prior need a calibration: {_how_to_calibrate(model)}")
    faces = read_faces((first, second), network, align, detector, resize)
    flip = calibration.origin.flip if calibration else network.preprocessing.flip_sum
    a, b = embed_faces(faces, network, flip=flip, resize=resize)
    cosine = 1 - float(squared_distances(a[None], b[None])[0]) / 2
    lines = [f"cosine {cosine:.4f}"]
    if calibration is None:
        lines.append("not calibrated: no threshold, no likelihood ratio")
    else:
        lines += verdict(calibration, cosine, far, prior)
    typer.echo("\n".join(lines))
    if calibration is None:
        typer.echo(_how_to_calibrate(model))
    if picture is not None:
        draw_comparison(picture, faces, [f"{first.name} | {second.name}", *lines])
        typer.echo(f"Wrote {picture}")


def verdict(
    calibration: Calibration, cosine: float, far: float | None, prior: float | None
) -> list[str]:
    """Return the decision, the likelihood ratio and the probability in words, a line each."""
    from arcface_plus.evaluation.pairs.calibration import probability

    lines = []
    threshold, name = calibration.threshold(far), calibration.pairs.name
    if threshold is not None:
        same = "the same person" if cosine > threshold.cosine else "not the same person"
        coarse = ", coarse" if threshold.coarse else ""
        lines.append(
            f"{same}: threshold {threshold.cosine:.4f} (FAR {threshold.far:g} on the pair set "
            f"{name}{coarse})"
        )
    log_ratio = float(calibration.ratios.at(cosine))
    bound = log_ratio in (calibration.ratios.log_ratios[0], calibration.ratios.log_ratios[-1])
    note = "; its pairs cannot show more" if bound else ""
    lines.append(
        f"likelihood ratio {math.exp(log_ratio):.3g} (log10 {log_ratio / math.log(10):+.2f}{note})"
    )
    if prior is not None:
        after = probability(log_ratio, prior)
        lines.append(f"probability {after:.4g} for a prior of {prior:g}")
    return lines


def _how_to_calibrate(model: Path) -> str:
    return f"arcface-plus verify --model {model} --pairs PAIRS [--folds N] [--resize] --calibrate"
