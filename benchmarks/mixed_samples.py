"""What is drawn from mixed tables: samples, imputed cells, one column given others, over-sampling.

    python benchmarks/mixed_samples.py                            # all sections, on the terminal
    python benchmarks/mixed_samples.py samples --outside PYTHON   # methods of another environment too
    python benchmarks/mixed_samples.py --outside PYTHON --write   # into docs/evidence/mixed.md

Frames and splits are those of `mixed.py`; the choices below were made before anything was run. PYTHON is
an interpreter that has ForestDiffusion, treeffuser and sdmetrics, or some of them (`_mixed_outside.py`);
without it these columns are left out. Tables and draws are kept in ``benchmarks/.cache/mixed``.
"""

import argparse
import json
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE, SMOTENC, RandomOverSampler
from mixed import FRAMES, N_SPLITS, kinds_of, load, splits, table, write_section
from scipy.special import ndtr, ndtri
from sklearn.ensemble import RandomForestClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.linear_model import BayesianRidge
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth.tables import DensityOverSampler, TableDensity

CACHE = Path(__file__).parent / ".cache" / "mixed"
# All have the first split, these have all splits.
SAMPLED = ("penguins", "titanic", "pima", "credit", "lalonde")
IMPUTED = ("penguins", "credit", "lalonde", "titanic", "pima")
# One column of numbers is drawn given all others.
COLUMNS = {
    "penguins": "body_mass_g",
    "credit": "Balance",
    "lalonde": "re78",
    "saratoga": "price",
    "wages": "wage",
}
# A class, whose training rows are thinned to a tenth of all where there are more.
CLASSES = {
    "credit": ("Student", "Yes"),
    "credit_data": ("Status", "bad"),
    "pima": ("type", "Yes"),
    "saratoga": ("fuel", "oil"),
    "titanic": ("survived", "yes"),
}
SHARE_HIDDEN, N_DRAWS, MOST_IMPUTED_ROWS = 0.2, 10, 50


def is_category(frame):
    """Return which columns have text, or two values."""
    return {
        name: not pd.api.types.is_numeric_dtype(frame[name]) or frame[name].nunique() <= 2
        for name in frame
    }


class Numbers:
    """Columns of numbers, and an indicator for each level of a category."""

    def __init__(self, frame):
        categories = is_category(frame)
        self.levels = {name: sorted(frame[name].unique()) for name in frame if categories[name]}
        self.names, self.dtypes = list(frame), frame.dtypes

    def encode(self, frame):
        """Return numbers (n, k); a missing category is NaN in all of its indicators."""
        parts = []
        for name in self.names:
            if name not in self.levels:
                parts.append(frame[name].to_numpy(float, na_value=np.nan)[:, None])
                continue
            values = frame[name].to_numpy(object)[:, None]
            indicators = (values == np.array(self.levels[name], dtype=object)).astype(float)
            indicators[frame[name].isna().to_numpy()] = np.nan
            parts.append(indicators)
        return np.concatenate(parts, axis=1)

    def decode(self, rows):
        """Return a frame; a category is its highest indicator."""
        columns, k = {}, 0
        for name in self.names:
            width = len(self.levels.get(name, [None]))
            part = rows[:, k : k + width]
            k += width
            if name in self.levels:
                columns[name] = np.array(self.levels[name], dtype=object)[part.argmax(axis=1)]
            else:
                columns[name] = part[:, 0]
        return pd.DataFrame(columns)


def rounded(drawn, train):
    """Return drawn rows with as many decimals as the training rows have, which favours others."""
    drawn = drawn[list(train)].copy()
    for name, of_two in is_category(train).items():
        if of_two:
            continue
        values = train[name].to_numpy(float)
        for decimals in range(6):
            if np.allclose(values, values.round(decimals), rtol=0, atol=1e-9):
                drawn[name] = drawn[name].to_numpy(float).round(decimals)
                break
    return drawn


# ----------------------------------------------------------------------------------------- samples


def smotenc_rows(train, n, seed):
    """Return n rows that SMOTENC adds to a class of all training rows."""
    X = pd.concat([train] + [train.sample(len(train) + n, replace=True, random_state=seed)])
    y = np.repeat([1, 0], [len(train), len(train) + n])
    kinds = is_category(train)
    sampler = SMOTENC([name for name in train if kinds[name]], random_state=seed)
    more, _ = sampler.fit_resample(X.reset_index(drop=True), y)
    return more.iloc[len(X) :].reset_index(drop=True)


