"""How the report writes numbers and foreign text."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 120
_SPACES = "\n\u00a0\u202f"


def percent(rate: float) -> str:
    """Return ``rate`` in per cent, without the sign."""
    return f"{100 * rate:.2f}"


def span(ends: Iterable[float]) -> str:
    """Return two rates as an interval in per cent."""
    return " – ".join(percent(end) for end in ends)


def rate_words(rate: float) -> str:
    """Return a round rate as axes and rows name it: 0.001 is ``0.1 %``."""
    return f"{100 * rate:.6g}\u00a0%"


def whole(number: int) -> str:
    """Return a count with narrow spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def plain(words: str) -> str:
    """Return ``words`` without what does not print (control and direction marks, half characters).

    Names of files and people are untrusted, and such marks can reorder what stands around them.
    """
    return "".join(c if c.isprintable() or c in _SPACES else "\ufffd" for c in words)


def shortened(name: str) -> str:
    """Return ``name`` cut to a bounded length."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
