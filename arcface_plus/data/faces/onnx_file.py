"""Open the networks of detectors with onnxruntime, which comes with the extra ``align``."""

from __future__ import annotations

import importlib
import os
from typing import Any

from arcface_plus.data.onnx_files import check_external_data


def missing_extra(what: str, package: str) -> ModuleNotFoundError:
    """Return the error that says which extra brings ``package``."""
    return ModuleNotFoundError(f'{what} needs {package}; pip install "arcface_plus[align]"')


def open_onnx(path: str | os.PathLike[str]) -> Any:
    """Return an onnxruntime session of one thread: photographs are shared out among processes.

    Raises ModuleNotFoundError without onnxruntime, FileNotFoundError, ValueError for other files.
    """
    try:
        onnxruntime = importlib.import_module("onnxruntime")  # an optional dependency
    except ModuleNotFoundError as error:
        raise missing_extra(f"detecting faces with {path}", "onnxruntime") from error
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such detector file")
    check_external_data(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors: its warnings are about how a file was exported
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise ValueError(
            f"{path}: onnxruntime cannot load it ({str(error).splitlines()[0]:.300}); "
            "fix: give a YuNet or SCRFD file in ONNX form"
        ) from error
