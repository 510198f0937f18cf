"""``arcface-plus export``: a model as a file of the format that its name asks for, or as a card."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from arcface_plus.data.lazy_images import ImageSequence
from arcface_plus.data.pairs.sets import PairSet
from arcface_plus.evaluation.analyses import compare
from arcface_plus.evaluation.embedding.embed import EmbeddingOptions, Progress
from arcface_plus.evaluation.model_calibration import (
    Calibration,
    calibration_file,
    save_calibration,
)
from arcface_plus.evaluation.scoring import Entry, Scoring, score_model
from arcface_plus.export.card import CARD, CONFIG, Measured, Provenance, check_statement, write_card
from arcface_plus.export.onnx_file import export_onnx
from arcface_plus.export.precision import check_precision
from arcface_plus.export.program import export_program
from arcface_plus.export.statement import Statement
from arcface_plus.models import load_model, save_model
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.onnx_model import OnnxModel
from arcface_plus.models.weight_files import RUN_WEIGHTS

SUFFIXES = (".onnx", ".safetensors", ".pt2")
WHOLE = "model.onnx"
Score = Callable[[Path], Sequence[Entry]]


@dataclass(frozen=True)
class Request:
    """Hold what is to be written: see ``export_onnx`` for all but ``overwrite``."""

    output: Path
    precision: str = "fp32"
    calibration: ImageSequence | None = None
    resize: bool = False
    statement: Statement = field(default_factory=Statement)
    overwrite: bool = False

    @property
    def is_folder(self) -> bool:
        return self.output.suffix not in SUFFIXES

    def files(self) -> list[Path]:
        """Return the files that will be written, weights first."""
        if not self.is_folder:
            return [self.output]
        extra = [] if self.precision == "fp32" else [f"model_{self.precision}.onnx"]
        return [self.output / name for name in (RUN_WEIGHTS, WHOLE, *extra, CONFIG, CARD)]


def check_request(request: Request, model: EmbeddingModel, *, scored: bool) -> None:
    """Raise ValueError or FileNotFoundError for what cannot be written, before any work is done.

    ``scored``: whether the file will be compared with ``model`` on pairs.
    """
    output, ending = request.output, request.output.suffix
    existing = [file for file in request.files() if file.exists()]
    if existing and not request.overwrite:
        raise ValueError(f"{existing[0]} exists; give another --output, or --overwrite.")
    if ending[1:].isalpha() and ending not in SUFFIXES and not output.is_dir():
        raise ValueError(
            f"{output} ends in {ending}, but models are written as {', '.join(SUFFIXES)}, or as a "
            "folder, whose name has no such ending."
        )
    if not output.parent.is_dir():
        raise FileNotFoundError(f"the folder {output.parent} of --output does not exist.")
    if ending in (".safetensors", ".pt2") and (request.precision != "fp32" or scored):
        raise ValueError(
            f"--precision and --pairs are of ONNX files, but {output} holds the weights as they "
            "are; leave them out."
        )
    if ending == ".safetensors" and request.statement.stated():
        raise ValueError(
            f"{output} has no place for licences and data: name a folder, .onnx or .pt2, or leave "
            "--license, --data-license and --data out."
        )
    if ending != ".onnx" and isinstance(model, OnnxModel):
        raise ValueError(
            f"{model.path.name} is an ONNX file and is exported as .onnx alone, not {output.name}; "
            "fix: give --output a name that ends in .onnx, or the model's weights"
        )
    check_precision(request.precision, calibrated=request.calibration is not None)
    if request.is_folder:
        if output.is_file():
            raise ValueError(f"{output} is a file; name a folder, or end in {', '.join(SUFFIXES)}.")
        check_statement(request.statement)
    if ending == ".onnx" or request.is_folder:
        _check_extra()


def export_model(
    model: EmbeddingModel,
    request: Request,
    provenance: Provenance,
    score: Score | None = None,
    *,
    meaning: Calibration | None = None,
) -> list[Measured]:
    """Write what ``request`` asks for, each file aside first; return what ``score`` measured.

    The ending of the output decides: .safetensors, .onnx, .pt2, or a folder with all that a model
    card has. ``score`` compares an ONNX file with ``model``. Raises as ``check_request`` does.
    """
    check_request(request, model, scored=score is not None)
    output = request.output
    if output.suffix == ".safetensors":
        save_model(model, output)
        _store(meaning, output)
        return []
    if output.suffix == ".pt2":
        export_program(model, output, statement=request.statement)
        return []
    if output.suffix == ".onnx":
        _write_onnx(model, output, request)
        if request.precision == "fp32":
            _store(meaning, output)
        return [Measured(output.name, score(output))] if score else []
    output.mkdir(exist_ok=True)
    weights = request.files()[:-2]
    save_model(model, weights[0])
    export_onnx(model, weights[1], statement=request.statement)
    for file in weights[:2]:
        _store(meaning, file)
    for file in weights[2:]:  # from the file before: the network need not be traced again
        _write_onnx(load_model(weights[1]), file, request)
    measured = [Measured(file.name, score(file)) for file in weights[1:]] if score else []
    write_card(output, model, provenance, request.statement, weights, measured)
    return measured


def scorer(
    source: Path,
    model: EmbeddingModel,
    pairs: Sequence[tuple[Path, PairSet]],
    scoring: Scoring,
    options: EmbeddingOptions,
    show: Callable[[str], AbstractContextManager[Progress]],
) -> Score:
    """Return what scores an exported file on ``pairs`` beside ``model``, which is embedded once."""
    of_source: list[Entry] = []

    def score(file: Path) -> Sequence[Entry]:
        if not of_source:
            of_source.extend(score_model(source, model, pairs, scoring, options, show))
        exported = score_model(file, load_model(file), pairs, scoring, options, show)
        return compare(exported, [of_source])

    return score


def _write_onnx(model: EmbeddingModel, path: Path, request: Request) -> None:
    export_onnx(
        model,
        path,
        precision=request.precision,
        calibration=request.calibration,
        resize=request.resize,
        statement=request.statement,
    )


def _store(meaning: Calibration | None, file: Path) -> None:
    if meaning is not None:
        save_calibration(meaning, calibration_file(file))


def _check_extra() -> None:
    needed = ("onnx", "onnxruntime", "onnxscript")
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f'writing ONNX needs {", ".join(missing)}; fix: pip install "arcface_plus[onnx]"'
        )
