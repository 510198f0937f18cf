"""Durations given in epochs, and learning rates per 512 images, as the run counts them.

``train.steps: 20 epochs`` and ``optim.lr: 0.1 per 512 images`` need the number of training images
and the global batch; a run's ``config.yaml`` has the steps and the rate that follow. An epoch is
the whole global batches of one pass over the images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from arcface_plus.data.settings import DataConfig
from arcface_plus.data.sources.image_source import open_source
from arcface_plus.training.settings import TrainConfig

DURATIONS = (
    "branch.start_step",
    "evaluation.every",
    "head.adaptive.warmup_steps",
    "head.margin.warmup_steps",
    "schedule.milestones",
    "schedule.warmup_steps",
    "train.checkpoint_every",
    "train.keep_every",
    "train.steps",
)
RATES = ("optim.lr", "schedule.final_lr")
# What a text has to be there; the settings refuse every other, with its file and line.
FORMS = dict.fromkeys(DURATIONS, "a number of steps, or of epochs such as '3 epochs'")
FORMS |= dict.fromkeys(RATES, "a rate, or one such as '0.1 per 512 images'")
_NUMBER = r"(\d+(?:\.\d*)?(?:e-?\d+)?)"
_EPOCHS = re.compile(_NUMBER + " *epochs?")
_RATE = re.compile(_NUMBER + " per 512 images")


def resolve(values: dict[str, Any]) -> None:
    """Replace what ``values`` of a run give in epochs or per 512 images, in place.

    The training data are opened only where something is given in epochs. Raises FileNotFoundError
    or ValueError where they cannot be. What is not of these forms stays, for the settings to judge.
    """
    for section, key in _given(values, RATES):
        section[key] = _replaced(section[key], _RATE, lambda rate: rate * _batch(values) / 512)
    durations = [(s, k) for s, k in _given(values, DURATIONS) if _is_of(s[k], _EPOCHS)]
    if not durations:
        return
    try:
        data = DataConfig.model_validate(values.get("data"))
    except ValidationError:  # the whole configuration says it better, with file and line
        return
    images = len(open_source(data, seed=values.get("seed", 0)))
    in_an_epoch = max(1, images // _batch(values))
    for section, key in durations:
        section[key] = _replaced(
            section[key], _EPOCHS, lambda epochs: max(1, round(epochs * in_an_epoch))
        )


def _batch(values: dict[str, Any]) -> int:
    train = values.get("train")
    usual = TrainConfig().global_batch
    given = train.get("global_batch", usual) if isinstance(train, dict) else usual
    if not isinstance(given, int) or given < 1:
        raise ValueError(f"train.global_batch must be a whole number of images, got {given!r}.")
    return given


def _given(values: dict[str, Any], names: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the mapping and the key of each of ``names`` that ``values`` have."""
    for name in names:
        *sections, key = name.split(".")
        inner: Any = values
        for section in sections:
            inner = inner.get(section) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and key in inner:
            yield inner, key


def _is_of(value: Any, form: re.Pattern[str]) -> bool:
    each = value if isinstance(value, list) else [value]
    return any(isinstance(item, str) and form.fullmatch(item.strip()) for item in each)


def _replaced(value: Any, form: re.Pattern[str], count: Callable[[float], Any]) -> Any:
    if isinstance(value, list):
        return [_replaced(item, form, count) for item in value]
    found = form.fullmatch(value.strip()) if isinstance(value, str) else None
    return value if found is None else count(float(found.group(1)))
