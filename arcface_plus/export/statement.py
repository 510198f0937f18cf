"""What a file that leaves the package says about itself besides its numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

from arcface_plus import __version__
from arcface_plus.models.embedding_model import EmbeddingModel
from arcface_plus.models.onnx_model import PREPROCESSING_KEY
from arcface_plus.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Statement:
    """Hold what only the user knows, in the user's words; None where it was not stated.

    ``license``: of the weights. ``data_license``: of the data that they were trained on. ``data``:
    what these data are.
    """

    license: str | None = None
    data_license: str | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (not value.strip() or not value.isprintable()):
                option = "--" + field.name.replace("_", "-")
                raise ValueError(
                    f"{option} is {value!r}, but must be one line of text; say it, or leave it out."
                )

    def stated(self) -> dict[str, str]:
        """Return what was stated, by its name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def file_facts(
    model: EmbeddingModel, preprocessing: Preprocessing, precision: str, statement: Statement
) -> dict[str, str]:
    """Return the metadata of a file made from ``model``, whose input is ``preprocessing``'s."""
    facts = {
        PREPROCESSING_KEY: preprocessing.to_json(),
        "arcface_plus.version": __version__,
        "arcface_plus.precision": precision,
        **{f"arcface_plus.{name}": value for name, value in statement.stated().items()},
    }
    if model.architecture is not None:
        facts["arcface_plus.architecture"] = json.dumps(model.architecture, sort_keys=True)
    return facts
