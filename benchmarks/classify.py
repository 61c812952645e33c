"""Accuracy and log-loss of Bayes' rule over densities, beside scikit-learn's classifiers.

Data ship with scikit-learn. Five stratified folds, the same for all; columns are standardised (digits:
eight principal components, standardised) with the training rows. Nothing is tuned.
"""

import numpy as np
from _common import header, row
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion
from skdiffsmooth.compose import DensityClassifier, DensityStacking

TABLES = {
    "iris": (datasets.load_iris, []),
    "wine": (datasets.load_wine, []),
    "breast cancer": (datasets.load_breast_cancer, []),
    "digits, 8 PCs": (datasets.load_digits, [PCA(8, random_state=0)]),
}
GAUSSIAN = GaussianMixture(1, reg_covar=1e-3)
MODELS = {
    "smoothed": DensityClassifier(),
    "KDE": DensityClassifier(KDESampler()),
    "smoothed + Gaussian": DensityClassifier(
        DensityStacking([("smoothed", SmoothedScoreDiffusion()), ("gaussian", GAUSSIAN)])
    ),
    "GaussianNB": GaussianNB(),
    "QDA": QuadraticDiscriminantAnalysis(reg_param=0.01),  # 30 collinear columns need some
    "logistic": LogisticRegression(max_iter=1000),
    "5-NN": KNeighborsClassifier(),
}


def losses(model, X, y):
    """Return, for each row, whether the class is right and the log-loss."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    proba = cross_val_predict(model, X, y, cv=folds, method="predict_proba")
    mine = proba[np.arange(len(y)), y]
    # Neighbours and rounding give zeros: the loss of a row ends at -log(1e-15), 35 nats.
    return proba.argmax(axis=1) == y, -np.log(np.maximum(mine, 1e-15))


def run():
    """Print the table."""
    print("Classification: accuracy in percent / log-loss in nats a row, five folds\n")
    header("data", "N", "d", "classes", *MODELS)
    for name, (load, steps) in TABLES.items():
        X, y = load(return_X_y=True)
        cells = []
        for model in MODELS.values():
            right, loss = losses(make_pipeline(*steps, StandardScaler(), model), X, y)
            cells.append(f"{100 * right.mean():.1f} / {loss.mean():.2f}")
        row(name, len(X), steps[0].n_components if steps else X.shape[1], len(np.unique(y)), *cells)


if __name__ == "__main__":
    run()
