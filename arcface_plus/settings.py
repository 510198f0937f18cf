"""What all settings share: sections, value types, and YAML files with the line of every key.

A section is frozen; derived values are properties and are never written back. A file may name
another as its ``base`` and state only its difference from it; overrides are laid over both. An
unknown key is an error that names the nearest known key, the file and the line. Knows nothing of
the settings themselves: ``settings.py`` of each folder has those.
"""

from __future__ import annotations

import difflib
import itertools
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

# What a YAML file may have; the largest of ours has 2 kB, 150 values and 5 levels.
MOST_BYTES, MOST_VALUES, MOST_LETTERS, MOST_NESTED = 2**20, 10_000, 4096, 20

KeyPath = tuple[str, ...]
# Where a key was given: "file:line", or the override itself.
Places = dict[KeyPath, str]

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


def read_with_bases(
    path: Path, places: Places, problems: list[str], above: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """Return the values of a YAML file laid over those of its ``base``, a path beside the file.

    Mappings are merged key by key; a mapping of another ``kind`` and everything else is replaced.
    """
    if not path.is_file():
        asked = f" (the base of {above[-1]})" if above else ""
        raise FileNotFoundError(
            f"configuration {path}{asked} does not exist; the shipped ones are in configs/."
        )
    if path.resolve() in (p.resolve() for p in above):
        raise ValueError(f"{path}: base leads back to this file; remove one of the bases.")
    own: Places = {}
    values = read_values(path, own, problems)
    base = values.pop("base", None)
    if base is not None:
        if not isinstance(base, str):
            raise ValueError(
                f"{own[('base',)]}: base must be the path of a configuration, got {base!r}."
            )
        below = read_with_bases(path.parent / base, places, problems, (*above, path))
        values = _merged(below, values)
    places |= own
    return values


def _merged(below: Any, above: Any) -> Any:
    both = isinstance(below, dict) and isinstance(above, dict)
    if not both or above.get("kind", below.get("kind")) != below.get("kind"):
        return above
    return below | {key: _merged(below.get(key), value) for key, value in above.items()}


def read_values(path: Path, places: Places, problems: list[str]) -> dict[str, Any]:
    """Return the mapping in a YAML file, noting in ``places`` where each key stands.

    Keys given twice are added to ``problems``. Raises ValueError naming the file for what is not a
    plain mapping, and for more than a configuration needs: ``MOST_BYTES`` of text, ``MOST_VALUES``
    values with what aliases stand for written out, ``MOST_NESTED`` levels.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"{path} is longer than the {MOST_BYTES} bytes of any configuration.")
        node = yaml.compose(content.decode("utf-8"), Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f"{path} must hold a mapping of sections (data:, model:, …).")
        _check_size(node, path)
        return _mapping(node, (), str(path), places, problems)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML of plain values: {error}") from error
    except RecursionError:
        raise ValueError(f"{path} is nested too deep; write the values out.") from None


def _check_size(root: yaml.Node, path: Path) -> None:
    """Refuse aliases that stand for each other, of which few bytes make billions of values."""
    counts: dict[int, int] = {}

    def count(node: yaml.Node, depth: int) -> int:
        scalar = isinstance(node, yaml.ScalarNode)
        if depth == MOST_NESTED or (scalar and len(node.value) > MOST_LETTERS):
            raise ValueError(
                f"{path}:{node.start_mark.line + 1}: a value has more than {MOST_LETTERS} letters, "
                f"or lies more than {MOST_NESTED} deep, as where an anchor contains itself."
            )
        if id(node) not in counts:
            pairs = isinstance(node, yaml.MappingNode)
            inner = () if scalar else itertools.chain(*node.value) if pairs else node.value
            counts[id(node)] = 1 + sum(count(each, depth + 1) for each in inner)
        return counts[id(node)]

    if count(root, 0) > MOST_VALUES:
        raise ValueError(
            f"{path}: with aliases written out it has over {MOST_VALUES} values; write fewer."
        )


def _mapping(
    node: yaml.MappingNode, path: KeyPath, file: str, places: Places, problems: list[str]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        where = f"{file}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise ValueError(f"{where}: a key must be a word.")
        key = key_node.value
        if key in result:
            problems.append(f"{where}: key '{'.'.join((*path, key))}' is given twice.")
        places[(*path, key)] = where
        if isinstance(value_node, yaml.MappingNode):
            result[key] = _mapping(value_node, (*path, key), file, places, problems)
            continue
        # From the node itself: the safe loader knows numbers, booleans, null and sequences.
        try:
            result[key] = yaml.SafeLoader("").construct_object(value_node, deep=True)
        except ValueError as error:  # such as a date with a 13th month
            raise ValueError(f"{where}: {error}") from error
    return result


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
