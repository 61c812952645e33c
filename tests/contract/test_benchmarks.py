"""The benchmarks are not run by the tests, but they must still find what they import."""

import ast
import importlib
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))
LOCAL = {path.stem: path for path in SCRIPTS}


def names_of(path):
    """Names that a script defines or imports at its top level."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        for part in ast.walk(node):
            if isinstance(part, ast.Import | ast.ImportFrom):
                names |= {(alias.asname or alias.name).split(".")[0] for alias in part.names}
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names.add(part.id)
            elif isinstance(part, ast.FunctionDef | ast.ClassDef):
                names.add(part.name)
    return names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_finds_what_it_imports(path):
    """Of the library and of other scripts, in functions too; rivals need not be installed."""
    tree = ast.parse(path.read_text())
    package = {"skdiffsmooth"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "skdiffsmooth":
                    importlib.import_module(alias.name)
                if alias.name == "skdiffsmooth":
                    package.add(alias.asname)
        elif isinstance(node, ast.ImportFrom) and node.module in LOCAL:
            missing = {alias.name for alias in node.names} - names_of(LOCAL[node.module])
            assert not missing, f"{node.module} has no {missing}"
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "skdiffsmooth":
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
    # What is reached through the package: skdiffsmooth.name, or sk.name.
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    for node in attributes:
        if isinstance(node.value, ast.Name) and node.value.id in package:
            assert hasattr(importlib.import_module("skdiffsmooth"), node.attr), node.attr
