"""Small files, small functions, small folders, and a true map in each; read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "arcface_plus"
SOURCES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in SOURCES})

FILE_LINES, FUNCTION_LINES, FOLDER_MODULES = 300, 50, 15
# Commands are long because each option takes lines of its own: their bodies are short.
COMMANDS = {
    "cli/data/check.py:check_command",
    "cli/data/clean.py:clean_command",
    "cli/data/pairs.py:pairs_command",
    "cli/embed.py:embed_command",
    "cli/export.py:export_command",
    "cli/identify.py:identify_command",
    "cli/ijb.py:ijb_command",
    "cli/study/distribution.py:distribution_command",
    "cli/tammes.py:tammes_command",
    "cli/use/compare.py:compare_command",
    "cli/use/search.py:search_command",
    "cli/verify/command.py:verify_command",
}
# A table of layers, and a Triton kernel, which is compiled as one function.
LONG_FUNCTIONS = {
    "models/face/mobilefacenet.py:MobileFaceNet.__init__",
    "regularizers/nearest/kernel.py:nearest_kernel",
}


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield ``(Class.name, definition)`` of every function in ``node``, nested ones included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not isinstance(child, ast.ClassDef):
                yield prefix + child.name, child
            yield from functions(child, f"{prefix}{child.name}.")
        else:
            yield from functions(child, prefix)


def lines_of(function: ast.FunctionDef) -> int:
    return function.end_lineno - function.lineno + 1


def body_lines(function: ast.FunctionDef) -> int:
    """Return the lines from the first statement on, the docstring included."""
    return function.end_lineno - function.body[0].lineno + 1


def test_files_are_short():
    lengths = {place(p): len(p.read_text(encoding="utf-8").splitlines()) for p in SOURCES}
    assert not {path: lines for path, lines in lengths.items() if lines >= FILE_LINES}


def test_functions_are_short():
    found = {
        f"{place(path)}:{name}": function
        for path in SOURCES
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8")))
    }
    long = {name: lines_of(f) for name, f in found.items() if lines_of(f) >= FUNCTION_LINES}
    allowed = COMMANDS | LONG_FUNCTIONS
    assert not {name: lines for name, lines in long.items() if name not in allowed}
    assert allowed <= set(long), "an exception is no longer needed: remove it from the list"
    bodies = {name: body_lines(found[name]) for name in COMMANDS}
    assert not {name: lines for name, lines in bodies.items() if lines >= FUNCTION_LINES}
    assert all(name.startswith("cli/") for name in COMMANDS)


@pytest.mark.parametrize("folder", FOLDERS, ids=place)
def test_folders_are_small(folder):
    modules = [p.name for p in folder.glob("*.py") if p.name != "__init__.py"]
    assert len(modules) < FOLDER_MODULES, sorted(modules)


def missing_from_map(text: str, names: list[str]) -> list[str]:
    """Return those of ``names`` that ``text`` does not mention as a whole word."""
    return [name for name in names if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]


def stale_in_map(text: str, folder: Path) -> list[str]:
    """Return the files ``a/b.py`` that ``text`` mentions and that do not exist."""
    roots = (folder, folder.parent, PACKAGE, PACKAGE.parent)
    found = re.findall(r"[\w/]+\.py\b", text)
    return [name for name in found if not any((root / name).exists() for root in roots)]


@pytest.mark.parametrize("folder", FOLDERS, ids=place)
def test_every_folder_has_a_map(folder):
    """Its ``__init__.py`` names every file and sub-folder, and no file that does not exist."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert len([line for line in text.splitlines() if line.strip()]) >= 3, "a map has three lines"
    files = [p.stem for p in folder.glob("*.py") if not p.stem.startswith("__")]
    folders = [p.parent.name for p in folder.glob("*/__init__.py")]
    assert not missing_from_map(text, sorted([*files, *folders]))
    assert not stale_in_map(text, folder)


def test_the_checks_of_maps_themselves():
    text = "sets.py: sets of pairs\nlists: lists of lines\nthe rest"
    assert missing_from_map(text, ["sets", "lists", "line", "building"]) == ["line", "building"]
    assert stale_in_map("settings.py, gone.py, data/images.py", PACKAGE / "data") == ["gone.py"]
