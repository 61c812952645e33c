"""scikit-learn's checks of every public estimator with its default parameters.

The tests run all checks on three of them, and on the others with parameters that make a fit fast:
these checks fit an estimator some hundred times. Pass names of classes to check only those.

SphericalScoreDiffusion refuses rows that are no unit vectors, and no tag of scikit-learn declares such
rows: a check that fits others is expected to fail, with that reason. No other check is.
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

_REASON = "the check fits rows that are no unit vectors of 3 to 6 columns"
EXPECTED = {
    "SphericalScoreDiffusion": dict.fromkeys(
        [
            "check_fit_score_takes_y",
            "check_estimators_overwrite_params",
            "check_dont_overwrite_parameters",
            "check_estimators_fit_returns_self",
            "check_readonly_memmap_input",
            "check_n_features_in_after_fitting",
            "check_positive_only_tag_during_fit",
            "check_estimators_dtypes",
            "check_sample_weights_pandas_series",
            "check_sample_weights_not_an_array",
            "check_sample_weights_list",
            "check_all_zero_sample_weights_error",
            "check_sample_weights_shape",
            "check_sample_weights_not_overwritten",
            "check_sample_weight_equivalence_on_dense_data",
            "check_dtype_object",
            "check_pipeline_consistency",
            "check_estimators_nan_inf",
            "check_estimators_pickle",
            "check_f_contiguous_array_estimator",
            "check_methods_sample_order_invariance",
            "check_methods_subset_invariance",
            "check_fit2d_1sample",
            "check_fit2d_1feature",
            "check_dict_unchanged",
            "check_fit_idempotent",
            "check_fit_check_is_fitted",
            "check_n_features_in",
            "check_fit2d_predict1d",
        ],
        _REASON,
    )
}


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
    header("estimator", "passed", "skipped", "expected to fail", "failed", "seconds")
    for cls in estimators():
        if names and cls.__name__ not in names:
            continue
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = check_estimator(
                cls(),
                expected_failed_checks=EXPECTED.get(cls.__name__),
                on_fail=None,
                on_skip=None,
            )
        spent = time.process_time() - began
        counts = [
            sum(r["status"] == status for r in results) for status in ("passed", "skipped", "xfail")
        ]
        row(cls.__name__, *counts, len(results) - sum(counts), f"{spent:.0f}")
        for result in results:
            if result["status"] == "failed":
                print(f"  {result['check_name']}: {result['exception']!s:.200}")


if __name__ == "__main__":
    run(sys.argv[1:])
