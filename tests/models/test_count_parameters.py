"""The table of docs/models.md is what its command prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_documented_counts_are_those_of_the_command(repository: Path) -> None:
    script = repository / "tools" / "bench" / "count_parameters.py"
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=repository
    )
    assert result.stdout.count("\n") == 27
    assert result.stdout in (repository / "docs" / "models.md").read_text(encoding="utf-8")
