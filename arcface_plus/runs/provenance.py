"""Where a model comes from, as the folder of its run tells it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arcface_plus.export.card import Provenance
from arcface_plus.runs.results import read_measured, read_verification
from arcface_plus.yaml_files import read_values


def read_provenance(model: Path) -> Provenance:
    """Return what the run folder ``model`` says of its model; of a weights file, only its name.

    Paths become their last part, so that what is published does not describe a machine. Raises
    ValueError naming a file that is damaged.
    """
    if not model.is_dir():
        return Provenance(model.stem)
    config: dict[str, Any] = {}
    if (file := model / "config.yaml").is_file():
        config = read_values(file, {}, [])
    environment: dict[str, Any] = {}
    if (file := model / "environment.json").is_file():
        environment = read_measured(file, {"arcface_plus"})
    return Provenance(
        model.resolve().name,
        _without_folders(config),
        environment.get("revision"),
        {"arcface_plus": environment["arcface_plus"], **environment.get("packages", {})}
        if environment
        else {},
        read_verification(model) or {},
    )


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    if isinstance(value, str) and ("/" in value or "\\" in value):
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return value
