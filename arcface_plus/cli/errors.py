"""Refuse what does not go together; turn errors into a message and an exit code (1, 2)."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping


def refuse(reasons: Mapping[str, bool]) -> None:
    """Raise ValueError with the first of ``reasons`` that holds: what is wrong → whether it is."""
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(reason)


def exit_code_for(error: Exception) -> int:
    """Print ``error`` to standard error and return its exit code.

    Bad input (ValueError, a missing or unreadable file, the missing package of an extra) is a
    message and 2. A run that broke down in a way we foresaw is a message and 1. Anything else is a
    fault of ours: the traceback, and 1.
    """
    bad_path = FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError
    fault = ZeroDivisionError | OverflowError  # arithmetic of ours, not a loss that is not finite
    foreseen = ValueError | ArithmeticError | OSError | ImportError
    if isinstance(error, fault) or not isinstance(error, foreseen):
        traceback.print_exception(error)
        return 1
    rank = f"[rank {os.environ['RANK']}] " if "RANK" in os.environ else ""
    print(f"{rank}error: {error}", file=sys.stderr)  # noqa: T201
    return 2 if isinstance(error, ValueError | ModuleNotFoundError | bad_path) else 1
