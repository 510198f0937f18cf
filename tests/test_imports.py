"""The direction of imports, and what may be imported or printed where; read from the source."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "arcface_plus"

# A module imports only from its own level and from lower ones.
LEVELS = {
    **dict.fromkeys(("yaml_files", "settings", "devices", "distributed", "files", "randomness"), 0),
    **dict.fromkeys(("process_group", "watch", "shipped"), 0),
    "data": 1,
    "checkpoints": 2,
    "models": 3,
    "regularizers": 4,
    "losses": 5,
    "training": 6,
    "evaluation": 7,
    "export": 8,
    "runs": 9,
    "studies": 10,
    "cli": 11,
}
# The lazy root names everything, and the module run by `python -m` starts the command line.
ROOTS = {"__init__.py", "__main__.py"}
# distributed.py wraps the collectives; DCP and FSDP's gradient scaler have their own homes; `info`
# asks which backends torch was built with.
MAY_USE_TORCH_DISTRIBUTED = {
    "distributed.py",
    "process_group.py",
    "checkpoints/metadata.py",
    "checkpoints/store.py",
    "checkpoints/writing.py",
    "training/state.py",
    "cli/info.py",
    "training/data_parallel.py",
}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imported_modules(tree: ast.AST, path: str) -> list[tuple[int, str]]:
    """Return ``(line, absolute dotted name)`` of every import, wherever in the module it stands.

    ``from a import b`` gives ``a.b``: b may be a module.
    """
    found: list[tuple[int, str]] = []
    here = ["arcface_plus", *path.removesuffix(".py").split("/")][:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{stem}.{alias.name}") for alias in node.names]
    return found


def wrong_way(source: str, path: str) -> list[str]:
    """Return the imports in ``source`` (the module at ``path``) that point to the right."""
    own = LEVELS[path.split("/")[0].removesuffix(".py")]
    wrong = []
    for line, name in imported_modules(ast.parse(source), path):
        parts = name.split(".")
        # `import arcface_plus` alone is the lazy root, which leads everywhere.
        rightwards = parts[0] == "arcface_plus" and (
            len(parts) == 1 or LEVELS.get(parts[1], own if parts[1] == "__version__" else 99) > own
        )
        if rightwards:
            wrong.append(f"{path}:{line}: imports {name}")
    return wrong


@pytest.mark.parametrize(
    ("path", "source", "bad"),
    [
        ("data/a.py", "from arcface_plus.models.build import x", True),
        ("data/a.py", "def f():\n    from arcface_plus import models", True),
        ("data/a.py", "if TYPE_CHECKING:\n    import arcface_plus.cli.app", True),
        ("data/a.py", "from ..training import trainer", True),
        ("data/a.py", "from . import b", False),
        ("data/a.py", "import arcface_plus", True),
        ("data/a.py", "from arcface_plus import load_model", True),
        ("data/a.py", "from arcface_plus import settings, __version__", False),
        ("cli/a.py", "from arcface_plus.data.images import x", False),
        ("settings.py", "from arcface_plus.data import images", True),
    ],
)
def test_the_check_itself(path, source, bad):
    assert bool(wrong_way(source, path)) == bad


def test_every_module_has_a_level():
    tops = {relative(p).split("/")[0].removesuffix(".py") for p in SOURCES}
    assert tops - {"__init__", "__main__"} <= set(LEVELS)


def test_imports_point_one_way():
    wrong = [
        message
        for path in SOURCES
        if relative(path) not in ROOTS
        for message in wrong_way(path.read_text(encoding="utf-8"), relative(path))
    ]
    assert not wrong, "\n".join(wrong)


def imported_files() -> dict[str, set[str]]:
    """Return module -> the modules of the package that it imports, the lazy roots left out.

    A folder's own name is the module of its ``__init__.py``.
    """
    names = {
        ".".join(p.with_suffix("").parts).removesuffix(".__init__"): p
        for p in (path.relative_to(PACKAGE.parent) for path in SOURCES)
        if p.parent != Path(PACKAGE.name) or p.name not in ROOTS
    }
    graph: dict[str, set[str]] = {}
    for module, path in names.items():
        tree = ast.parse((PACKAGE.parent / path).read_text(encoding="utf-8"))
        # `from a.b import c` names a module a.b.c, or something that a.b defines.
        found = (
            next((n for n in (name, name.rpartition(".")[0]) if n in names), None)
            for _, name in imported_modules(tree, relative(PACKAGE.parent / path))
        )
        graph[module] = {name for name in found if name not in (None, module)}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the nodes of a circle, its first repeated at the end; empty where there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def among_children(files: dict[str, set[str]], folder: str) -> dict[str, set[str]]:
    """Return which files and sub-folders of ``folder`` import which others of it."""
    graph: dict[str, set[str]] = defaultdict(set)
    inside, depth = f"{folder}.", folder.count(".") + 1
    for module, imported in files.items():
        for other in imported:
            if module.startswith(inside) and other.startswith(inside):
                child, sibling = module.split(".")[depth], other.split(".")[depth]
                if child != sibling:
                    graph[child].add(sibling)
    return graph


def test_the_search_for_circles():
    files = {"p.a.x": {"p.b.y"}, "p.b.z": {"p.a.w"}, "p.b.y": set(), "p.a.w": set()}
    assert circle(files) == []  # no file imports itself by a detour, but a and b need each other
    assert set(circle(among_children(files, "p"))) == {"a", "b"}
    assert circle(among_children(files, "p.a")) == []
    assert len(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == 4


def test_no_files_import_each_other_in_a_circle():
    files = imported_files()
    assert sum(map(len, files.values())) > 100, "the imports were not read"
    assert circle(files) == []


def test_no_parts_of_a_folder_import_each_other_in_a_circle():
    """So a folder can be read in one order. Its parts are its files and its sub-folders."""
    files = imported_files()
    folders = {".".join(p.parent.relative_to(PACKAGE.parent).parts) for p in SOURCES}
    found = {folder: circle(among_children(files, folder)) for folder in sorted(folders)}
    assert not {folder: nodes for folder, nodes in found.items() if nodes}


def test_only_tests_of_the_command_line_import_it():
    """The others call what the commands call: a run needs no parser of words."""
    wrong = []
    for path in sorted(TESTS.rglob("*.py")):
        place = path.relative_to(TESTS).as_posix()
        if place.startswith("cli/") or place in ("conftest.py", "test_scripts.py", "test_docs.py"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        wrong += [
            f"tests/{place}:{line}: imports {name}"
            for line, name in imported_modules(tree, place)
            if f"{name}.".startswith("arcface_plus.cli.")
        ]
    assert not wrong, "\n".join(wrong)


def test_torch_distributed_has_few_homes():
    users = set()
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = (f"{name}." for _, name in imported_modules(tree, relative(path)))
        attributes = (
            f"{ast.unparse(node)}." for node in ast.walk(tree) if isinstance(node, ast.Attribute)
        )
        if any(name.startswith("torch.distributed.") for name in [*imports, *attributes]):
            users.add(relative(path))
    assert users <= MAY_USE_TORCH_DISTRIBUTED


def test_torchvision_is_imported_only_where_used():
    """It costs seconds, so never at the top level of a module."""
    wrong = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
        wrong += [
            f"{relative(path)}:{line}"
            for line, name in imported_modules(top, relative(path))
            if name.split(".")[0] == "torchvision"
        ]
    assert not wrong


def test_the_library_does_not_print():
    wrong = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
                # Messages on standard error are what cli/errors.py is for.
                to_errors = any(ast.unparse(k.value) == "sys.stderr" for k in node.keywords)
                if not (relative(path) == "cli/errors.py" and to_errors):
                    wrong.append(f"{relative(path)}:{node.lineno}")
    assert not wrong


def test_no_module_is_called_utils():
    vague = {"util", "utils", "helpers", "misc", "common"}
    assert not [relative(p) for p in SOURCES if vague & set(relative(p)[:-3].split("/"))]


def test_scripts_are_not_packages(repository):
    for folder in ("tools", "eval"):
        assert not (repository / folder / "__init__.py").exists()


@pytest.mark.parametrize(
    "module", ["arcface_plus", "arcface_plus.cli.app", "arcface_plus.settings"]
)
def test_import_is_cheap(module):
    slow = ("torch", "torchvision", "cv2", "sklearn", "scipy")
    code = f"import sys, {module}; print(*sorted(set({slow}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
