"""The direction of imports, and what may be imported or printed where; read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "arcface_plus"

# A module imports only from its own level and from lower ones.
LEVELS = {
    **dict.fromkeys(("settings", "distributed", "checkpoint", "files", "randomness"), 0),
    "data": 1,
    "models": 2,
    "regularizers": 3,
    "losses": 4,
    "training": 5,
    "evaluation": 6,
    "export": 7,
    "runs": 8,
    "studies": 9,
    "cli": 10,
}
# The lazy root names everything, and the module run by `python -m` starts the command line.
ROOTS = {"__init__.py", "__main__.py"}
# distributed.py wraps the collectives; DCP and FSDP's gradient scaler have their own homes; `info`
# asks which backends torch was built with.
MAY_USE_TORCH_DISTRIBUTED = {
    "distributed.py",
    "checkpoint.py",
    "training/state.py",
    "cli/info.py",
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
