"""Measure the code itself: modules, layers, docstrings, calls upward and repeated parameter checks.

    python benchmarks/house.py                      # this checkout
    python benchmarks/house.py ../another           # another one
    python benchmarks/house.py ../another .         # two, side by side

How each figure is counted:

- *modules in the top folder*: files ``*.py`` of skdiffsmooth/ itself, without ``__init__.py``; private
  ones begin with an underscore. *Wings* are folders below it that hold an ``__init__.py``.
- *layers*: lines of the contract ``[importlinter:contract:layers]`` of setup.cfg.
- *docstring lines for each line of code*: a docstring is counted from its opening to its closing quotes,
  blank lines between them included. A line of code holds something that is neither a comment nor part
  of a docstring.
- *docstring lines that repeat*: an entry is "name : type" in a section Parameters, with the lines
  indented below it. Two entries are equal where their text is, apart from white space. Of an entry that
  occurs in k docstrings, k - 1 occurrences count, with all their lines.
- *calls upward*: calls in one ``SmoothedScoreDiffusion().fit(X)`` where the function that calls and the
  function that is called lie in modules which a contract of type "layers" ranks, the caller in the
  lower layer. Only direct calls count: one that passes through scikit-learn does not. Two kinds are no
  calls upward. Callbacks: lambdas, functions defined inside others, and functions or methods that the
  caller holds in a local variable, as it does when they were passed as an argument. And methods of a
  ``Protocol`` that the caller's layer or a lower one declares; these are counted on a line of their own.
- *parameter checks*: calls in that fit of functions of the package named ``resolve_*``, ``check_*`` or
  ``parse_*`` (checks of X and weights that are so named too), and of ``_checked_numbers``.
"""

import argparse
import ast
import collections
import configparser
import functools
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tokenize
import types

PACKAGE = "skdiffsmooth"
CHECKS = re.compile(r"(resolve|check|parse)_|_checked_numbers$")


def contracts(folder):
    """Return every contract of type "layers" as {module: rank}, the lowest layer having rank 0."""
    config = configparser.ConfigParser()
    config.read(folder / "setup.cfg")
    ranks = {}
    for section in config.sections():
        if section.startswith("importlinter:contract:") and config[section]["type"] == "layers":
            lines = config[section]["layers"].split("\n")
            layers = [line.split("|") for line in lines if line.strip()]
            ranks[section.rsplit(":", 1)[1]] = {
                name.strip(): rank for rank, names in enumerate(reversed(layers)) for name in names
            }
    return ranks


def rank(module, ranks):
    """Return the rank of a module in a contract: its own, or that of the wing it lies in."""
    while module and module not in ranks:
        module = module.rpartition(".")[0]
    return ranks.get(module)


