"""YAML files of settings: laid over their bases, with the line of every key, within bounds."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import yaml

from arcface_plus.shipped import find_config

# What a YAML file may have; the largest of ours has 2 kB, 150 values and 5 levels.
MOST_BYTES, MOST_VALUES, MOST_LETTERS, MOST_NESTED = 2**20, 10_000, 4096, 20

KeyPath = tuple[str, ...]
# Where a key was given: "file:line", or the override itself.
Places = dict[KeyPath, str]


def read_with_bases(
    path: Path, places: Places, problems: list[str], above: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """Return the values of a YAML file laid over those of its ``base``, a path beside the file.

    Either may be the name of a shipped configuration; a file of that name is preferred.
    Mappings are merged key by key; a mapping of another ``kind`` and everything else is replaced.
    """
    try:
        path = find_config(path)
    except FileNotFoundError as error:
        asked = f"the base of {above[-1]}: " if above else ""
        raise FileNotFoundError(f"{asked}{error}") from None
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
        beside = path.parent / base
        beside = beside if beside.is_file() else Path(base)
        below = read_with_bases(beside, places, problems, (*above, path))
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
