"""The check on words, `.ci/words.py`, finds what the table in CONTRIBUTING.md retires."""

import importlib.util
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]

TABLE = """
| Retired | Say | Checked in | Allowed |
|---|---|---|---|
| `spread`, `left_out` | `trace` | names, summaries | `left_out_rows`, `manifolds/` |
| `law` | distribution | names | |
| `dear` | slow | — | |
"""


@pytest.fixture(scope="module")
def words():
    spec = importlib.util.spec_from_file_location("words", ROOT / ".ci" / "words.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def occurrences(words, tmp_path, monkeypatch, code, file="a.py"):
    """Return (word, name, allowed items) of a package that holds one file."""
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(code)
    monkeypatch.setattr(words, "PACKAGE", tmp_path)
    table = words.read_table(TABLE)
    return [(w, text, allowed) for w, _, _, text, allowed in words.occurrences(table)]


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("def _spread_of(x): pass", "spread"),
        ("def f(max_spread): pass", "spread"),
        ("class SpreadRule: pass", "spread"),
        ("self.left_out = 1", "left_out"),
        ("for row_left_out in x: pass", "left_out"),
        ("def f():\n    '''Return the spread.'''", "spread"),
        ("TERMINAL_LAW = 1", "law"),
    ],
)
def test_a_retired_word_is_found(words, tmp_path, monkeypatch, code, word):
    assert [found for found, _, _ in occurrences(words, tmp_path, monkeypatch, code)] == [word]


@pytest.mark.parametrize(
    "code",
    [
        "spreading = outlaw = dear = 1",
        "import law\nlaw.law(spread)",
        "def f():\n    '''Return the `spread` of a law.\n\n    The spread.\n    '''",
    ],
)
def test_other_words_and_uses_are_not(words, tmp_path, monkeypatch, code):
    assert occurrences(words, tmp_path, monkeypatch, code) == []


def test_an_exception_is_a_name_or_a_folder(words, tmp_path, monkeypatch):
    named = occurrences(words, tmp_path, monkeypatch, "left_out_rows = 1")
    assert named == [("left_out", "left_out_rows", ["left_out_rows"])]
    (tmp_path / "a.py").unlink()
    inside = occurrences(words, tmp_path, monkeypatch, "spread = 1", "manifolds/b.py")
    assert inside == [("spread", "spread", ["manifolds/"])]


def test_the_table_of_this_repository_can_be_read(words):
    table = words.read_table((ROOT / "CONTRIBUTING.md").read_text())
    assert table["spread"] == ("names, summaries", [])
    assert "manifolds/" in table["reach"][1]
