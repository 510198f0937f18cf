"""The pages as a site: `make docs`. The Markdown is what a reader of the repository sees.

Sphinx reads README.md, CONTRIBUTING.md, CHANGELOG.md and docs/ from the top of the repository.
Pages of settings (from the types), commands (from the parser) and names (from the docstrings) are
written to docs/reference/ first.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import arcface_plus as ap

TOP = Path(__file__).resolve().parents[1]
REFERENCE = TOP / "docs" / "reference"

project = "arcface_plus"
author = "the arcface_plus authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "docs/reference/*"]
html_theme = "furo"
html_title = "arcface_plus"
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath", "html_image"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"

WORDS = {type(None): "null", Path: "path", str: "text", bool: "true | false", float: "number"}
WORDS[int] = "whole number"
BOUNDS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}
NAVIGATION = {
    "Begin": ["docs/your_own_faces", "docs/migrating", "docs/README"],
    "Data": ["docs/alignment", "docs/cleaning", "docs/input", "docs/trust"],
    "Train": [
        "docs/fine_tuning",
        "docs/training_health",
        "docs/checkpoints",
        "docs/failures",
        "docs/clusters",
        "docs/performance",
        "docs/gpu",
        "docs/optimization",
        "docs/distillation",
        "docs/repeat",
    ],
    "Methods": [
        "docs/mma",
        "docs/margins",
        "docs/closeness_diversity",
        "docs/regularizers",
        "docs/uniform_prototypes",
        "docs/models",
    ],
    "Evaluate and use": [
        "docs/verification",
        "docs/benchmark",
        "docs/protocols",
        "docs/distribution_view",
        "docs/export",
        "docs/in_use",
    ],
    "Measured": ["docs/face_margins", "docs/performance", "docs/classification", "docs/tammes"],
    "Reference": [
        "docs/reference/settings",
        "docs/reference/commands",
        "docs/reference/api",
        "docs/errors",
        "CONTRIBUTING",
        "CHANGELOG",
    ],
}


def words_of(annotation: Any) -> str:
    """Return a type as a reader of YAML knows it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return words_of(inner[0])
    if origin is Literal:
        return " | ".join(str(value) for value in inner)
    if origin in (Union, UnionType):
        return " | ".join(words_of(each) for each in inner)
    if origin is tuple:
        ends = inner[-1] is Ellipsis
        return f"list of {words_of(inner[0])}" if ends else f"[{', '.join(map(words_of, inner))}]"
    if origin is not None:  # a mapping of names
        return f"{words_of(inner[0])}: {words_of(inner[-1])}, …"
    return WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def sections(kind: Any) -> list[type[BaseModel]]:
    """Return the kinds of sections that a setting may hold."""
    found = []
    for each in (kind, *get_args(kind)):
        if each is not kind:
            found += sections(each)
        elif inspect.isclass(each) and (
            issubclass(each, BaseModel) or hasattr(each, "__pydantic_fields__")
        ):
            found.append(each)
    return found


def tables(kind: Any, prefix: str, title: str) -> list[str]:
    """Return the lines of the settings of ``kind``, and of the sections within it."""
    fields: dict[str, FieldInfo] = kind.__pydantic_fields__
    lines, inner = [f"## {title}", "", _first_line(kind), ""], []
    lines += ["| key | values | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        key = f"{prefix}.{name}".lstrip(".")
        deeper = sections(field.annotation)
        bounds = [_bound(each) for each in field.metadata if type(each) in BOUNDS]
        values = "a section" if deeper else ", ".join([words_of(field.annotation), *bounds])
        default = "" if deeper and field.default is not None else _yaml(field)
        cells = (f"`{key}`", values, default, field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        for section in deeper:
            named = f"`{key}`" + (f": {section.__name__}" if len(deeper) > 1 else "")
            inner += tables(section, key, named)
    return [*lines, "", *inner]


def _first_line(kind: Any) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")


def _bound(rule: Any) -> str:
    name, sign = BOUNDS[type(rule)]
    return f"{sign} {getattr(rule, name):.5g}"


def _yaml(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    default = field.get_default(call_default_factory=True)
    plain = str(default) if isinstance(default, Path) else default
    return (
        f"`{yaml.safe_dump(list(plain) if isinstance(plain, tuple) else plain).split(chr(10))[0]}`"
    )


def write_reference(*_: Any) -> None:
    """Write the pages that types, parser and docstrings give."""
    REFERENCE.mkdir(exist_ok=True)
    heading = (
        "# Settings\n\nEvery key of a configuration, from the types that check it. On the command "
        "line `optim: {lr: 0.1}` is `--optim.lr 0.1`.\n\n"
    )
    text = heading + "\n".join(tables(ap.RunConfig, "", "The top level"))
    (REFERENCE / "settings.md").write_text(text, encoding="utf-8")
    words = ["arcface_plus.cli.app", "utils", "docs", "--name", "arcface-plus"]
    commands = subprocess.run(
        [sys.executable, "-m", "typer", *words, "--title", "Commands"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(TOP), "PATH": ""},
    ).stdout
    (REFERENCE / "commands.md").write_text(commands, encoding="utf-8")
    names = ["# Names of `arcface_plus`", ""]
    for name in ap.__all__:
        if name != "__version__":
            what = getattr(ap, name)
            kind = "autoclass" if inspect.isclass(what) else "autofunction"
            members = "   :members:\n" if inspect.isclass(what) else ""
            names.append(f"```{{eval-rst}}\n.. {kind}:: arcface_plus.{name}\n{members}```\n")
    (REFERENCE / "api.md").write_text("\n".join(names), encoding="utf-8")


def add_navigation(app: Any, docname: str, source: list[str]) -> None:
    """Give the first page the tree of all; the file itself has none to be seen on a forge."""
    if docname == root_doc:
        for caption, pages in NAVIGATION.items():
            there = "\n".join(page for page in pages if (TOP / f"{page}.md").exists())
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{there}\n```\n"


def setup(app: Any) -> None:
    app.connect("builder-inited", write_reference)
    app.connect("source-read", add_navigation)
