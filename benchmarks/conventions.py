"""scikit-learn's checks of every public estimator with its default parameters, and no exceptions.

The tests run all checks on three of them, and on the others with parameters that make a fit fast:
these checks fit an estimator some hundred times. Pass names of classes to check only those.

Two classes cannot take the rows that scikit-learn makes: SphericalScoreDiffusion refuses what are no
unit vectors (30 checks), and LocalPolynomialManifold fewer rows than a polynomial has coefficients (6).
"""

import inspect
import sys
import time
import warnings

from _common import header, row
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import check_estimator

import skdiffsmooth
from skdiffsmooth import compose, manifolds, model_selection, tables


def estimators():
    """Return the public classes that are fitted, in the order of their modules."""
    public = [
        getattr(module, name)
        for module in (skdiffsmooth, compose, model_selection, manifolds, tables)
        for name in module.__all__
    ]
    return [
        cls
        for cls in public
        if inspect.isclass(cls) and issubclass(cls, BaseEstimator) and hasattr(cls, "fit")
    ]


def run(names=()):
    """Print how many checks of each estimator passed, and their time on one core."""
    header("estimator", "passed", "skipped", "failed", "seconds")
    for cls in estimators():
        if names and cls.__name__ not in names:
            continue
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = check_estimator(cls(), on_fail=None, on_skip=None)
        spent = time.process_time() - began
        counts = [sum(r["status"] == status for r in results) for status in ("passed", "skipped")]
        row(cls.__name__, *counts, len(results) - sum(counts), f"{spent:.0f}")
        for result in results:
            if result["status"] == "failed":
                print(f"  {result['check_name']}: {result['exception']!s:.200}")


if __name__ == "__main__":
    run(sys.argv[1:])
