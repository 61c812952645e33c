"""`implied_smoothing`: the smoothed or local score that is closest to a given score, by noise scale."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from .._estimators.local import LocalScoreDiffusion
from .._estimators.local_groups import resolve_groups
from .._estimators.smoothed import SmoothedScoreDiffusion
from .._utils.table import check_table
from .._utils.validation import (
    check_choice,
    check_integer,
    check_real_array,
    check_size,
    fixed_seed,
)
from ..metrics._checks import check_returned

# Number of parts of the rows in the jackknife: each part is left out once for standard errors.
_N_PARTS = 20
_HINT = "Pass 'sigma', 'size', or a mapping from a label to an estimator or a function of x and v."


@dataclass(frozen=True, eq=False)
class ImpliedSmoothing:
    """How far a score is from each member of a family, at each noise scale.

    Parameters
    ----------
    labels : ndarray of shape (n_members,)
        Names of the members: values of sigma, sizes of groups, or the keys of a mapping.
    noise_scales : ndarray of shape (n_scales,)
        Standard deviations of the noise, in units of X.
    distances : ndarray of shape (n_scales, n_members)
        Fisher divergence times the variance of the noise, per column: 1 is the distance between a score
        of zero and a score that removes all of the noise.
    standard_errors : ndarray of shape (n_scales, n_members)
        Standard errors of `distances` over rows with noise.
    closest : ndarray of shape (n_scales,)
        The label of the smallest distance. Labels that are numbers, except sizes, are interpolated: by
        the minimum of the parabola through the least distance and its neighbours.
    closest_errors : ndarray of shape (n_scales,)
        Standard errors of `closest` by a jackknife over noised rows; NaN where labels are not
        interpolated.
    overall : object
        The closest label by the mean of `distances` over the noise scales.
    overall_error : float
        Standard error of `overall`; NaN where labels are not interpolated.
    """

    labels: np.ndarray
    noise_scales: np.ndarray
    distances: np.ndarray
    standard_errors: np.ndarray
    closest: np.ndarray
    closest_errors: np.ndarray
    overall: Any
    overall_error: float


def implied_smoothing(
    score: Any,
    X: Any,
    family: str | Mapping[Any, Any] = "sigma",
    *,
    noise_scales: Any = None,
    image_shape: tuple[int, ...] | None = None,
    n_samples: int = 500,
    random_state: Any = None,
) -> ImpliedSmoothing:
    """Return which member of a family of scores a given score is closest to, at each noise scale.

    For a network trained on X the result says how much the network smooths, and on how many pixels each
    pixel depends. The distance of two scores is their mean squared difference over rows with noise.

    Parameters
    ----------
    score : callable or fitted estimator
        ``score(x, v)`` returns the score (n, n_features) at rows x (n, n_features) with noise of
        variance v, in nats per unit of X. A network that returns denoised rows D has the score (D - x)
        / v. An estimator needs a method `grad_log_density` or `denoise`.
    X : array-like of shape (n_rows, n_features)
        The training rows.
    family : {"sigma", "size"} or mapping, default="sigma"
        Scores to compare with. "sigma": the score of the rows, smoothed by a Gaussian kernel; sigma is
        0 or from 1/50 to 1.5 of the root mean square of the columns' standard deviations, in steps of a
        fifth. "size": the local score of patches (where `image_shape` is given) or of windows, of the
        sizes that `LocalScoreDiffusion` compares, the last of which has all columns. A mapping from
        labels to scores or to estimators, copies of which are fitted to X, compares any others, such as
        the Wiener filter; labels that are numbers must increase.
    noise_scales : array-like of shape (n_scales,), default=None
        Standard deviations of the noise, increasing, in units of X. None: eight scales from 0.1 to 2
        times the same root mean square. The noise range of estimators must contain them.
    image_shape : tuple of int, default=None
        See `LocalScoreDiffusion`; with ``family="size"`` only.
    n_samples : int, default=500
        Number of rows with noise at each noise scale, at least 20. Standard errors are proportional to
        1 / sqrt(n_samples).
    random_state : int, RandomState or None, default=None
        Seed of the noise, and of the estimators of "sigma" and "size"; None is a fixed seed.

    Raises
    ------
    TypeError
        If `score`, or a member of the family, is neither a function nor an estimator with a score.
    ValueError
        If a parameter is out of range, X is not a table of finite numbers, or a score is not finite or
        has another shape than its rows.

    See Also
    --------
    skdiffsmooth.metrics.fisher_divergence : The distance of two scores at given rows.

    Notes
    -----
    A score may be close to no member of the family: compare the smallest of `distances` with the
    distance from sigma = 0, and with its `standard_errors`. With ``family="sigma"`` each score is
    averaged over 256 nodes.

    Costs one evaluation of the score, and of each member, at ``n_samples`` rows for each noise scale.

    References
    ----------
    T. Farghly, P. Potaptchik, S. Howard, G. Deligiannidis, J. Pidstrigach, Diffusion Models and the
    Manifold Hypothesis: Log-Domain Smoothing is Geometry Adaptive, NeurIPS 2025, arXiv:2510.02305.

    Examples
    --------
    The members are scores of Gaussians, labelled by their variances; the given score is that of
    variance 1.1.

    >>> import numpy as np
    >>> from skdiffsmooth.model_selection import implied_smoothing
    >>> X = np.random.RandomState(0).normal(size=(50, 3))
    >>> family = {u: lambda x, v, u=u: -x / (u + v) for u in (0.8, 1.0, 1.2, 1.4)}
    >>> result = implied_smoothing(lambda x, v: -x / (1.1 + v), X, family)
    >>> round(result.overall, 1)
    1.1
    """
    rows = check_table(X, "implied_smoothing")
    check_size("X", rows)
    seed = fixed_seed(random_state)
    n_samples = check_integer("n_samples", n_samples, minimum=_N_PARTS)
    std = math.sqrt(rows.var(axis=0).mean())
    if not std > 0 and (noise_scales is None or isinstance(family, str)):
        raise ValueError(
            f"X has 1 distinct row among {len(rows)}, whose score is the same for every sigma and size; "
            "expected several. Pass the rows of which the score was learned, or a mapping as family "
            "and noise_scales."
        )
    scales = _checked_scales(noise_scales, std)
    members = _members(family, rows.shape[1], std, scales, image_shape, seed)
    fields = [_field(f"family[{label!r}]", member, rows) for label, member in members.items()]
    given = _field("score", score, None)

    rng = np.random.default_rng(seed)
    taken = rows[np.arange(n_samples) % len(rows)]
    terms = np.empty((len(scales), len(members), n_samples))
    for level, scale in enumerate(scales):
        x, v = taken + scale * rng.standard_normal(taken.shape), float(scale) ** 2
        target = given(x, v)
        for j, field in enumerate(fields):
            terms[level, j] = v * np.mean((field(x, v) - target) ** 2, axis=1)

    # Sizes of patches are numbers, but sizes between them do not exist, so they are not interpolated.
    is_line = _is_numeric(members) and family != "size"
    labels = np.array(list(members), dtype=float if is_line else object)
    # Closest labels at each noise scale, for all rows and for the rows without each part; then overall.
    part = np.arange(n_samples) * _N_PARTS // n_samples
    without = np.stack([terms[..., part != k].mean(axis=2) for k in range(_N_PARTS)])
    distances = terms.mean(axis=2)
    closest, errors = _closest(labels, distances, without)
    overall, overall_error = _closest(labels, distances.mean(0)[None], without.mean(1)[:, None])
    return ImpliedSmoothing(
        labels,
        scales,
        distances,
        terms.std(axis=2, ddof=1) / math.sqrt(n_samples),
        closest,
        errors,
        overall.tolist()[0],
        float(overall_error[0]),
    )


def _checked_scales(noise_scales: Any, std: float) -> np.ndarray:
    """Return the noise scales (n_scales,) after checking them."""
    if noise_scales is None:
        return np.geomspace(0.1 * std, 2 * std, 8)
    scales = np.atleast_1d(check_real_array("noise_scales", noise_scales))
    increases = scales.ndim == 1 and len(scales) > 0 and bool(np.all(np.diff(scales) > 0))
    if not increases or not np.all(np.isfinite(scales)) or scales[0] <= 0:
        raise ValueError(
            f"noise_scales={noise_scales!r} is not an increasing sequence of finite numbers > 0. Pass "
            "standard deviations of noise in units of X, or None."
        )
    return scales


def _members(
    family: Any, d: int, std: float, scales: np.ndarray, image_shape: Any, seed: int
) -> dict[Any, Any]:
    """Return the members of a family as a mapping from their labels."""
    if image_shape is not None and family != "size":
        raise ValueError(
            f"image_shape={image_shape!r} has an effect with family='size' only. Pass that family, or "
            "leave out image_shape."
        )
    if isinstance(family, Mapping):
        if not family:
            raise ValueError(f"family={family!r} is empty. {_HINT}")
        if _is_numeric(family) and not np.all(np.diff(list(family)) > 0):
            raise ValueError(
                f"family has the labels {list(family)}; expected increasing numbers. Sort it, or use "
                "text as labels, which are not interpolated."
            )
        return dict(family)
    if not isinstance(family, str):
        raise TypeError(f"family={family!r} has type {type(family).__name__}. {_HINT}")
    check_choice("family", family, ("sigma", "size"), hint=_HINT)
    settings = {"bandwidth": 0.99 * scales[0], "terminal_scale": 1.01 * scales[-1]}
    settings["random_state"] = seed
    if family == "sigma":
        sigmas = [0.0, *(std * np.geomspace(0.02, 1.5, 24))]
        return {s: SmoothedScoreDiffusion(sigma=s, n_nodes=256, **settings) for s in sigmas}
    groups = "windows" if image_shape is None else "patches"
    settings |= {"groups": groups, "image_shape": image_shape, "width": 0, "background": 0}
    sizes = resolve_groups(groups, image_shape, "auto", d, np.eye(d)).sizes
    return {size: LocalScoreDiffusion(size=size, **settings) for size in sizes}


def _is_numeric(labels: Any) -> bool:
    return all(isinstance(label, int | float | np.number) for label in labels)


def _field(name: str, score: Any, rows: np.ndarray | None) -> Callable[..., np.ndarray]:
    """Return a score as a function of rows x (n, d) and v; an estimator is fitted to `rows` (N, d)."""
    if isinstance(score, type):
        raise TypeError(
            f"{name} is the class {score.__name__}; expected an instance. Pass {score.__name__}()."
        )
    if rows is not None and hasattr(score, "fit"):
        score = clone(score).fit(rows)
    elif hasattr(score, "feature_names_in_"):
        # Rows are passed as arrays, which have no column names.
        score = copy.copy(score)
        vars(score).pop("feature_names_in_", None)
    if hasattr(score, "grad_log_density"):
        compute: Callable[[np.ndarray, float], Any] = score.grad_log_density
    elif hasattr(score, "denoise"):
        compute = lambda x, v: (score.denoise(x, v) - x) / v  # noqa: E731
    elif callable(score):
        compute = score
    else:
        raise TypeError(
            f"{name}={score!r} has no score; expected a function of x and v, or an estimator with "
            "grad_log_density or denoise."
        )

    def checked(x: np.ndarray, v: float) -> np.ndarray:
        return check_returned(name, compute(x.copy(), v), x.shape, f" at noise variance {v:g}")

    return checked


def _closest(
    labels: np.ndarray, distances: np.ndarray, without: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the closest labels (L,) by distances (L, J), and their jackknife standard errors (L,).

    `without` (n_parts, L, J) has the distances computed without each part of the rows.
    """
    if labels.dtype == object:
        return labels[distances.argmin(axis=1)], np.full(len(distances), np.nan)
    values = np.array([_least(labels, row) for row in distances])
    others = np.array([[_least(labels, row) for row in part] for part in without])
    return values, np.sqrt((len(others) - 1) * others.var(axis=0))


def _least(labels: np.ndarray, distances: np.ndarray) -> float:
    """Return the (numeric) label of least distance, interpolated by a parabola through three labels."""
    j = int(distances.argmin())
    near = labels[max(j - 1, 0) : j + 2]
    if len(near) < 3 or not np.all(np.isfinite(near)) or distances[j] == 0:
        return float(labels[j])
    a, b, _ = np.polyfit(near - labels[j], distances[j - 1 : j + 2], 2)
    return float(labels[j] - b / (2 * a)) if a > 0 else float(labels[j])
