"""``arcface-plus margins advise``: margins proposed from the number of classes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from arcface_plus.losses.margins.family import Margin
    from arcface_plus.studies.theory.margin_advice import Advice, Prediction

# Of a margin, the settings that a run needs to state.
_SHOWN = ("m0", "m1", "m2", "m3", "s", "extension", "wc_relu")
app = typer.Typer(help="Choose margins before training.", no_args_is_help=True)


@app.callback()
def margins_group() -> None:
    """Choose margins before training."""


@app.command("advise")
def advise_command(
    classes: Annotated[int, typer.Option(help="Number of training classes C.")],
    dim: Annotated[int, typer.Option(help="Entries of an embedding, d.")] = 512,
    scale: Annotated[float, typer.Option(help="Scale s of the logits.")] = 64.0,
    kind: Annotated[
        str, typer.Option(help="amp (m0), sphere (m1), arc (m2), cos (m3), or all.")
    ] = "all",
    gradient: Annotated[
        float, typer.Option(help="The pull, per radian, that counts as gone; 2 is our reading.")
    ] = 2.0,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the curves (margins.svg, .png, .json).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, angles in degrees.")] = False,
) -> None:
    """Propose margins that end training at half the predicted nearest-class angle.

    Classes are taken as uniform on the sphere. The rule is an observation of the margin-softmax
    appendix, with a threshold of ours: a place to start a search from, not its result.
    See docs/uniform_prototypes.md.
    """
    from arcface_plus.studies.theory.margin_advice import KINDS, advise, predict

    if kind not in (*KINDS, "all"):
        raise ValueError(f"--kind is {kind!r}; use one of {', '.join(KINDS)}, or all.")
    kinds = KINDS if kind == "all" else (kind,)
    prediction = predict(classes, dim, scale)
    proposals = [advise(k, prediction, gradient=gradient) for k in kinds]
    content = _content(prediction, proposals, gradient)
    if output is not None:
        from arcface_plus.cli.json_files import write_json
        from arcface_plus.studies.theory.advice_figure import draw_advice

        draw_advice(output, prediction, proposals, gradient=gradient)
        write_json(output / "margins.json", content)
    if as_json:
        typer.echo(json.dumps(content, indent=1, allow_nan=False))
        return
    _show(prediction, proposals, gradient)
    if output is not None:
        typer.echo(f"wrote the curves to {output}")


def _content(prediction: Prediction, proposals: list[Advice], gradient: float) -> dict[str, Any]:
    return {
        "classes": prediction.classes,
        "dim": prediction.dim,
        "scale": prediction.scale,
        "gradient": gradient,
        "nearest_angle": math.degrees(prediction.nearest_angle),
        "nearest_std": math.degrees(prediction.nearest_std),
        "target_angle": math.degrees(prediction.target_angle),
        "weight_spread": prediction.weight_spread,
        "proposals": [
            {
                "kind": a.kind,
                "margin": {name: getattr(a.margin, name) for name in _SHOWN},
                "termination_angle": math.degrees(a.termination_angle),
                "pole_loss": a.pole_loss,
                "plain_pole_loss": a.plain_pole_loss,
                "collapse_risk": a.risk,
                "plain_collapse_risk": a.plain_risk,
                "note": a.note,
            }
            for a in proposals
        ],
    }


def _show(prediction: Prediction, proposals: list[Advice], gradient: float) -> None:
    from rich.console import Console
    from rich.table import Table

    nearest, half = math.degrees(prediction.nearest_angle), math.degrees(prediction.target_angle)
    typer.echo(
        f"{prediction.classes} uniform classes in {prediction.dim} dimensions: nearest class at "
        f"{nearest:.2f}° (one class ± {math.degrees(prediction.nearest_std):.2f}°); margins whose "
        f"pull falls to {gradient:g} at half of it, {half:.2f}°:"
    )
    table = Table("kind", "margin", "ends at", "set with it", "polar collapse", "without that")
    for a in proposals:
        table.add_row(
            a.kind,
            f"{a.parameter} = {a.value:.3f}",
            f"{math.degrees(a.termination_angle):.2f}°",
            _with_it(a.margin),
            f"{a.risk} (loss {a.pole_loss:.3g})",
            f"{a.plain_risk} (loss {a.plain_pole_loss:.3g})",
        )
    Console(width=100, highlight=False).print(table)
    for a in proposals:
        if a.note:
            typer.echo(f"{a.kind}: {a.note}.")
    typer.echo(
        "Polar collapse: the loss where all classes sit at one pole and all samples at the other; "
        "likely below log 2; early where it is below that of the start, at right angles: on few "
        "images let the margin grow then (head.margin.warmup_steps); the log of a run warns while "
        "it happens. Last column: with the raw cosine, no WC-ReLU."
    )
    if prediction.weight_spread > 1:
        typer.echo(
            "Caution: from draw to draw the sum over the wrong classes varies by "
            f"{prediction.weight_spread:.1f} times its mean, so a few near classes rule it; take "
            "the angles as rough."
        )


def _with_it(margin: Margin) -> str:
    words = [f"extension: {margin.extension}"] if margin.is_angular else []
    return ", ".join([*words, *(["wc_relu: true"] if margin.wc_relu else [])]) or "nothing"
