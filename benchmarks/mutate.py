"""Mutation testing: a seeded, stratified sample of faults, each against the tests that run its line.

`make coverage` first: it writes which test runs which line, and for how long, to build/. Then
`python benchmarks/mutate.py 400` draws as many mutants, an equal number from each wing, writes one line
for each to build/mutants-0.jsonl, and prints the share that tests detect with its 95 % interval, and the
survivors. A second run continues where the first ended, with the files that have not changed; a count
of 0 prints only. With --seed 1 others are drawn, for an estimate that no test was written for: tests
that are written for the survivors of a sample make its share too high. With --again survivors are tried
once more, with --limit for longer.

A mutant meets first the tests of the file named like its module (tests/kernels/test_query.py for
kernels/_query.py), then the others of its wing, then all others that run its line, of each the shortest
first, until one fails. The tests run whose durations, as `make coverage` recorded them, sum to as many
seconds as --limit says, at least one: whatever passes these counts as survivor, however busy the machine
is. A test detects a mutant if it fails alone, too, and passes without the fault; others are left out.
All processes are forked from one that has loaded the libraries, so that a mutant takes a few seconds.
"""

import argparse
import ast
import contextlib
import functools
import gc
import hashlib
import importlib
import importlib.machinery
import itertools
import json
import os
import resource
import signal
import sys
import time
import traceback
import types
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
from _common import header, row
from scipy.stats import binomtest

ROOT = Path(__file__).resolve().parent.parent
# Which test runs which line, and the durations of the tests: see `make coverage`.
CONTEXTS, DURATIONS = ROOT / "build" / "coverage", ROOT / "build" / "tests.xml"
# Recorded seconds of the tests of one mutant, and how many more of CPU it may take before it is stopped.
LIMIT, MORE = 10, 50
DETECTED = "detected", "out of time"
# What the first process loads, and no code of the package.
LIBRARIES = "torch pandas scipy.stats sklearn.mixture sklearn.utils.estimator_checks hypothesis"
# Files of a wing, and its tests, which run before those of other wings.
WINGS = {
    "engine": ("_engine/*.py", "tests/engine"),
    "likelihood": ("_diffusion/*.py", "tests/diffusion tests/estimators"),
    "bandwidth": ("bandwidth.py", "tests/test_bandwidth.py"),
    "kernels": ("kernels/*.py", "tests/kernels"),
    "solvers": ("solvers/*.py", "tests/solvers"),
    "metrics": ("metrics/*.py", "tests/metrics"),
    "columns": ("tables/_*.py", "tests/tables"),
    "rows": ("_utils/*.py", "tests/utils"),
}
# Tests of signatures and classes, which run no line of the files that they read.
OF_IMPORTS = (
    "tests/contract/test_parameters.py::test_defaults_are_those_of_the_docstrings",
    "tests/contract/test_package.py::test_records_cannot_be_changed",
)
# Files that are named are rewritten for their assertions, past the loader that returns a mutant.
PYTEST = ["-n0", "-p", "no:cacheprovider", "-p", "no:terminal", "--assert=plain"]
PYTEST += ["-o", "addopts=--doctest-modules"]
OPERATORS = "Add Sub, Mult Div, FloorDiv Div, Pow Mult, Lt LtE, Gt GtE, Eq NotEq, Is IsNot, And Or"
SWAPS = dict(pair.split() for pair in f"{OPERATORS}, BitAnd BitOr".split(", "))
SWAPS = {b: a for a, b in SWAPS.items()} | SWAPS
NAMES = {"min": "max", "minimum": "maximum", "argmin": "argmax", "amin": "amax", "any": "all"}
NAMES |= {b: a for a, b in NAMES.items()}


def mutate(node):
    """Change a node of a syntax tree in place; return whether it is of a kind that can be changed."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign | ast.Compare):
        operators = node.ops if isinstance(node, ast.Compare) else [node.op]
        swapped = SWAPS.get(type(operators[0]).__name__)
        if swapped is None:
            return False
        operators[0] = getattr(ast, swapped)()
        if not isinstance(node, ast.Compare):
            node.op = operators[0]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node.op = ast.UAdd()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        node.value = node.value + 1 if node.value in (0, 1) else node.value * 2
    elif isinstance(node, ast.Attribute | ast.Name):
        field = "attr" if isinstance(node, ast.Attribute) else "id"
        name = getattr(node, field)
        setattr(node, field, NAMES.get(name, name))
        return name in NAMES
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    else:
        return False
    return True


def executed(tree):
    """Yield the nodes that run: no annotations or texts of messages."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "type_params") or isinstance(tree, ast.JoinedStr):
            continue
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.AST):
                yield node
                yield from executed(node)


