"""Imports among the experiments go down, so that no two of them need each other."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the bottom up. Packages of one row do not import each other.
LAYERS = (
    ("datasets",),
    ("core",),
    ("reporting",),
    ("fairgrad", "multifair", "intersectional", "prior_model"),
    ("bench",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


@pytest.fixture(scope="module")
def imports():
    """Module -> the modules of the experiments that it imports, wherever it does."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "experiments").rglob("*.py")
    }
    known = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    found = {}
    for name, path in known.items():
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        froms = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
        named = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
        for node in froms:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= (parts & known.keys()) or {node.module}
        found[name] = (named & known.keys()) - {name}
    return found


def package(module):
    return module.split(".")[1] if "." in module else ""


def test_all_files_are_in_packages_that_have_a_layer(imports):
    assert {package(name) for name in imports} == {"", *LEVEL}
    assert [name for name in imports if not package(name)] == ["experiments"]


def test_imports_go_down(imports):
    pairs = [(one, other) for one, others in imports.items() for other in others]
    between = [p for p in pairs if "" not in map(package, p)]
    assert len(between) > 300
    up = [
        (one, other)
        for one, other in between
        if package(one) != package(other)
        and LEVEL[package(one)] <= LEVEL[package(other)]
    ]
    assert up == []


def test_no_modules_import_each_other(imports):
    graphlib.TopologicalSorter(imports).prepare()
