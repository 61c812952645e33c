"""The reference lists every public name and no other; code and links of the pages work."""

import ast
import doctest
import importlib
import importlib.util
import io
import pathlib
import re
import warnings

import pytest

ROOT = pathlib.Path(__file__).parents[2]
API = ROOT / "docs" / "api" / "index.md"
# Their __all__ is all public; that of other modules has names for the library's own use too.
PUBLIC = (
    "",
    ".compose",
    ".datasets",
    ".displays",
    ".manifolds",
    ".metrics",
    ".model_selection",
    ".tables",
)
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [page for page in PAGES if not {"_build", "gallery", "generated"} & set(page.parts)]
# Pages for users. Evidence and development pages show how figures were made; they are not run.
GUIDE = [page for page in PAGES if page.parent.name in ("guide", "docs")] + [ROOT / "README.md"]
BLOCK = re.compile(
    r"(<!-- (not run|needs): ([^\n]+) -->\n\n)?^( *)```python\n(.*?)^ *```$", re.M | re.S
)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def documented():
    """Return the full names that docs/api/index.md lists."""
    names = set()
    text = "".join(page.read_text() for page in sorted(API.parent.glob("*.md")))
    for block in re.findall(r"```{eval-rst}\n(.*?)```", text, re.DOTALL):
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


def blocks(page):
    """Yield (line, code) of the Python blocks of a page that can be run here."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        _, kind, reason, indent, code = match.groups()
        if kind == "not run":
            continue
        if kind == "needs" and importlib.util.find_spec(reason) is None:
            continue
        line = text.count("\n", 0, match.start(5)) + 1
        yield line, re.sub(f"^{indent}", "", code, flags=re.M)


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """Blocks of a page share their names, as a reader's session does, and nothing warns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names = {"__name__": "__page__"}
    for line, code in blocks(page):
        where = f"{page.name}:{line}"
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            if ">>>" not in code:
                exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)
                continue
            report = io.StringIO()
            test = doctest.DocTestParser().get_doctest(code, names, where, str(page), line - 1)
            runner = doctest.DocTestRunner(optionflags=FLAGS)
            runner.run(test, out=report.write, clear_globs=False)
            names.update(test.globs)
        assert runner.failures == 0, report.getvalue()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path = target.split("#")[0]
        if path and not path.startswith(("http", "mailto")) and not path.endswith("gallery/index"):
            assert (page.parent / path).exists(), f"{page.name} links to {target}"