def files_of(wing):
    return sorted((ROOT / "skdiffsmooth").glob(WINGS[wing][0]))


def mutants_of(wing):
    """Return (wing, file, node) of all mutants of a wing."""
    found = []
    for file in files_of(wing):
        nodes = list(executed(ast.parse(file.read_text())))
        name = str(file.relative_to(ROOT))
        found += [(wing, name, i) for i, node in enumerate(nodes) if mutate(node)]
    return found


def sample(count, wings, seed):
    """Return (wing, file, node) of mutants, wings in turn, so that any first part is stratified."""
    drawn = []
    for wing in wings:
        found = mutants_of(wing)
        order = np.random.default_rng([seed, list(WINGS).index(wing)]).permutation(len(found))
        drawn.append([found[i] for i in order[: -(-count // len(wings))]])
    return [m for group in zip(*drawn, strict=True) for m in group][:count]


def mutated(file, index):
    """Return the tree of a mutant, its place, and the part before and after."""
    tree = ast.parse((ROOT / file).read_text())
    node = list(executed(tree))[index]
    before = ast.unparse(getattr(node, "test", node))
    place = statement(tree, node)
    mutate(node)
    ast.fix_missing_locations(tree)
    return tree, place, before, ast.unparse(getattr(node, "test", node))


def statement(tree, node):
    """Return the first and last line of the statement of a node, and whether a function runs it."""
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    path = [node]
    while path[-1] in parents:
        path.append(parents[path[-1]])
    own = next(each for each in path if isinstance(each, ast.stmt | ast.ExceptHandler))
    # Of a statement with a body, only its head.
    last = own.body[0].lineno - 1 if hasattr(own, "body") else own.end_lineno
    in_function = any(
        isinstance(outer, ast.FunctionDef) and inner in outer.body
        for inner, outer in itertools.pairwise(path)
    )
    return own.lineno, max(own.lineno, last), in_function


# ------------------------------------------------------------------------------ tests of a line


@functools.cache
def durations():
    """Return the seconds of each test, by its module and its name."""
    cases = xml.etree.ElementTree.parse(DURATIONS).iter("testcase")
    return {(c.get("classname"), c.get("name")): float(c.get("time")) for c in cases}


def duration(test):
    path, _, name = test.partition("::")
    return durations().get((path.removesuffix(".py").replace("/", "."), name), 1.0)


@functools.cache
def contexts(file):
    """Return the tests, with the phase of each, that run each line of a file."""
    from coverage import CoverageData

    data = CoverageData(str(CONTEXTS))
    data.read()
    return data.contexts_by_lineno(str(ROOT / file))


def tests_of(file, place):
    """Return the tests that run a statement; of one that runs at import, those that run the file."""
    first, last, in_function = place
    found = set() if in_function else {f"{test}|call" for test in OF_IMPORTS}
    for line, names in contexts(file).items():
        if first <= line <= last or not in_function:
            found.update(names)
    return {tuple(name.rpartition("|")[::2]) for name in found if "|" in name}


def tiers_of(wing, file):
    """Return the starts of the names of tests that run first, and of those of the wing, which follow."""
    folders = WINGS[wing][1].split()
    named = f"test_{Path(file).stem.strip('_')}.py"
    first = [each if each.endswith(named) else f"{each}/{named}" for each in folders]
    return (*first, *OF_IMPORTS), tuple(folders)


def in_order(tests, items, tiers):
    """Return the items to run, by their tier; those that share a fixture stay together."""
    shared = {
        item.nodeid: item.nodeid.partition("::")[0]
        for item in items
        if item.get_closest_marker("xdist_group")
    }
    # A fixture runs in the setup of the first test that needs it, and the others would notice, too.
    groups = {shared.get(name) for name, phase in tests if phase == "setup"} - {None}
    names = {name for name, _ in tests}
    chosen = [i for i in items if i.nodeid in names or shared.get(i.nodeid) in groups]
    of_group = {}
    for item in chosen:
        of_group.setdefault(shared.get(item.nodeid, item.nodeid), []).append(duration(item.nodeid))

    def key(item):
        group = shared.get(item.nodeid, item.nodeid)
        tier = sum(not item.nodeid.startswith(starts) for starts in tiers)
        return tier, np.mean(of_group[group]), group, duration(item.nodeid)

    return sorted(chosen, key=key)


def within(limit, items):
    """Return the first items whose recorded durations sum to at most `limit` seconds, at least one."""
    seconds = np.cumsum([duration(item.nodeid) for item in items])
    return items[: max(int(np.searchsorted(seconds, limit, side="right")), 1)]


# ------------------------------------------------------------------------------ one mutant


def codes(code):
    """Yield a code object and those inside."""
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from codes(each)


@functools.cache
def loaded_functions():
    """Return the functions that are loaded when this is first called."""
    gc.unfreeze()  # objects that tests/conftest.py has frozen are not listed
    return [each for each in gc.get_objects() if type(each) is types.FunctionType]


def apply(file, tree):
    """Load a mutant in place of a file of the package, or change its functions if that is loaded."""
    path = str(ROOT / file)
    code = compile(tree, path, "exec")
    get_code = importlib.machinery.SourceFileLoader.get_code

    def get_mutant(loader, name):
        return code if loader.path == path else get_code(loader, name)

    importlib.machinery.SourceFileLoader.get_code = get_mutant
    new = {(each.co_qualname, each.co_firstlineno): each for each in codes(code)}
    loaded = [each for each in loaded_functions() if each.__code__.co_filename == path]
    if not loaded and any(getattr(m, "__file__", None) == path for m in sys.modules.values()):
        raise RuntimeError(f"{file} is loaded, and none of its functions is found")
    for function in loaded:
        old = function.__code__
        each = new[old.co_qualname, old.co_firstlineno]
        # Two lambdas of one line may have different variables.
        if each.co_freevars == old.co_freevars and each.co_varnames == old.co_varnames:
            function.__code__ = each


class Run:
    """A plugin that runs chosen tests until one fails, and writes the outcome to a pipe."""

    def __init__(self, tests, tiers, pipe, limit):
        self.tests, self.tiers, self.pipe, self.limit = tests, tiers, pipe, limit

    def pytest_runtestloop(self, session):
        every = in_order(self.tests, session.items, self.tiers)
        items = within(self.limit, every)
        result = ["survived" if len(items) == len(every) else "survived the limit", None]
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.testsfailed:
                result = ["detected", item.nodeid]
                break
        os.write(self.pipe, json.dumps(result).encode())
        os._exit(0)


def attempt(tests, tiers, session, limit, change):
    """Run tests in a fork of this process, after a change; return the outcome and the failed test."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        last = int(time.process_time()) + limit + MORE
        resource.setrlimit(resource.RLIMIT_CPU, (last, last))
        try:
            change()
            run = Run(tests, tiers, writer, limit)
            if session is not None:
                run.pytest_runtestloop(session)
            files = sorted({name.partition("::")[0] for name, _ in tests})
            pytest.main([*PYTEST, *files], plugins=[run])
            # No test has begun: the package or the tests cannot be loaded.
            result = ["detected", "import"]
        except BaseException:
            result = ["error", traceback.format_exc()[-2000:]]
        os.write(writer, json.dumps(result).encode())
        os._exit(1)
    began = time.monotonic()
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.02)
        if time.monotonic() > began + 30 * (limit + MORE):
            os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # workers that it started
    os.set_blocking(reader, False)
    os.close(writer)
    text = os.read(reader, 10_000)
    os.close(reader)
    result = json.loads(text) if text else ["out of time", None]
    if result[0] == "error":
        raise RuntimeError(result[1])
    return result


def outcome(file, tree, place, tiers, session, limit, fails_without):
    """Return what became of a mutant, and the test that detected it."""

    def fails_alone(test, change):
        return attempt({(test, "call")}, tiers, session, limit, change)[0] != "survived"

    def change():
        apply(file, tree)

    tests = tests_of(file, place)
    if not tests:
        return ["in no test", None]
    tests = {(name, phase) for name, phase in tests if not fails_without.get(name)}
    while tests:
        end, test = attempt(tests, tiers, session, limit, change)
        if end != "detected" or test == "import":
            return end, test
        if test not in fails_without:
            fails_without[test] = fails_alone(test, lambda: None)
        if not fails_without[test] and fails_alone(test, change):
            return end, test
        tests = {(name, phase) for name, phase in tests if name != test}
    return ["survived", None]


def run_mutants(mutants, results, limit, session=None):
    """Run mutants, and write a line for each to a file."""
    fails_without = {}
    for wing, file, index in mutants:
        tree, place, before, after = mutated(file, index)
        began = [resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()]
        tiers = tiers_of(wing, file)
        end, test = outcome(file, tree, place, tiers, session, limit, fails_without)
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = now.ru_utime + now.ru_stime - began[0].ru_utime - began[0].ru_stime
        used += time.process_time() - began[1]
        result = {"wing": wing, "file": file, "node": index, "of": digest(file), "outcome": end}
        result |= {"line": place[0], "before": before, "after": after, "test": test}
        with results.open("a") as lines:
            lines.write(json.dumps(result | {"seconds": round(used, 1)}) + "\n")
        print(f"{file}:{place[0]}", end, f"{used:.1f} s", test or "", file=sys.stderr, flush=True)


class Mutants:
    """A plugin that runs mutants in forks of the process that has collected all tests."""

    def __init__(self, mutants, results, limit):
        self.mutants, self.results, self.limit = mutants, results, limit

    def pytest_runtestloop(self, session):
        loaded_functions()
        gc.freeze()  # forks then share the memory
        run_mutants(self.mutants, self.results, self.limit, session)
        return True


def digest(file):
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:8]


def read(results):
    """Return the results in a file, of files that have not changed since."""
    lines = results.read_text().splitlines() if results.exists() else []
    return [r for r in map(json.loads, lines) if r["of"] == digest(r["file"])]


def check_coverage(wings):
    """Exit with a message unless `make coverage` has run since the library was changed."""
    remedy = "run `make coverage` first, which takes as long as the tests"
    try:
        from coverage import CoverageData
    except ImportError:
        sys.exit(f"the package coverage is not installed: {remedy}")
    missing = [str(each) for each in (CONTEXTS, DURATIONS) if not each.exists()]
    if missing:
        sys.exit(f"there is no {' and no '.join(missing)}: {remedy}")
    data = CoverageData(str(CONTEXTS))
    data.read()
    if not any(name.startswith(str(ROOT)) for name in data.measured_files()):
        sys.exit(f"{CONTEXTS} is of another checkout: {remedy}")
    for file in [file for wing in wings for file in files_of(wing)]:
        if file.stat().st_mtime > CONTEXTS.stat().st_mtime:
            sys.exit(f"{file} has changed since {CONTEXTS} was made: {remedy}")


def weighted_share(results):
    """Return the share of all mutants that tests detect, with its 95 % interval, wings by their size.

    The interval is the normal one of a stratified sample, with one detected mutant and one survivor more
    in each wing, so that a wing without survivors has a variance.
    """
    share = variance = 0.0
    sizes = {wing: len(mutants_of(wing)) for wing in {r["wing"] for r in results}}
    for wing, size in sizes.items():
        ends = [r["outcome"] in DETECTED for r in results if r["wing"] == wing]
        of_all, cautious = size / sum(sizes.values()), (sum(ends) + 1) / (len(ends) + 2)
        share += of_all * np.mean(ends)
        variance += of_all**2 * cautious * (1 - cautious) / len(ends)
    half = 1.96 * variance**0.5
    return share, max(share - half, 0), min(share + half, 1), sum(sizes.values())


def report(results):
    """Print the share of detected mutants with its exact 95 % interval, and the survivors."""
    header("wing", "mutants", "detected", "of these out of time", "95 % interval", "CPU s each")
    for wing in [*WINGS, "all"]:
        of_wing = [r for r in results if wing in (r["wing"], "all")]
        found = [r["outcome"] for r in of_wing]
        if found:
            detected = sum(map(found.count, DETECTED))
            low, high = binomtest(detected, len(found)).proportion_ci()
            seconds = np.mean([r["seconds"] for r in of_wing])
            cells = len(found), detected, found.count("out of time"), f"{low:.0%} to {high:.0%}"
            row(wing, *cells, f"{seconds:.1f}")
    if results:
        share, low, high, size = weighted_share(results)
        print(f"\nOf all {size} mutants of these wings: {share:.0%} ({low:.0%} to {high:.0%}).")
    for r in results:
        if r["outcome"] not in DETECTED:
            place = f"{r['file']}:{r['line']}, {r['outcome']}"
            print(f"\n{place}\n  - {r['before']}\n  + {r['after']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("count", nargs="?", type=int, default=40)
    parser.add_argument("--wings", nargs="+", choices=WINGS, default=list(WINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--limit", type=int, default=LIMIT)
    arguments = parser.parse_args()
    os.chdir(ROOT)
    results = ROOT / "build" / f"mutants-{arguments.seed}.jsonl"
    if arguments.count:
        check_coverage(arguments.wings)
    kept = [r for r in read(results) if not arguments.again or r["outcome"] in DETECTED]
    results.parent.mkdir(exist_ok=True)
    results.write_text("".join(json.dumps(r) + "\n" for r in kept))
    done = {(r["file"], r["node"]) for r in kept}
    drawn = sample(arguments.count, arguments.wings, arguments.seed)
    todo = [m for m in drawn if m[1:] not in done]
    if todo:
        for name in LIBRARIES.split():
            importlib.import_module(name)
        at_import = [m for m in todo if not mutated(*m[1:])[1][2]]
        # These need a process that has not loaded the package yet.
        run_mutants(at_import, results, arguments.limit)
        rest = [m for m in todo if m not in at_import]
        pytest.main(
            [*PYTEST, "tests", "skdiffsmooth"], plugins=[Mutants(rest, results, arguments.limit)]
        )
    report(read(results))
