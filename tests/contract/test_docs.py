"""The reference and the gallery know every public name, and no other."""

import ast
import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
API = ROOT / "docs" / "api" / "index.md"
# Their __all__ is all public; that of other modules has names for the library's own use too.
PUBLIC = ("", ".compose", ".datasets", ".manifolds", ".metrics", ".model_selection")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def documented():
    """Return the full names that docs/api/index.md lists."""
    names = set()
    for block in re.findall(r"```{eval-rst}\n(.*?)```", API.read_text(), re.DOTALL):
        module = re.search(r"currentmodule:: (\S+)", block)[1]
        names.update(f"{module}.{name}" for name in re.findall(r"^   ([\w.]+)$", block, re.M))
    return names


def found(name):
    """Return what a full name stands for."""
    for parts in range(name.count("."), 0, -1):
        module, *rest = name.rsplit(".", name.count(".") - parts + 1)
        try:
            value = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for attribute in rest:
            value = getattr(value, attribute)
        return value
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_lists_every_public_name(module):
    module = f"skdiffsmooth{module}"
    public = {found(f"{module}.{name}") for name in importlib.import_module(module).__all__}
    assert public <= {found(name) for name in documented()}


def test_the_reference_lists_nothing_that_is_not_there():
    names = documented()
    assert len(names) > 50
    for name in names:
        assert found(name) is not None


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_import_what_is_there(path):
    """They are run by `make gallery`; a name that is gone is found here already."""
    tree = ast.parse(path.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module.split(".")[0] == "skdiffsmooth"]
    for node in ours:
        module = importlib.import_module(node.module)
        for alias in node.names:
            assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"
