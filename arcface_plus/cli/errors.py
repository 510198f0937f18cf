"""Turn errors into a message and an exit code: 1 failed, 2 bad input."""

from __future__ import annotations

import os
import sys
import traceback


def exit_code_for(error: Exception) -> int:
    """Print ``error`` to standard error and return its exit code.

    Bad input (ValueError, a missing or unreadable file, the missing package of an extra) is a
    message and 2. A run that broke down in a way we foresaw is a message and 1. Anything else is a
    fault of ours: the traceback, and 1.
    """
    bad_path = FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError
    if isinstance(error, ValueError | ModuleNotFoundError | bad_path):
        code = 2
    elif isinstance(error, ZeroDivisionError | OverflowError):
        traceback.print_exception(error)  # arithmetic of ours, not a loss that is not finite
        return 1
    elif isinstance(error, ArithmeticError | OSError | ImportError):
        code = 1
    else:
        traceback.print_exception(error)
        return 1
    rank = f"[rank {os.environ['RANK']}] " if "RANK" in os.environ else ""
    print(f"{rank}error: {error}", file=sys.stderr)  # noqa: T201
    return code
