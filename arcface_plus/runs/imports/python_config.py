"""Python files that only assign plain values, as arcface_torch's configurations; never executed."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from arcface_plus.yaml_files import MOST_BYTES

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


class Given(NamedTuple):
    """A value and the line where it stands."""

    value: Any
    line: int


def read_assignments(path: Path) -> dict[str, Given]:
    """Return what a file assigns to the attributes of its ``config = edict()``; the last one wins.

    Values are literals, lists, tuples, earlier ``config.X``, and + − * / // of numbers.
    Raises ValueError with file and line for any other code.
    """
    content = path.read_bytes()
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path} is longer than the {MOST_BYTES} bytes of any configuration.")
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{path} is not Python: {error}") from error
    given: dict[str, Given] = {}
    for statement in tree.body:
        try:
            if not _is_frame(statement):
                key, node = _assignment(statement)
                given[key] = Given(_value(node, given), statement.lineno)
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"{path}:{statement.lineno}: {error}") from error
    return given


def _is_frame(statement: ast.stmt) -> bool:
    """Whether it is the import of easydict, ``config = edict()``, or a docstring."""
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "easydict"
    if isinstance(statement, ast.Import):
        return all(alias.name == "easydict" for alias in statement.names)
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return ast.unparse(statement) in ("config = edict()", "config = EasyDict()")


def _assignment(statement: ast.stmt) -> tuple[str, ast.expr]:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target = statement.targets[0]
        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "config":
            return target.attr, statement.value
    first = ast.unparse(statement).splitlines()[0][:60]
    raise ValueError(
        f"'{first}' is not an assignment config.NAME = VALUE; the file is not executed, so write "
        "the value out, or remove the line."
    )


def _value(node: ast.expr, given: dict[str, Given]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple():
            return [_value(item, given) for item in node.elts]
        case ast.Attribute(value=ast.Name(id="config")) if node.attr in given:
            return given[node.attr].value
        case ast.UnaryOp(op=ast.USub()):
            return -_number(_value(node.operand, given))
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            left, right = (_number(_value(side, given)) for side in (node.left, node.right))
            return _ARITHMETIC[type(node.op)](left, right)
    raise ValueError(f"'{ast.unparse(node)[:60]}' is not a plain value; write it out.")


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number, so nothing can be calculated with it.")
    return value
