"""Read a YAML file of sections with the line of every key, and lay overrides over it.

Knows nothing of the settings themselves: ``config.py`` has those.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

KeyPath = tuple[str, ...]
# Where a key was given: "file:line", or the override itself.
Places = dict[KeyPath, str]


def read_values(path: Path, places: Places, problems: list[str]) -> dict[str, Any]:
    """Return the mapping in a YAML file, noting in ``places`` where each key stands.

    Keys given twice are added to ``problems``. Raises ValueError for what is not a plain mapping.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if not isinstance(node, yaml.MappingNode):
            raise ValueError(f"{path} must hold a mapping of sections (data:, model:, …).")
        return _mapping(node, (), str(path), places, problems)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML of plain values: {error}") from error
    except RecursionError:
        raise ValueError(f"{path}: an anchor contains itself; write the values out.") from None


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
        else:
            result[key] = _plain(value_node, where)
    return result


def _plain(node: yaml.Node, where: str) -> Any:
    # From the node itself: the safe loader knows numbers, booleans, null and sequences.
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except ValueError as error:  # such as a date with a 13th month
        raise ValueError(f"{where}: {error}") from error


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


def unknown_keys(root: type[BaseModel], values: dict[str, Any], places: Places) -> Iterator[str]:
    """Yield a message for each key that ``root`` does not have, naming the nearest that it has."""
    everywhere = list(_all_keys(root, ()))

    def walk(section: type[BaseModel], values: dict[str, Any], path: KeyPath) -> Iterator[str]:
        known = section.model_fields
        for key, value in values.items():
            here = (*path, key)
            if key not in known:
                hint = _hint(key, path, list(known), everywhere)
                yield f"{places.get(here, '?')}: unknown key '{'.'.join(here)}'; {hint}"
                continue
            inner, named = _section_of(known[key].annotation, value)
            if inner is None or not isinstance(value, dict):
                continue
            if not named:
                yield from walk(inner, value, here)
                continue
            for name, item in value.items():
                if isinstance(item, dict):
                    yield from walk(inner, item, (*here, name))

    yield from walk(root, values, ())


def _hint(key: str, path: KeyPath, known: list[str], everywhere: list[KeyPath]) -> str:
    # The very word in another section beats a similar word in this one.
    same = [".".join(p) for p in everywhere if p[-1] == key]
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if same:
        return f"did you mean '{same[0]}'?"
    if near:
        return f"did you mean '{'.'.join((*path, near[0]))}'?"
    return f"known keys here: {', '.join(known)}."


def _section_of(annotation: Any, value: Any = None) -> tuple[type[BaseModel] | None, bool]:
    """Return the section that a field holds, and whether it holds many of them by name.

    Of several that are told apart by their ``kind``, the one that ``value`` names.
    """
    named = get_origin(annotation) is dict
    sections = list(_sections(get_args(annotation)[1] if named else annotation))
    if len(sections) > 1:
        kind = value.get("kind") if isinstance(value, dict) else None
        sections = [s for s in sections if kind in get_args(s.model_fields["kind"].annotation)]
    return (sections[0] if sections else None), named


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the sections in an annotation, through Annotated and unions."""
    if get_origin(annotation) is Annotated:
        yield from _sections(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for choice in get_args(annotation):
            yield from _sections(choice)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


def _all_keys(section: type[BaseModel], path: KeyPath) -> Iterator[KeyPath]:
    for key, field in section.model_fields.items():
        yield (*path, key)
        inner, named = _section_of(field.annotation)
        if inner is not None and not named:
            yield from _all_keys(inner, (*path, key))


def _without_kinds(location: KeyPath, places: Places) -> KeyPath:
    """Leave out the kind that pydantic puts into the path of a section that has one."""
    for k in range(len(location) - 1):
        shorter = (*location[:k], location[k + 1])
        if location[: k + 1] not in places and shorter in places:
            return (*location[:k], *location[k + 1 :])
    return location


def describe_error(item: Any, places: Places, path: Path) -> str:
    """Return one of pydantic's errors as a line: where, which key, what, and the value given."""
    location = _without_kinds(tuple(str(part) for part in item["loc"]), places)
    prefixes = (location[:n] for n in range(len(location), 0, -1))
    where = next((places[prefix] for prefix in prefixes if prefix in places), str(path))
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], dict | BaseModel) else f" (got {item['input']!r})"
    name = f"{'.'.join(location)}: " if location else ""
    return f"{where}: {name}{message}{shown}"
