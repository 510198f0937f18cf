"""A model card in the Hugging Face hub's layout: README.md with a YAML head, and config.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from arcface_plus import __version__
from arcface_plus.evaluation.scoring import Entry
from arcface_plus.export.statement import Statement
from arcface_plus.files import written_beside
from arcface_plus.models import model_hash
from arcface_plus.models.embedding_model import EmbeddingModel

CARD, CONFIG = "README.md", "config.json"
# Identifiers of the hub; any other licence is "other" there, with its name beside.
_HUB_LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "agpl-3.0"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
    "unknown",
)


@dataclass(frozen=True)
class Provenance:
    """Hold where a model comes from: the name of its run, and what the run's folder says.

    ``config``: every setting. ``revision``, ``packages``: of the source tree and the libraries that
    trained it. ``results``: its numbers on each pair set, as verification.json has them.
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    revision: str | None = None
    packages: dict[str, str | None] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Hold an exported file and what it scored beside its source, a row a pair set."""

    file: str
    entries: Sequence[Entry]


def check_statement(statement: Statement) -> None:
    """Raise ValueError where a card would have to invent a licence."""
    if statement.license is None or statement.data_license is None:
        raise ValueError(
            "a model card states licences, and only you know them: give --license (of the weights, "
            "such as mit or cc-by-nc-4.0) and --data-license (of the data that they were trained "
            "on); unknown is an answer too."
        )


def write_card(
    folder: Path,
    model: EmbeddingModel,
    provenance: Provenance,
    statement: Statement,
    files: Sequence[Path],
    measured: Sequence[Measured] = (),
) -> list[Path]:
    """Write README.md and config.json beside the weights ``files`` in ``folder``; return them.

    Nothing in them is invented: licences are ``statement``'s, scores are those of the run and of
    ``measured``, and what is not known is left out. Raises ValueError without licences.
    """
    check_statement(statement)
    head = yaml.safe_dump(_head(provenance, statement), sort_keys=False, allow_unicode=True)
    environment = Environment(
        loader=PackageLoader("arcface_plus.export", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML; the texts are single lines of the user's own
    )
    environment.filters["cell"] = lambda text: text.replace("|", r"\|")
    body = environment.get_template("card.md.j2").render(
        head=head,
        folder=folder.name,
        model=model,
        source=provenance,
        statement=statement,
        files=[(file.name, file.stat().st_size) for file in files],
        measured=measured,
        config=yaml.safe_dump(provenance.config, sort_keys=False, allow_unicode=True),
        version=__version__,
    )
    contents = {CONFIG: _config(model, provenance, statement), CARD: body}
    for name, content in contents.items():
        with written_beside(folder / name) as beside:
            beside.write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def _head(provenance: Provenance, statement: Statement) -> dict[str, Any]:
    """Return the YAML head as the hub defines it."""
    license = (statement.license or "").lower()
    known = license in _HUB_LICENSES
    head: dict[str, Any] = {"license": license if known else "other"}
    if not known:
        head["license_name"] = statement.license
    head["library_name"] = "arcface_plus"
    head["pipeline_tag"] = "image-feature-extraction"
    head["tags"] = ["face-verification", "face-recognition", "arcface", "onnx"]
    if provenance.results:
        task = {"type": "image-feature-extraction", "name": "Face verification"}
        head["model-index"] = [
            {
                "name": provenance.name,
                "results": [
                    {
                        "task": task,
                        "dataset": {"name": name, "type": name},
                        "metrics": _metrics(numbers),
                    }
                    for name, numbers in provenance.results.items()
                ],
            }
        ]
    return head


def _metrics(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    folds = f"{numbers['folds']}-fold accuracy"
    return [
        {"type": "accuracy", "name": folds, "value": round(numbers["accuracy"], 6)},
        {"type": "roc_auc", "name": "AUC", "value": round(numbers["auc"], 6)},
    ]


def _config(model: EmbeddingModel, provenance: Provenance, statement: Statement) -> str:
    content = {
        "library_name": "arcface_plus",
        "library_version": __version__,
        "architecture": model.architecture,
        "embedding_dim": model.embedding_dim,
        "preprocessing": asdict(model.preprocessing),
        "weights_sha256": model_hash(model),
        **statement.stated(),
        "training": provenance.config,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
