"""Methods of other environments for `mixed_samples.py`: ForestDiffusion, Treeffuser, sdmetrics.

    python benchmarks/_mixed_outside.py FOLDER...

Reads the tables of each folder and writes what its interpreter has the packages for: rows drawn by
ForestDiffusion and Treeffuser, draws of one column by Treeffuser, and the quality of all drawn tables by
sdmetrics. What is there already is kept, so that it can be stopped and started again.
It needs no other module of this package, so that it runs where only the compared methods are installed.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd


def forest_diffusion(train, is_category, n):
    """Return n rows drawn by ForestDiffusion, with fewer noise levels and copies than its defaults."""
    from ForestDiffusion import ForestDiffusionModel

    codes = {name: pd.factorize(train[name], sort=True) for name in train if is_category[name]}
    rows = train.assign(**{name: code for name, (code, _) in codes.items()}).astype(float)
    of_two = [k for k, name in enumerate(train) if name in codes and len(codes[name][1]) <= 2]
    more = [k for k, name in enumerate(train) if name in codes and len(codes[name][1]) > 2]
    integers = [
        k
        for k, name in enumerate(train)
        if name not in codes and (rows[name] == rows[name].round()).all()
    ]
    model = ForestDiffusionModel(
        rows.to_numpy(),
        n_t=20,
        duplicate_K=5,
        cat_indexes=more,
        bin_indexes=of_two,
        int_indexes=integers,
        diffusion_type="flow",
        n_jobs=1,
        seed=0,
    )
    drawn = pd.DataFrame(model.generate(batch_size=n), columns=train.columns)
    for name, (_, levels) in codes.items():
        drawn[name] = np.asarray(levels)[drawn[name].round().astype(int).clip(0, len(levels) - 1)]
    return drawn


def treeffuser_rows(train, is_category, n):
    """Return n rows with the categories of training rows and all numbers given them by Treeffuser."""
    from treeffuser import Treeffuser

    categories = [name for name in train if is_category[name]]
    numbers = [name for name in train if not is_category[name]]
    X = pd.get_dummies(train[categories].astype(str)).to_numpy(float)
    model = Treeffuser(n_jobs=1, seed=0).fit(X, train[numbers].to_numpy(float))
    rows = np.random.RandomState(0).randint(len(train), size=n)
    drawn = train.iloc[rows].reset_index(drop=True)
    values = model.sample(X[rows], n_samples=1, verbose=False).reshape(n, len(numbers))
    return drawn.assign(**{name: values[:, k] for k, name in enumerate(numbers)})


def treeffuser(columns, n_draws):
    """Return draws (n_draws, n) of a column given the others, with default parameters."""
    from treeffuser import Treeffuser

    model = Treeffuser(n_jobs=1, seed=0).fit(columns["train_X"], columns["train_y"])
    return model.sample(columns["test_X"], n_samples=n_draws, verbose=False).reshape(n_draws, -1)


def quality(test, drawn, is_category):
    """Return the overall score of sdmetrics' quality report, from 0 to 1."""
    from sdmetrics.reports.single_table import QualityReport

    columns = {
        name: {"sdtype": "categorical" if is_category[name] else "numerical"} for name in test
    }
    report = QualityReport()
    report.generate(test, drawn, {"columns": columns}, verbose=False)
    return float(report.get_score())


def has(package):
    """Return whether a package is installed, and print a line where it is not."""
    is_there = importlib.util.find_spec(package) is not None
    if not is_there:
        print(f"{package} is not installed in {sys.executable}: skipped", flush=True)
    return is_there


def main():
    """Write what is missing in each folder; kept results are not computed again."""
    folders = [Path(name) for name in sys.argv[1:]]
    packages = {name: has(name) for name in ("ForestDiffusion", "treeffuser", "sdmetrics")}
    for folder in folders:
        start = time.process_time()
        if (folder / "column.npz").exists():
            if packages["treeffuser"] and not (folder / "Treeffuser.npy").exists():
                draws = treeffuser(np.load(folder / "column.npz"), 50)
                np.save(folder / "Treeffuser.npy", draws)
                print(f"{folder.name}: Treeffuser {time.process_time() - start:.0f} s", flush=True)
            continue
        is_category = json.loads((folder / "is_category.json").read_text())
        train, test = (pd.read_csv(folder / f"{name}.csv") for name in ("train", "test"))
        for method, package, rows_of in (
            ("Treeffuser", "treeffuser", treeffuser_rows),
            ("ForestDiffusion", "ForestDiffusion", forest_diffusion),
        ):
            own, start = folder / f"drawn {method}.csv", time.process_time()
            if packages[package] and folder.name.endswith("-0") and not own.exists():
                rows_of(train, is_category, len(test)).to_csv(own, index=False)
                print(f"{folder.name}: {method} {time.process_time() - start:.0f} s", flush=True)
        if packages["sdmetrics"]:
            scores = {
                path.stem.removeprefix("drawn "): quality(test, pd.read_csv(path), is_category)
                for path in sorted(folder.glob("drawn *.csv"))
            }
            (folder / "quality.json").write_text(json.dumps(scores))


if __name__ == "__main__":
    main()