def docstrings(tree):
    """Yield (docstring, first line, last line) for the module, its classes and its functions."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            yield ast.get_docstring(node), node.body[0].lineno, node.body[0].end_lineno


def code_lines(path):
    """Return the numbers of the lines that hold more than a comment, docstrings included."""
    empty = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type not in (*empty, tokenize.ENDMARKER):
                lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def entries(docstring):
    """Yield the entries of the section Parameters, each as the tuple of its lines."""
    lines = docstring.split("\n")
    is_inside, entry = False, []
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        is_title = below.startswith("---")
        if is_title:
            is_inside = line == "Parameters"
        if line and not line.startswith(" "):
            if entry:
                yield tuple(entry)
            entry = [line] if is_inside and not is_title and not line.startswith("-") else []
        elif entry and line:
            entry.append(line)
    if entry:
        yield tuple(entry)


def n_lines(paths):
    """Return the number of lines of some files, in all."""
    return sum(len(path.read_text().splitlines()) for path in paths)


def protocol_methods(folder):
    """Return {method: modules that declare it in a class derived from Protocol}."""
    methods = collections.defaultdict(set)
    for path in (folder / PACKAGE).rglob("*.py"):
        module = ".".join(path.relative_to(folder).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            bases = getattr(node, "bases", ())
            if any(isinstance(base, ast.Name) and base.id == "Protocol" for base in bases):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef):
                        methods[method.name].add(module)
    return methods


def trace_fit(folder):
    """Run one default fit; return calls upward, calls of protocols and parameter checks, by name."""
    command = [sys.executable, __file__, "--child", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, cwd=folder
    )
    return json.loads(done.stdout.splitlines()[-1])


def child(folder):
    """Print what `trace_fit` returns, as JSON: the half that runs in the other process."""
    # The folder of this script is on the path, and so would be modules that lie beside it.
    sys.path.remove(str(pathlib.Path(__file__).resolve().parent))
    import numpy as np

    import skdiffsmooth

    if folder not in pathlib.Path(skdiffsmooth.__file__).resolve().parents:
        raise RuntimeError(f"{skdiffsmooth.__file__} was imported; expected the one in {folder}")
    ranks, declared = list(contracts(folder).values()), protocol_methods(folder)
    upward, dispatched, checks = (collections.Counter() for _ in range(3))

    def profile(frame, event, _):
        code, callee = frame.f_code, frame.f_globals.get("__name__", "")
        if event != "call" or not callee.startswith(PACKAGE):
            return
        if CHECKS.match(code.co_name):
            checks[code.co_name] += 1
        back = frame.f_back
        while back and back.f_globals.get("__name__") == f"{PACKAGE}._utils.cached":
            back = back.f_back  # the function that reads the attribute
        caller = back.f_globals.get("__name__", "") if back else ""
        if caller == callee or not caller.startswith(PACKAGE):
            return
        for contract in ranks:
            low, high = rank(caller, contract), rank(callee, contract)
            if None in (low, high) or low >= high or is_callback(code, back):
                continue
            declaring = [rank(module, contract) for module in declared.get(code.co_name, ())]
            is_declared = any(lowest is not None and lowest <= low for lowest in declaring)
            kind = dispatched if is_declared else upward
            kind[f"{caller} -> {callee}.{code.co_qualname}"] += 1

    X = np.random.RandomState(0).normal(size=(60, 2))
    model = skdiffsmooth.SmoothedScoreDiffusion()
    sys.setprofile(profile)
    model.fit(X)
    sys.setprofile(None)
    print(json.dumps([kind.most_common() for kind in (upward, dispatched, checks)]))


def is_callback(code, caller):
    """Return whether a function is a lambda, a nested one, or one that its caller has as a variable."""
    if code.co_name == "<lambda>" or "<locals>" in code.co_qualname:
        return True
    local = [v.func if isinstance(v, functools.partial) else v for v in caller.f_locals.values()]
    kinds = (types.FunctionType, types.MethodType)
    return any(isinstance(value, kinds) and value.__code__ is code for value in local)


def measure(folder):
    """Return the figures of a checkout, as {name: text}, and the calls upward, most frequent first."""
    package = folder / PACKAGE
    top = [path.stem for path in package.glob("*.py") if path.name != "__init__.py"]
    paths = sorted(package.rglob("*.py"))
    lengths = {path: n_lines([path]) for path in paths if path.name != "__init__.py"}
    longest = max(lengths, key=lengths.get)
    n_docstring = n_code = 0
    counts = collections.Counter()
    for path in paths:
        texts = list(docstrings(ast.parse(path.read_text())))
        inside = {line for _, first, last in texts for line in range(first, last + 1)}
        n_docstring += len(inside)
        n_code += len(code_lines(path) - inside)
        for text, _, _ in texts:
            counts.update(tuple(" ".join(line.split()) for line in e) for e in set(entries(text)))
    repeated = {entry: count for entry, count in counts.items() if count > 1}
    upward, dispatched, checks = trace_fit(folder)
    first = contracts(folder)["layers"]
    figures = {
        "modules in the top folder": f"{len(top)}, {sum(n.startswith('_') for n in top)} private",
        "wings": len(list(package.glob("*/__init__.py"))),
        "layers of the import contract": max(first.values()) + 1,
        "median lines of a module": f"{statistics.median(lengths.values()):g}",
        "largest module": f"{lengths[longest]} lines, {longest.relative_to(package)}",
        "lines of library": n_lines(paths),
        "lines of tests": n_lines((folder / "tests").rglob("*.py")),
        "lines of docstrings": n_docstring,
        "lines of code": n_code,
        "docstring lines for each line of code": f"{n_docstring / n_code:.2f}",
        "docstring lines that repeat": sum((k - 1) * len(e) for e, k in repeated.items()),
        "entries that they repeat": len(repeated),
        "calls upward in a default fit": sum(count for _, count in upward),
        "calls of protocols in a default fit": sum(count for _, count in dispatched),
        "parameter checks in a default fit": sum(count for _, count in checks),
    }
    for number, (name, count) in enumerate(checks[:3], 1):
        figures[f"most frequent check, {number}"] = f"{name} {count}"
    for name in ("resolve_solver", "_checked_numbers"):
        figures[f"calls of {name}"] = dict(checks).get(name, 0)
    return figures, upward


def main():
    """Print a table with one column for each checkout, then the calls upward of each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    here = pathlib.Path(__file__).parents[1]
    parser.add_argument("folders", nargs="*", type=pathlib.Path, default=[here])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folders = [folder.resolve() for folder in arguments.folders]
    if arguments.child:
        return child(folders[0])
    measured = [measure(folder) for folder in folders]
    print("| figure | " + " | ".join(folder.name for folder in folders) + " |")
    print("|---" * (len(folders) + 1) + "|")
    for name in measured[0][0]:
        print(f"| {name} | " + " | ".join(str(figures[name]) for figures, _ in measured) + " |")
    for folder, (_, upward) in zip(folders, measured, strict=True):
        for call, count in upward:
            print(f"{folder.name}: {count} x {call}")
    return None


if __name__ == "__main__":
    main()
