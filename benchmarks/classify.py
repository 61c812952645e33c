"""Accuracy and log-loss of Bayes' rule over densities, beside scikit-learn's classifiers.

Data ship with scikit-learn. Stratified folds, the same for all; columns are standardised (digits:
eight principal components, standardised) with the training rows. Nothing is tuned. A second table
has the log-density of held-out rows under the density of their own class.
"""

import numpy as np
from _common import header, row
from sklearn import datasets
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityClassifier, DensityStacking

# Each fit of the smoothed score is a search, and a stack takes six a class and fold: hence no more
# folds, and stacks on the small tables only.
N_FOLDS = 3
STACKED = ("iris", "wine")
TABLES = {
    "iris": (datasets.load_iris, []),
    "wine": (datasets.load_wine, []),
    "breast cancer": (datasets.load_breast_cancer, []),
    "digits, 8 PCs": (datasets.load_digits, [PCA(8, random_state=0)]),
}
GAUSSIAN = GaussianMixture(1, reg_covar=1e-3)
STACK = "smoothed + Gaussian"
MODELS = {
    "smoothed": DensityClassifier(),
    "smoothed, Euclidean": DensityClassifier(SmoothedScoreDiffusion(metric="euclidean")),
    "KDE": DensityClassifier(KDESampler()),
    STACK: DensityClassifier(
        DensityStacking([("smoothed", SmoothedScoreDiffusion()), ("gaussian", GAUSSIAN)])
    ),
    "GaussianNB": GaussianNB(),
    "QDA": QuadraticDiscriminantAnalysis(reg_param=0.01),  # 30 collinear columns need some
    "logistic": LogisticRegression(max_iter=1000),
    "5-NN": KNeighborsClassifier(),
}


def held_out(model, X, y):
    """Return whether the class of each held-out row is right, its log-loss, its log-density.

    The log-density is that of the row's own class, NaN where the classifier has none.
    """
    right, loss, density = np.full((3, len(y)), np.nan)
    for train, test in StratifiedKFold(N_FOLDS, shuffle=True, random_state=0).split(X, y):
        fitted = clone(model).fit(X[train], y[train])
        proba = fitted.predict_proba(X[test])
        mine = proba[np.arange(len(test)), y[test]]
        right[test] = proba.argmax(axis=1) == y[test]
        # Neighbours and rounding give zeros: the loss of a row ends at -log(1e-15), 35 nats.
        loss[test] = -np.log(np.maximum(mine, 1e-15))
        if isinstance(fitted[-1], DensityClassifier):
            Z = fitted[:-1].transform(X[test])
            for code, own in enumerate(fitted[-1].estimators_):
                mine = y[test] == code
                density[test[mine]] = own.score_samples(Z[mine])
    return right, loss, density


def paired(gain):
    """Return a mean of paired differences with its standard error over rows."""
    return f"{gain.mean():+.3f} +- {gain.std(ddof=1) / np.sqrt(len(gain)):.3f}"


def run():
    """Print the tables."""
    print(f"Classification: accuracy in percent / log-loss in nats a row, {N_FOLDS} folds\n")
    header("data", "N", "d", "classes", *MODELS)
    found = {}
    for name, (load, steps) in TABLES.items():
        X, y = load(return_X_y=True)
        found[name] = {
            kind: held_out(make_pipeline(*steps, StandardScaler(), model), X, y)
            for kind, model in MODELS.items()
            if kind != STACK or name in STACKED
        }
        cells = [
            "{:.1f} / {:.2f}".format(*np.mean(found[name][kind][:2], axis=1) * [100, 1])
            if kind in found[name]
            else ""
            for kind in MODELS
        ]
        row(name, len(X), steps[0].n_components if steps else X.shape[1], len(np.unique(y)), *cells)

    print(
        "\nHeld-out rows under the density of their own class, nats a row; what the stack gains on its "
        "smoothed member in log-density, and saves in log-loss, with paired standard errors over rows\n"
    )
    names = ("smoothed", "smoothed, Euclidean", "KDE", STACK)
    header("data", *names, "gain, density", "gain, log-loss")
    for name in STACKED:
        smoothed, stack = found[name]["smoothed"], found[name][STACK]
        row(
            name,
            *(f"{found[name][kind][2].mean():.2f}" for kind in names),
            paired(stack[2] - smoothed[2]),
            paired(smoothed[1] - stack[1]),
        )


if __name__ == "__main__":
    run()
