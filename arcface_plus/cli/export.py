"""``arcface-plus export``: a model as ONNX, safetensors, torch.export program, or model card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from arcface_plus.cli.model_options import (
    BatchSize,
    Preprocessing,
    Resize,
    embedding_options,
    parse_preprocessing,
)
from arcface_plus.cli.progress import counted
from arcface_plus.cli.verify.output import result_table


def export_command(
    model: Annotated[Path, typer.Option(help="Run folder, .safetensors, .pt or .onnx file.")],
    output: Annotated[
        Path,
        typer.Option(
            help="X.onnx, X.safetensors or X.pt2; another name is a folder with a model card, as"
            " the Hugging Face hub has it."
        ),
    ],
    precision: Annotated[str, typer.Option(help="Of ONNX: fp32, fp16 or int8.")] = "fp32",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGES",
            help="For int8: aligned faces that show the range of every activation (a folder, a"
            " .rec, a .bin); 256 of them are used.",
        ),
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(help="Pair sets to measure the loss of accuracy on: .bin, or lists."),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Image folder of the lists.")] = None,
    license: Annotated[
        str | None, typer.Option(help="Licence of the weights, as you state it; a card needs it.")
    ] = None,
    data_license: Annotated[
        str | None, typer.Option(help="Licence of the training data; a card needs it.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="What the training data are.")] = None,
    batch_size: BatchSize = 64,
    resize: Resize = False,
    preprocessing: Preprocessing = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
) -> None:
    """Write a model for deployment; an ONNX file is run and compared before it gets its name.

    ONNX files take (x - 127.5) / 127.5 in RGB whatever the model was trained with, as insightface's
    clients give it. See docs/export.md.
    """
    import torch

    from arcface_plus.data.collections import open_collection
    from arcface_plus.data.pairs.sets import load_pairs
    from arcface_plus.evaluation.model_calibration import calibration_file, load_calibration
    from arcface_plus.evaluation.scoring import Scoring
    from arcface_plus.export.model import Request, check_request, export_model, scorer
    from arcface_plus.export.statement import Statement
    from arcface_plus.models import load_model
    from arcface_plus.runs.provenance import read_provenance

    opened = [(each, load_pairs(each, root)) for each in pairs or []]
    calibration = open_collection(calibrate).images if calibrate else None
    network = load_model(model, preprocessing=parse_preprocessing(preprocessing))
    stated = Statement(license, data_license, data)
    request = Request(output, precision, calibration, resize, stated, overwrite)
    check_request(request, network, scored=bool(opened))
    options = embedding_options(network, None, batch_size, torch.device("cpu"), "fp32", resize)
    score = scorer(model, network, opened, Scoring(root), options, counted) if opened else None
    meaning = load_calibration(calibration_file(model), network)
    measured = export_model(network, request, read_provenance(model), score, meaning=meaning)
    console = Console()
    for each in measured:
        for entry in each.entries:
            console.print(result_table(entry))
    for file in request.files():
        typer.echo(f"wrote {file} ({file.stat().st_size:,} bytes)")
    if meaning is not None and precision != "fp32":
        typer.echo(
            f"The calibration of {model} does not hold for {precision}, whose cosines differ: "
            "calibrate that file anew (arcface-plus verify --model FILE --pairs … --calibrate)."
        )
