"""Links, paths and commands of the pages are true, the index knows every page, the site builds."""

from __future__ import annotations

import functools
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import typer

import arcface_plus as ap
from arcface_plus.cli.app import app

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]


def anchors(page: Path) -> set[str]:
    """Return what headings are called in links: lower case, hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if not link.startswith("http"):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page: Path) -> None:
    names = re.findall(r"`([\w./]+/\w+\.(?:py|yaml|sh|md))`", page.read_text(encoding="utf-8"))
    roots = (REPOSITORY, REPOSITORY / "arcface_plus")
    missing = {n for n in names if not any((root / n).exists() for root in roots)}
    # Of recipes, and of folders that a run writes.
    assert not {n for n in missing if not re.search(r"NEW|AREA|VERB|^runs/", n)}


def test_the_index_knows_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = [page.name for page in DOCS.glob("*.md") if page.name != "README.md"]
    assert not [name for name in pages if f"]({name}" not in index]


def test_the_errors_of_the_page_are_those_of_the_code() -> None:
    code = "".join(
        p.read_text(encoding="utf-8") for p in (REPOSITORY / "arcface_plus").rglob("*.py")
    )
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # messages run over several lines
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "errors.md").read_text(encoding="utf-8"), re.M)
    phrases = [phrase for row in rows for phrase in re.findall(r"`([^`]+)`", row)]
    assert len(phrases) > 15
    assert not [phrase for phrase in phrases if phrase not in code]


SCRIPTS = {
    "tools/train.py": ["train"],
    "tools/pack_dataset.py": ["data", "pack"],
    "tools/export_embeddings.py": ["embed"],
    "eval/verification.py": ["verify"],
    "eval/ijb.py": ["ijb"],
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:arcface-plus|make|torchrun|python) [^`]+)`")
TARGETS = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def command_lines(page: Path) -> list[str]:
    """Return every command of ours that a page shows, in blocks or within a sentence."""
    text = page.read_text(encoding="utf-8")
    blocks = [body for kind, body in BLOCK.findall(text) if kind in ("", "bash", "sh", "console")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += INLINE.findall(BLOCK.sub("", text).replace("\n", " "))
    starts = ("arcface-plus ", "torchrun ", "make ", "python ")
    return [line for line in (line.strip().removeprefix("$ ") for line in lines)
            if line.startswith(starts)]  # fmt: skip


@functools.cache
def setting_keys() -> frozenset[str]:
    """Return every key of a configuration, dotted, as the page of settings has them."""
    tables = runpy.run_path(str(DOCS / "conf.py"))["tables"](ap.RunConfig, "", "")
    return frozenset(re.findall(r"^\| `([\w.]+)`", "\n".join(tables), re.MULTILINE))


def faults(words: list[str], keys: frozenset[str]) -> list[str]:
    """Return the words that are no verb, option or setting of the command line."""
    command: Any = typer.main.get_command(app)
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        if not words or words[0].startswith("-") or words[0].isupper() or words[0] == "…":
            break
        if words[0] not in command.commands:
            return [words[0]]
        command, words = command.commands[words[0]], words[1:]
    known = {"--help"}
    for parameter in command.params:
        known |= {*parameter.opts, *parameter.secondary_opts}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    if command.context_settings.get("allow_extra_args"):
        sets = re.compile(r"evaluation\.sets\.\w+(\.\w+)?|\w+(\.\w+)*\.kind")
        given = {g for g in given if not (g[2:] in keys or sets.fullmatch(g[2:]))}
    return sorted(given - known)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_those_of_the_command_line(page: Path) -> None:
    keys, wrong = setting_keys(), []
    for line in command_lines(page):
        plain = re.sub(r"[\[\]…]|(?<=\s)#.*|[<>|&;].*", " ", line)
        words = shlex.split(plain.replace("'", ""))
        scripts = [word for word in words if word.endswith(".py")]
        if words[0] == "make":
            bad = [w for w in words[1:] if "=" not in w and w not in TARGETS]
        elif words[0] == "arcface-plus":
            bad = faults(words[1:], keys)
        elif not scripts or not (REPOSITORY / scripts[0]).exists():
            bad = [word for word in scripts if "/" in word]
        elif scripts[0] in SCRIPTS:
            bad = faults([*SCRIPTS[scripts[0]], *words[words.index(scripts[0]) + 1 :]], keys)
        else:
            source = (REPOSITORY / scripts[0]).read_text(encoding="utf-8")
            options = words[words.index(scripts[0]) + 1 :]
            bad = [w for w in options if w.startswith("--") and f'"{w}"' not in source]
        wrong += [f"{', '.join(bad)} in: {line}"] if bad else []
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "bad"),
    [
        ("verify --model M --pairs lfw.bin --flip", []),
        ("verify --models M", ["--models"]),
        ("data pakc FOLDER", ["pakc"]),
        ("train FILE --optim.lr 0.1 --evaluation.sets.lfw a.bin", []),
        ("train FILE --optim.rate 0.1", ["--optim.rate"]),
    ],
)
def test_finds_commands_that_are_none(line: str, bad: list[str]) -> None:
    assert faults(line.split(), setting_keys()) == bad


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    words = ["-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-c", "docs", ".", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    settings = (tmp_path / "docs" / "reference" / "settings.html").read_text(encoding="utf-8")
    assert "head.mma_weight" in settings and "--resume" in (
        tmp_path / "docs" / "reference" / "commands.html"
    ).read_text(encoding="utf-8")
