"""Keep retired words out of names and of the first lines of docstrings in skdiffsmooth/.

    python .ci/words.py           # every occurrence that is left; exit status 1 if there is one
    python .ci/words.py --list    # counts only; exit status 0

The words, where each is checked and what is allowed all the same stand in one table, in CONTRIBUTING.md
under "Words". In "names" a word is looked for in the names of modules, functions, classes, arguments,
attributes and variables, split at underscores and capitals; in "summaries" also in the first lines of
docstrings, outside double backticks and single ones. An item of the column "allowed" is a name (``*``
stands for anything), a file or a folder of the package. An item that nothing needs is an error too.
"""

import argparse
import ast
import collections
import fnmatch
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "skdiffsmooth"
COLUMNS = ["Retired", "Say", "Checked in", "Allowed"]
BACKTICKED = re.compile(r"`([^`]+)`")
PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def read_table(text):
    """Return {retired word: (where it is checked, allowed items)} of the table in CONTRIBUTING.md."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    if COLUMNS not in rows:
        raise ValueError(f"CONTRIBUTING.md has no table with the columns {COLUMNS}")
    table = {}
    for cells in rows[rows.index(COLUMNS) + 2 :]:
        if len(cells) != len(COLUMNS):
            break
        retired, _, checked, allowed = cells
        for word in BACKTICKED.findall(retired):
            table[word] = (checked, BACKTICKED.findall(allowed))
    return table


def names(tree):
    """Yield (name, line) of what a module defines: imports and names used are not its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def summaries(tree):
    """Yield (first line, its number) of each docstring, without what stands in backticks."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
            docstring = ast.get_docstring(node)
            if docstring is not None:
                first = docstring.split("\n", 1)[0]
                yield re.sub(r"``.*?``|`.*?`", "", first), node.body[0].lineno


def split(text):
    """Return the parts of names and sentences, in lower case, between underscores: "_left_out_"."""
    return "_" + "_".join(part.lower() for part in PART.findall(text)) + "_"


def occurrences(table):
    """Yield (word, file, line, name or sentence, allowed items that match it)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        tree = ast.parse(path.read_text())
        texts = [(1, "names", path.stem)]
        texts += [(line, "names", name) for name, line in names(tree)]
        texts += [(line, "summaries", text) for text, line in summaries(tree)]
        # Each once a file, where it comes first.
        first = {(kind, text): line for line, kind, text in sorted(texts, reverse=True)}
        for (kind, text), line in sorted(first.items(), key=lambda item: item[1]):
            for word, (checked, allowed) in table.items():
                if kind in checked and f"_{word}_" in split(text):
                    yield (
                        word,
                        file,
                        line,
                        text,
                        [item for item in allowed if fits(item, file, text)],
                    )


def fits(item, file, name):
    """Return whether an item of the column "allowed" names this file, a folder of it or this name."""
    if item.endswith((".py", "/")):
        return file == item or file.startswith(item)
    return fnmatch.fnmatchcase(name, item)


def main():
    """Report what is left, and allowed items that nothing needs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--list", action="store_true", help="print counts only, and succeed")
    only_counts = parser.parse_args().list
    table = read_table((ROOT / "CONTRIBUTING.md").read_text())
    counts, needed = collections.Counter(), set()
    for word, file, line, text, allowed in occurrences(table):
        needed.update(allowed)
        if allowed:
            continue
        counts[word] += 1
        if not only_counts:
            print(f"skdiffsmooth/{file}:{line}: {word!r} in {text!r}; see Words in CONTRIBUTING.md")
    listed = {item for _, items in table.values() for item in items}
    for item in sorted(listed - needed):
        print(f"CONTRIBUTING.md: nothing needs the allowed item {item!r} any more; remove it")
    if only_counts:
        for word, count in counts.most_common():
            print(f"{count:5d}  {word}")
        print(f"{counts.total():5d}  in all")
        return 0
    return int(bool(counts or listed - needed))


if __name__ == "__main__":
    raise SystemExit(main())
