"""The names that ``import arcface_plus`` offers."""

from __future__ import annotations

import ast
import importlib
import inspect
from importlib import metadata

import pytest

import arcface_plus


@pytest.mark.parametrize("name", arcface_plus.__all__)
def test_name_resolves(name):
    value = getattr(arcface_plus, name)
    if name != "__version__":
        assert value.__name__ == name and inspect.getdoc(value)
        assert value is getattr(importlib.import_module(arcface_plus._HOMES[name]), name)


def test_names_are_unique_and_listed():
    assert len(set(arcface_plus.__all__)) == len(arcface_plus.__all__)
    assert set(dir(arcface_plus)) == set(arcface_plus.__all__)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(inspect.getsource(arcface_plus))
    (block,) = [n for n in tree.body if isinstance(n, ast.If)]
    seen = {alias.asname: (n.module, alias.name) for n in block.body for alias in n.names}
    assert seen == {name: (home, name) for name, home in arcface_plus._HOMES.items()}


@pytest.mark.parametrize("name", ["Trainer", "mma", "__wrapped__"])
def test_other_names_are_attribute_errors(name):
    assert not hasattr(arcface_plus, name)
    with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
        getattr(arcface_plus, name)


def test_version_is_that_of_the_installed_package():
    assert arcface_plus.__version__ == metadata.version("arcface_plus")


def test_version_is_unknown_where_the_package_is_not_installed(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert arcface_plus.__version__ == "0+unknown"
