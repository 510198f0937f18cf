"""What all settings share: sections, value types, and YAML files with the line of every key.

A section is frozen; derived values are properties and are never written back. A file may name
another as its ``base`` and state only its difference from it; overrides are laid over both. An
unknown key is an error that names the nearest known key, the file and the line. Knows nothing of
the settings themselves: ``settings.py`` of each folder has those.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from arcface_plus.yaml_files import KeyPath, Places, read_with_bases

# Of sections and of the frozen dataclasses that are settings too.
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


class Section(BaseModel):
    """Base of all sections: unknown keys are refused and values never change."""

    model_config = ConfigDict(frozen=True, **STRICT)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python counts True as 1: `steps: yes` would train one step.
        annotation = cls.model_fields[str(info.field_name)].annotation
        return value if bool in (annotation, *get_args(annotation)) else _not_a_truth(value)


def _not_a_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("this setting is not a yes or no")
    return value


def _first_to_last(people: tuple[int, int]) -> tuple[int, int]:
    if people[0] > people[1]:
        raise ValueError("write the first person, then the last, for example [1, 30]")
    return people


Number = Annotated[float, BeforeValidator(_not_a_truth)]
PositiveNumber = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, lt=1)]
Angle = Annotated[Number, Field(ge=0, le=math.pi / 2, description="radians")]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Scale = Annotated[PositiveNumber, Field(description="scale of the logits")]
Warmup = Annotated[int, Field(ge=0, description="steps over which margins grow to their size")]
People = Annotated[tuple[int, int], AfterValidator(_first_to_last)]

AnySection = TypeVar("AnySection", bound=Section)


def load_section(
    kind: type[AnySection],
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    resolve: Callable[[dict[str, Any]], None] = lambda values: None,
    forms: Mapping[str, str] = MappingProxyType({}),
) -> AnySection:
    """Read a YAML file and its bases, apply ``--a.b value`` overrides, and validate as ``kind``.

    ``overrides`` is a flat list of words as on a command line: ``["--optim.lr", "0.05"]`` or
    ``["--optim.lr=0.05"]``; values are read as YAML. ``resolve`` may replace values before they
    are validated: ``forms`` says, by setting, what a text there has to be.

    Raises FileNotFoundError, or ValueError that lists every problem with its file and line.
    """
    places: Places = {}
    problems: list[str] = []
    values = read_with_bases(Path(path), places, problems)
    for key, value in parse_overrides(overrides):
        override(values, key, value, places)
    resolve(values)
    try:
        section = kind.model_validate(values)
    except ValidationError as error:
        everywhere = list(_all_keys(kind))
        file = Path(path)
        problems += [_describe(item, places, file, everywhere, forms) for item in error.errors()]
    if problems:
        raise ValueError("\n".join(problems))
    return section


def parse_overrides(words: Sequence[str]) -> list[tuple[KeyPath, Any]]:
    """Return ``(key path, value)`` for ``--a.b value`` and ``--a.b=value`` words.

    Values are read as YAML. Raises ValueError for other words, and where a value is missing.
    """
    found, queue = [], list(words)
    while queue:
        word = queue.pop(0)
        if not word.startswith("--") or len(word) < 3:
            raise ValueError(f"'{word}' is not an override; write --section.key value.")
        key, equals, text = word[2:].partition("=")
        if not equals:
            # A negative number has one dash; two are the next override.
            if not queue or queue[0].startswith("--"):
                raise ValueError(f"override --{key} has no value; write --{key} VALUE.")
            text = queue.pop(0)
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"--{key} {text}: the value is not YAML: {error}") from error
        found.append((tuple(key.split(".")), value))
    return found


def override(values: dict[str, Any], key: KeyPath, value: Any, places: Places) -> None:
    """Put ``value`` at ``key`` in nested ``values``, and note that it came from an override."""
    word = f"--{'.'.join(key)}"
    target = values
    for depth, part in enumerate(key[:-1]):
        inner = target.get(part)
        if not isinstance(inner, dict):
            # A pair set written as a bare path has no keys to override: start a mapping afresh.
            inner = target[part] = {}
            places[key[: depth + 1]] = word
        target = inner
    target[key[-1]] = value
    places[key] = word


def _all_keys(kind: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every setting below ``kind``, ``*`` for a name that is free."""
    for key, field in getattr(kind, "__pydantic_fields__", {}).items():
        yield (*path, key)
        yield from _all_keys(field.annotation, (*path, key))
    below = (*path, "*") if get_origin(kind) is dict else path
    for choice in get_args(kind):  # of a dict, an Annotated, a union
        yield from _all_keys(choice, below)


def _hint(path: KeyPath, everywhere: list[KeyPath]) -> str:
    # The very word in another section beats a similar word in this one.
    key, depth = path[-1], len(path)
    same = [".".join(p) for p in everywhere if p[-1] == key and "*" not in p]
    if same:
        return f"did you mean '{same[0]}'?"
    here = [p for p in everywhere if len(p) == depth]
    known = [p[-1] for p in here if all(b in ("*", a) for a, b in zip(path[:-1], p, strict=False))]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean '{'.'.join((*path[:-1], near[0]))}'?"
    return f"known keys here: {', '.join(known)}."


def _without_kinds(location: KeyPath, places: Places) -> KeyPath:
    """Leave out the kind that pydantic puts into the path of a section that has one."""
    for k in range(len(location) - 1):
        shorter = (*location[:k], location[k + 1])
        if location[: k + 1] not in places and shorter in places:
            return (*location[:k], *location[k + 1 :])
    return location


def _describe(
    item: Any, places: Places, file: Path, everywhere: list[KeyPath], forms: Mapping[str, str]
) -> str:
    """Return one of pydantic's errors as a line: where, which key, what, and the value given."""
    location = _without_kinds(tuple(str(part) for part in item["loc"]), places)
    prefixes = (location[:n] for n in range(len(location), 0, -1))
    where = next((places[prefix] for prefix in prefixes if prefix in places), str(file))
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: unknown key '{'.'.join(location)}'; {_hint(location, everywhere)}"
    message = item["msg"].removeprefix("Value error, ")
    # With or without a part: the place in a list, or the kind of a section.
    names = [".".join(location[:k] + location[k + 1 :]) for k in range(len(location) + 1)]
    if isinstance(item["input"], str) and (form := [forms[n] for n in names if n in forms]):
        message = f"must be {form[0]}"
    plain = isinstance(item["input"], str | int | float | list | tuple | None)
    shown = f" (got {item['input']!r})" if plain else ""
    name = f"{'.'.join(location)}: " if location else ""
    return f"{where}: {name}{message}{shown}"
