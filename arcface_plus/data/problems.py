"""What a check says of a data set: one broken rule a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DROP_IMAGE = "replace the image, or leave it out"


@dataclass(frozen=True, kw_only=True)
class DataProblem:
    """Describe one broken rule; ``count`` images or records break it, the first of them named here.

    ``key`` and ``offset``: which record of the ``file``, and where, in bytes.
    """

    file: str
    rule: str
    message: str
    fix: str
    key: int | None = None
    offset: int | None = None
    count: int = 1
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = "" if self.key is None else f" record {self.key} at byte {self.offset}:"
        more = f" (and {self.count - 1} more)" if self.count > 1 else ""
        return f"{self.file}:{place} [{self.rule}] {self.message}{more}; {self.fix}"
