"""Mutation testing: a seeded, stratified sample of faults, each against the tests of its wing.

`python benchmarks/mutate.py 400` draws as many mutants, an equal number from each wing, writes one line
for each to build/mutants.jsonl, and prints the share that tests detect with its 95 % interval. A second
run continues where the first ended; `--list` prints the results, with the survivors as they were and
as they became. Remove the file when the code has changed.
"""

import argparse
import ast
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _common import header, row
from scipy.stats import beta

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "mutants.jsonl"
# Files of a wing, and the tests that must detect faults there.
WINGS = {
    "engine": ("_engine/*.py", "tests/engine"),
    "likelihood": ("_diffusion/*.py", "tests/diffusion tests/estimators"),
    "bandwidth": ("bandwidth.py", "tests/test_bandwidth.py"),
    "kernels": ("kernels/*.py", "tests/kernels"),
    "solvers": ("solvers/*.py", "tests/solvers"),
    "metrics": ("metrics/*.py", "tests/metrics"),
    "columns": ("tables/_*.py", "tests/tables"),
    "rows": ("_utils/*.py", "tests/utils tests/contract/test_bad_input.py"),
}
LONGEST = 120  # seconds of CPU; a mutant that needs more never ends
SWAPS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Pow: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"}
NAMES |= {"argmin": "argmax", "argmax": "argmin", "any": "all", "all": "any", "amax": "amin"}


def changes(node):
    """Yield functions that change a node of a syntax tree in place."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPS:
        yield lambda n: setattr(n, "op", SWAPS[type(n.op)]())
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        yield lambda n: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield lambda n: setattr(n, "op", ast.UAdd() if isinstance(n.op, ast.USub) else ast.Not())
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        yield lambda n: setattr(n, "value", n.value + 1 if n.value in (0, 1) else n.value * 2)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda n: setattr(n, "value", not n.value)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield lambda n: setattr(n, "attr", NAMES[n.attr])
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield lambda n: setattr(n, "id", NAMES[n.id])
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))


def executed(tree):
    """Yield the nodes that run: no annotations, docstrings or texts of messages."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "type_params") or isinstance(tree, ast.JoinedStr):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.AST):
                yield node
                yield from executed(node)


def mutants(wing):
    """Return (file, index of the node, index of the change) of all mutants of a wing."""
    found = []
    for file in sorted((ROOT / "skdiffsmooth").glob(WINGS[wing][0])):
        nodes = executed(ast.parse(file.read_text()))
        name = str(file.relative_to(ROOT))
        found += [(name, i, k) for i, node in enumerate(nodes) for k, _ in enumerate(changes(node))]
    return found


def mutated(name, index, change):
    """Return the source of a mutant, the number of its line, and the line before and after."""
    tree = ast.parse((ROOT / name).read_text())
    node = list(executed(tree))[index]
    before = ast.unparse(node)
    original = copy.deepcopy(node)
    list(changes(node))[change](node)
    assert ast.dump(original) != ast.dump(node) or isinstance(node, ast.UnaryOp)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
    ast.fix_missing_locations(tree)
    return ast.unparse(tree), node.lineno, before, ast.unparse(node)


def is_killed(wing, name, source):
    """Return whether a test of the wing fails; those of the module's own file run first."""
    folders = WINGS[wing][1].split()
    own = f"test_{Path(name).stem.lstrip('_')}.py"
    first = [str(p.relative_to(ROOT)) for folder in folders for p in (ROOT / folder).rglob(own)]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "skdiffsmooth", Path(folder, "skdiffsmooth"))
        for part in ("tests", "setup.cfg", "pyproject.toml", "README.md", "docs", "benchmarks"):
            Path(folder, part).symlink_to(ROOT / part)
        Path(folder, name).write_text(source)
        for tests in ([first] if first else []) + [folders]:
            command = ["-m", "pytest", "-xq", "-n0", "-p", "no:cacheprovider", "-m", "not slow"]
            end = subprocess.run(
                [
                    "bash",
                    "-c",
                    f'ulimit -t {LONGEST}; exec "$@"',
                    "-",
                    sys.executable,
                    *command,
                    *tests,
                ],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                check=False,
            ).returncode
            if end != 0:
                return True
    return False


def sample(count, wings, seed=0):
    """Return mutants of wings in turn, so that any first part of the sample is stratified."""
    drawn = []
    for wing in wings:
        every = mutants(wing)
        order = np.random.default_rng([seed, list(WINGS).index(wing)]).permutation(len(every))
        drawn.append([(wing, *every[i]) for i in order[: -(-count // len(wings))]])
    return [m for group in zip(*drawn, strict=True) for m in group][:count]


def interval(killed, total):
    """Return the exact 95 % interval of a share (Clopper and Pearson)."""
    low = beta.ppf(0.025, killed, total - killed + 1) if killed else 0.0
    high = beta.ppf(0.975, killed + 1, total - killed) if killed < total else 1.0
    return f"{low:.0%} to {high:.0%}"


def report(results):
    header("wing", "mutants", "killed", "95 % interval")
    for wing in [*WINGS, "all"]:
        of = [r["killed"] for r in results if wing in (r["wing"], "all")]
        if of:
            row(wing, len(of), sum(of), interval(sum(of), len(of)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=40)
    parser.add_argument("--wings", nargs="+", choices=WINGS, default=list(WINGS))
    parser.add_argument("--list", action="store_true", help="print the survivors, and run nothing")
    arguments = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    results = {tuple(r["mutant"]): r for r in map(json.loads, lines)}
    for wing, *mutant in [] if arguments.list else sample(arguments.count, arguments.wings):
        if (wing, *mutant) in results:
            continue
        print(wing, *mutant, flush=True)
        source, line, before, after = mutated(*mutant)
        killed = is_killed(wing, mutant[0], source)
        result = {"mutant": [wing, *mutant], "wing": wing, "killed": killed, "line": line}
        results[wing, *mutant] = result | {"before": before[:160], "after": after[:160]}
        with RESULTS.open("a") as file:
            file.write(json.dumps(results[wing, *mutant]) + "\n")
    report(results.values())
    for r in results.values():
        if not r["killed"]:
            print(f"\n{r['mutant'][1]}:{r['line']}\n  - {r['before']}\n  + {r['after']}")