def copula_rows(train, n, seed):
    """Return n rows of a Gaussian copula with the marginals of the training rows.

    Values are ordered, categories by name, with ties in random order; correlations are those of the
    normal scores.
    """
    rng = np.random.RandomState(seed)
    ordered = {name: np.sort(train[name].to_numpy()) for name in train}
    scores = []
    for name in train:
        order = np.lexsort([rng.uniform(size=len(train)), train[name].to_numpy()])
        rank = np.empty(len(train))
        rank[order] = np.arange(len(train))
        scores.append(ndtri((rank + 0.5) / len(train)))
    correlation = np.corrcoef(scores)
    u = ndtr(rng.multivariate_normal(np.zeros(len(scores)), correlation, size=n))
    index = np.minimum((u * len(train)).astype(int), len(train) - 1)
    return pd.DataFrame({name: ordered[name][index[:, k]] for k, name in enumerate(train)})


def auc(test, drawn, numbers, seed):
    """Return the area under the curve of a random forest that tells drawn rows from held-out ones."""
    X = np.concatenate([numbers.encode(test), numbers.encode(drawn)])
    is_drawn = np.repeat([0, 1], [len(test), len(drawn)])
    forest = RandomForestClassifier(50, min_samples_leaf=3, random_state=seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    probability = cross_val_predict(forest, X, is_drawn, cv=folds, method="predict_proba")[:, 1]
    return roc_auc_score(is_drawn, probability)


def draw_samples():
    """Write tables and what the methods of this environment draw; return the folders."""
    folders = []
    for name in FRAMES:
        frame = load(name)
        for seed, (train, test) in enumerate(splits(frame)):
            if seed and name not in SAMPLED:
                break
            folder = CACHE / f"{name}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            folders.append(folder)
            train.to_csv(folder / "train.csv", index=False)
            test.to_csv(folder / "test.csv", index=False)
            kinds = {key: bool(value) for key, value in is_category(frame).items()}
            (folder / "is_category.json").write_text(json.dumps(kinds))
            n = len(test)
            if (folder / "drawn training rows.csv").exists():
                continue
            model = TableDensity(kinds_of(name, frame)).fit(train)
            drawn = {
                "TableDensity": model.sample(n, random_state=seed),
                "SMOTENC": smotenc_rows(train, n, seed),
                "Gaussian copula": copula_rows(train, n, seed),
                "training rows": train.sample(n, random_state=seed, replace=n > len(train)),
            }
            for method, rows in drawn.items():
                rounded(rows, train).to_csv(folder / f"drawn {method}.csv", index=False)
            print(folder.name, flush=True)
    return folders


def run_outside(python, folders):
    """Run the methods of another environment, if there is one."""
    if python is None:
        print("no --outside: ForestDiffusion, Treeffuser and sdmetrics are skipped", flush=True)
        return
    script = Path(__file__).parent / "_mixed_outside.py"
    subprocess.run([python, script, *folders], check=True)


def samples(python):
    """Return the section on samples."""
    run_outside(python, draw_samples())
    methods = ["TableDensity", "SMOTENC", "Gaussian copula", "ForestDiffusion", "Treeffuser"]
    methods.append("training rows")
    parts = {"AUC": [], "quality": []}
    for name in FRAMES:
        numbers = Numbers(load(name))
        values = {"AUC": {m: [] for m in methods}, "quality": {m: [] for m in methods}}
        for seed in range(N_SPLITS if name in SAMPLED else 1):
            folder = CACHE / f"{name}-{seed}"
            # All tables come from files, so that none differs in types.
            dtypes = dict.fromkeys(numbers.levels, str)
            as_read = Numbers(
                pd.concat([_read(folder / f"{t}.csv", dtypes) for t in ("train", "test")])
            )
            test = rounded(_read(folder / "test.csv", dtypes), _read(folder / "train.csv", dtypes))
            path = folder / "quality.json"
            of_outside = json.loads(path.read_text()) if path.exists() else {}
            for method in methods:
                drawn = folder / f"drawn {method}.csv"
                if not drawn.exists():
                    continue
                rows = rounded(_read(drawn, dtypes), _read(folder / "train.csv", dtypes))
                values["AUC"][method].append(auc(test, rows, as_read, seed))
                if method in of_outside:
                    values["quality"][method].append(of_outside[method])
        for key, lists in values.items():
            parts[key].append([name, *(_mean_and_error(lists[method]) for method in methods)])
            print(key, *parts[key][-1], sep=" | ", flush=True)
    text = _SAMPLES + table(["AUC", *methods], parts["AUC"])
    return text + "\n\n" + table(["sdmetrics quality", *methods], parts["quality"])


def _read(path, dtypes):
    frame = pd.read_csv(path, dtype=dtypes, keep_default_na=False)
    # Booleans as text have one spelling.
    return frame.assign(**{name: frame[name].str.strip().str.removesuffix(".0") for name in dtypes})


def _mean_and_error(values):
    """Return a mean over splits with the standard error of it, as text."""
    if not values:
        return "not run"
    if len(values) == 1:
        return f"{values[0]:.3f} (one split)"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


_SAMPLES = f"""\
As many rows as are held out are drawn, and a random forest is asked, by five folds, which are which:
the area under its curve is 0.5 if it cannot tell, 1 if it always can. Quality is the overall score of
sdmetrics, 1 at best: half of it compares columns one at a time, half pairs. Training rows themselves
are the goal of both. Means over {N_SPLITS} splits with their standard errors, or the first split, as the
table says. ForestDiffusion has 20 noise levels and 5 copies of each row (its defaults, 50 and 100,
take 50 times as long). Treeffuser, with its defaults, models numbers given categories, so that its rows
have the categories of rows drawn from those of training. SMOTENC gets one class that holds all rows; its
rows lie between two training rows. The copula has the values of the training rows as marginals. Drawn
numbers are rounded as the training rows are.

"""


# ---------------------------------------------------------------------------------------- imputation


def errors_of(draws, truth, hidden, scale):
    """Return lists of CRPS of numbers, squared errors of means of numbers, and CRPS of categories.

    Numbers are in standard deviations of the training rows; the distance of two different categories is
    one, so that their CRPS is half of the Brier score.
    """
    crps, squares, of_levels = [], [], []
    for name in truth:
        rows = hidden[name].to_numpy()
        x = np.array([each[name].to_numpy()[rows] for each in draws])
        y, m = truth[name].to_numpy()[rows], len(draws)
        if name in scale:
            x, y = x.astype(float) / scale[name], y.astype(float) / scale[name]
            pairs = np.abs(x[:, None] - x[None]).sum(axis=(0, 1))
            squares.append((x.mean(axis=0) - y) ** 2)
            crps.append(np.abs(x - y).mean(axis=0) - pairs / (2 * m * max(m - 1, 1)))
        else:
            pairs = (x[:, None] != x[None]).sum(axis=(0, 1))
            of_levels.append((x != y).mean(axis=0) - pairs / (2 * m * max(m - 1, 1)))
    return [np.concatenate(each) for each in (crps, squares, of_levels)]


def imputed(train, test, kinds, numbers, seed):
    """Return tables without missing cells by each method: draws, or one table of point values."""
    model = TableDensity(kinds).fit(train)
    copies = pd.concat([test] * N_DRAWS, ignore_index=True)
    ours = model.impute(copies, random_state=seed)
    scaler = StandardScaler().fit(numbers.encode(train))

    def by(imputer, n):
        imputer.fit(scaler.transform(numbers.encode(train)))
        rows = scaler.transform(numbers.encode(test))
        return [numbers.decode(scaler.inverse_transform(imputer.transform(rows))) for _ in range(n)]

    return {
        "TableDensity": [ours.iloc[k * len(test) : (k + 1) * len(test)] for k in range(N_DRAWS)],
        "KNNImputer": by(KNNImputer(), 1),
        "IterativeImputer, draws": by(
            IterativeImputer(BayesianRidge(), sample_posterior=True, random_state=seed), N_DRAWS
        ),
        "IterativeImputer": by(IterativeImputer(BayesianRidge(), random_state=seed), 1),
    }


def imputation(python):
    """Return the section on missing cells."""
    lines = []
    for name in IMPUTED:
        frame = load(name)
        kinds, numbers = kinds_of(name, frame), Numbers(frame)
        errors = {}
        for seed, (train, test) in enumerate(splits(frame)):
            scale = {key: train[key].std() for key in train if key not in numbers.levels}
            known = test.iloc[:MOST_IMPUTED_ROWS].reset_index(drop=True)
            rng = np.random.RandomState(seed)
            hidden = pd.DataFrame(
                rng.uniform(size=known.shape) < SHARE_HIDDEN, columns=known.columns
            )
            tables = imputed(train, known.mask(hidden), kinds, numbers, seed)
            for method, draws in tables.items():
                errors.setdefault(method, []).append(errors_of(draws, known, hidden, scale))
        for k, (what, root) in enumerate(
            (("CRPS", False), ("RMSE", True), ("CRPS, levels", False))
        ):
            lines.append(
                [name, what, *_compared({m: [s[k] for s in e] for m, e in errors.items()}, root)]
            )
            print(*lines[-1], sep=" | ", flush=True)
    head = ["table", "error", "TableDensity", "KNNImputer", "IterativeImputer, draws"]
    head += ["IterativeImputer", "ours less best other"]
    return _IMPUTATION + table(head, lines)


def _compared(errors, root):
    """Return means of each method, over splits of lists of errors, and ours less the best other."""
    means = {method: np.mean([s.mean() for s in lists]) for method, lists in errors.items()}
    ours, *others = errors
    best = min(others, key=means.get)
    differences = [a - b for a, b in zip(errors[ours], errors[best], strict=True)]
    difference = np.mean([d.mean() for d in differences])
    error = np.mean([d.std(ddof=1) / np.sqrt(len(d)) for d in differences])
    if root:
        means = {method: np.sqrt(value) for method, value in means.items()}
        # The root's slope.
        slope = 1 / (means[ours] + means[best])
        difference, error = difference * slope, error * slope
    lowest = min(means, key=means.get)
    shown = [f"**{v:.3f}**" if m == lowest else f"{v:.3f}" for m, v in means.items()]
    return [*shown, f"{difference:+.3f} ± {error:.3f}"]


_IMPUTATION = f"""\
A fifth of the cells of at most {MOST_IMPUTED_ROWS} held-out rows is hidden; models are fitted to
complete training rows. CRPS of {N_DRAWS} draws, or of one point, in standard deviations of the
training column, over all numbers; RMSE of the means of the draws; CRPS of levels, with distance one,
which is half of the Brier score. Lower is better. Means over {N_SPLITS} splits; differences with one
standard error of a split. The imputers of scikit-learn get scaled numbers and indicators. Rows with
all cells hidden are drawn, too. IterativeImputer keeps the most frequent level: indicators that sum to
one determine one another, so its line of levels says little about it.

"""


# ---------------------------------------------------------------------------- one column given others


def column(python):
    """Return the section on one column given all others."""
    found, folders = {}, []
    for name, target in COLUMNS.items():
        frame = load(name)
        kinds = kinds_of(name, frame)
        numbers = Numbers(frame.drop(columns=target))
        for seed, (train, test) in enumerate(splits(frame)):
            folder = CACHE / f"column {name}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            folders.append(folder)
            X = {key: numbers.encode(part) for key, part in (("train_X", train), ("test_X", test))}
            y = train[target].to_numpy(float)[:, None]
            np.savez(folder / "column.npz", **X, train_y=y)
            model = TableDensity(kinds).fit(train)
            copies = pd.concat([test] * 50, ignore_index=True)
            copies[target] = np.nan
            drawn = model.impute(copies, random_state=seed)[target].to_numpy(float)
            linear = make_pipeline(StandardScaler(), BayesianRidge()).fit(X["train_X"], y[:, 0])
            mean, std = linear.predict(X["test_X"], return_std=True)
            normal = mean + std * np.random.RandomState(seed).normal(size=(50, len(test)))
            found[name, seed] = {
                "TableDensity": drawn.reshape(50, -1),
                "Bayesian regression": normal,
                "frequencies": np.random.RandomState(seed).choice(y[:, 0], size=(50, len(test))),
            }
        print(name, flush=True)
    run_outside(python, folders)
    lines = []
    for name, target in COLUMNS.items():
        errors = {}
        for seed, (train, test) in enumerate(splits(load(name))):
            draws = found[name, seed]
            path = CACHE / f"column {name}-{seed}" / "Treeffuser.npy"
            if path.exists():
                draws["Treeffuser"] = np.load(path)
            scale, y = train[target].std(), test[target].to_numpy(float)
            for method, x in draws.items():
                pairs = np.abs(x[:, None] - x[None]).sum(axis=(0, 1)) / (2 * 50 * 49)
                crps = (np.abs(x - y).mean(axis=0) - pairs) / scale
                errors.setdefault(method, []).append(crps)
        lines.append([name, target, *_compared(errors, root=False)])
        print(*lines[-1], sep=" | ", flush=True)
    head = ["table", "column", *errors, "ours less best other"]
    return _COLUMN + table(head, lines)


_COLUMN = f"""\
Treeffuser draws numbers given other columns that are complete, so it is compared there: CRPS of 50
draws of one column given all others, in standard deviations of the training column, of held-out rows.
Means over {N_SPLITS} splits; differences with one standard error of a split. `TableDensity` is the
same model of the whole row as above. Treeffuser has its default parameters; *frequencies* draws
training values without looking at the row.

"""


# -------------------------------------------------------------------------------------- over-sampling


_SAMPLERS = ("DensityOverSampler", "none", "RandomOverSampler", "SMOTE", "SMOTENC")


def oversampling(python):
    """Return the section on over-sampling."""
    lines = []
    for name, (target, rare) in CLASSES.items():
        frame = load(name)
        values = {}
        for seed, (train, test) in enumerate(splits(frame)):
            rng = np.random.RandomState(seed)
            is_rare = (train[target] == rare).to_numpy()
            n_kept = min(is_rare.sum(), (~is_rare).sum() // 9)
            kept = np.flatnonzero(is_rare)[rng.permutation(is_rare.sum())[:n_kept]]
            thinned = train.iloc[np.sort(np.append(np.flatnonzero(~is_rare), kept))]
            X, y = thinned.drop(columns=target), (thinned[target] == rare).to_numpy().astype(int)
            numbers = Numbers(frame.drop(columns=target))
            categories = is_category(frame)
            nominal = [key for key in X if categories[key]]
            kinds = {k: v for k, v in kinds_of(name, frame).items() if k != target}
            ours = DensityOverSampler(TableDensity(kinds), random_state=seed)
            others = [each(random_state=seed) for each in (RandomOverSampler, SMOTE)]
            samplers = dict(zip(_SAMPLERS, [ours, None, *others], strict=False))
            if nominal:
                samplers["SMOTENC"] = SMOTENC(nominal, random_state=seed)
            for method, sampler in samplers.items():
                rows, labels = numbers.encode(X), y
                if method == "SMOTE":
                    rows, labels = sampler.fit_resample(rows, y)
                elif sampler is not None:
                    more, labels = sampler.fit_resample(X.reset_index(drop=True), y)
                    rows = numbers.encode(more)
                scores = []
                for repeat in range(3):
                    forest = RandomForestClassifier(50, min_samples_leaf=3, random_state=repeat)
                    forest.fit(rows, labels)
                    probability = forest.predict_proba(numbers.encode(test))[:, 1]
                    scores.append(average_precision_score(test[target] == rare, probability))
                values.setdefault(method, []).append(np.mean(scores))
        means = {method: np.mean(each) for method, each in values.items()}
        highest = max(means, key=means.get)
        shown = [f"**{v:.3f}**" if m == highest else f"{v:.3f}" for m, v in means.items()]
        # SMOTENC needs a category.
        shown += ["not run"] * (len(_SAMPLERS) - len(shown))
        best = max((m for m in means if m != "DensityOverSampler"), key=means.get)
        difference = np.subtract(values["DensityOverSampler"], values[best])
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        lines.append([f"{name}, {rare}", *shown, f"{difference.mean():+.3f} ± {error:.3f}"])
        print(*lines[-1], sep=" | ", flush=True)
    return _OVERSAMPLING + table(["table, class", *_SAMPLERS, "ours less best other"], lines)


_OVERSAMPLING = f"""\
Average precision of a random forest on held-out rows; the class is thinned to a tenth of the training
rows where it has more, and then sampled up to the size of the other. Higher is better; means over
{N_SPLITS} splits and three forests, differences with the standard error over the splits.

"""

SECTIONS = {
    "samples": ("Samples", samples),
    "imputation": ("Missing cells", imputation),
    "column": ("One column given the others", column),
    "oversampling": ("Over-sampling", oversampling),
}


def main():
    """Run the sections, and write them where this is requested."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], help="default: all")
    parser.add_argument("--outside", help="interpreter that has the packages of _mixed_outside.py")
    parser.add_argument("--write", action="store_true", help="write the sections into the page")
    options = parser.parse_args()
    for name in options.sections or SECTIONS:
        title, section = SECTIONS[name]
        text = section(options.outside)
        if options.write:
            write_section(title, text)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
