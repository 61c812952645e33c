"""Tests of local scores: laws that tie them to other densities, slow twins, groups and bad input.

Slow twins: automatic differentiation of the score, kernel density estimates, one Gaussian, sums over a
grid. Tolerances of laws of the flow are those of its steps, which converge (see the KDE's test).
"""

import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import kstest, multivariate_normal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.preprocessing import FunctionTransformer

from skdiffsmooth import KDESampler, LocalScoreDiffusion
from skdiffsmooth._diffusion.settings import parse_resources
from skdiffsmooth._engine.local import ColumnGroups, LocalPosterior, _merged
from skdiffsmooth._estimators.local_choice import covariances_by_fold
from skdiffsmooth._estimators.local_groups import ShiftedImages, resolve_groups
from skdiffsmooth.compose import TransformedDensity

RESOURCES = parse_resources({"device": "cpu", "memory_limit": 64.0}, "float64")
CHEAP = {"n_levels": 6, "n_steps": 12}


def table(n=40, d=4, seed=0):
    rng = np.random.RandomState(seed)
    return rng.gamma(2.0, size=(n, d)) @ (np.eye(d) + 0.4 * rng.normal(size=(d, d)))


def three(n=12, seed=0):
    """Rows in three columns, of two clusters."""
    rng = np.random.RandomState(seed)
    centers = np.array([[-1.0, -0.8, 0.9], [1.0, 1.2, -0.7]])
    return centers[np.arange(n) % 2] + 0.35 * rng.normal(size=(n, 3))


def cube():
    """An axis, and the grid (13^3, 3) of its points, as coarse as the clusters are wide."""
    axis = np.linspace(-4.2, 4.2, 13)
    return axis, np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)


def slow_score(x, points, log_weights, groups, covariance, v, background):
    """The score of one row x (d,), column by column, for automatic differentiation."""
    columns = []
    for p, group in enumerate(groups):
        c = torch.as_tensor(np.unique(group))
        block = torch.as_tensor(covariance)[c][:, c] + v * torch.eye(len(c), dtype=x.dtype)
        xc = x[c]
        squares = ((xc - points[:, c]) @ torch.linalg.inv(block) * (xc - points[:, c])).sum(1)
        log_points = torch.logsumexp(log_weights - squares / 2, 0) - torch.logdet(block) / 2
        weight, total = background[0], background[1] + v
        log_wide = -(xc.square().sum() / total + len(c) * math.log(total)) / 2
        log_density = torch.log((1 - weight) * log_points.exp() + weight * log_wide.exp())
        (gradient,) = torch.autograd.grad(log_density, xc, create_graph=True)
        columns.append(gradient[torch.nonzero(c == p)[0, 0]])
    return torch.stack(columns)


@pytest.mark.parametrize("background", [(0.0, 0.0), (0.2, 5.0)], ids=["alone", "background"])
@pytest.mark.parametrize("width", [0.0, 0.3])
def test_score_and_divergence_equal_automatic_differentiation(width, background):
    X = table(15, 4)
    X = X - X.mean(axis=0)
    groups = [[0, 1], [0, 1, 3], [2], [1, 2, 3]]
    covariance = width * np.cov(X.T)
    points, log_weights = torch.from_numpy(X), torch.log(torch.full((15,), 1 / 15).double())
    posterior = LocalPosterior(
        points,
        log_weights,
        ColumnGroups.of([np.array(g) for g in groups]),
        covariance if width else None,
        64.0,
        background,
    )
    queries, v = torch.from_numpy(table(3, 4, seed=1)), 0.7
    score, slopes = posterior.score(queries, v)
    for row, expected, slope in zip(queries, score, slopes, strict=True):
        x = row.clone().requires_grad_()
        slow = slow_score(x, points, log_weights, groups, covariance, v, background)
        assert_allclose(expected.numpy(), slow.detach().numpy(), rtol=1e-10, atol=1e-10)
        for p in range(4):
            (gradient,) = torch.autograd.grad(slow[p], x, retain_graph=True)
            assert_allclose(slope[p].item(), gradient[p].item(), rtol=1e-9, atol=1e-9)


def test_one_group_of_all_columns_is_the_kernel_density_estimate():
    X, queries = table(30, 3), table(8, 3, seed=1)
    expected = KDESampler(0.5).fit(X).score_samples(queries)
    settings = {"groups": [range(3)], "width": 0.0, "terminal": "empirical", "n_levels": 16}
    settings["background"] = 0.0
    errors = [
        np.abs(
            LocalScoreDiffusion(0.5, **settings, n_steps=n_steps).fit(X).score_samples(queries)
            - expected
        ).max()
        for n_steps in (64, 256)
    ]
    # Heun's method is of order two: a quarter of the step, a sixteenth of the error.
    assert errors[1] < 1e-3
    assert errors[1] < errors[0] / 8


def test_blocks_of_columns_are_independent():
    X, queries = table(40, 4), table(6, 4, seed=1)
    # The terminal Gaussian has the covariance between the blocks, which mirrored rows make zero.
    mean = X.mean(axis=0)
    X = np.vstack([X, np.column_stack([2 * mean[:2] - X[:, :2], X[:, 2:]])])
    model = LocalScoreDiffusion(0.4, width=0.0, background=0.0, terminal_scale=8.0, **CHEAP)
    whole = model.set_params(groups=[[0, 1], [2, 3]]).fit(X).score_samples(queries)
    model.set_params(groups=[[0, 1]])
    parts = [model.fit(X[:, c]).score_samples(queries[:, c]) for c in ([0, 1], [2, 3])]
    assert_allclose(whole, sum(parts), rtol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {"groups": [[0, 1], [1, 2]], "width": 0.0},
        {"groups": [[0, 1], [1, 2]], "width": 0.1, "sigma": 0.3, "n_nodes": 2, "n_steps": 20},
        {"n_levels": 5},
    ],
    ids=["local", "smoothed", "auto"],
)
def test_the_mass_is_one(settings):
    X = three()
    model = LocalScoreDiffusion(0.6, **{"n_levels": 4, "n_steps": 24} | settings).fit(X)
    axis, grid = cube()
    mass = np.exp(model.score_samples(grid)).sum() * (axis[1] - axis[0]) ** 3
    # Sums over a grid as coarse as the standard deviation are exact to 1e-8 for Gaussians.
    assert mass == pytest.approx(1, abs=2e-3)


def test_samples_have_the_density_that_is_scored():
    X = three(20)
    model = LocalScoreDiffusion(
        0.6, groups=[[0, 1], [1, 2]], width=0.05, n_levels=6, n_steps=24
    ).fit(X)
    draws = model.sample(1500, random_state=0)
    axis, grid = cube()
    density = np.exp(model.score_samples(grid)).reshape((len(axis),) * 3)
    for p in range(3):
        others = tuple(q for q in range(3) if q != p)
        marginal = density.sum(axis=others)
        # Distribution function in the middle between the points of the grid.
        cumulated = np.concatenate([[0.0], np.cumsum(marginal) / marginal.sum()])
        step = axis[1] - axis[0]
        edges = np.append(axis, axis[-1] + step) - step / 2
        p_value = kstest(draws[:, p], lambda z, e=edges, c=cumulated: np.interp(z, e, c)).pvalue
        # Three tests at a level of one in a thousand; the seed is fixed.
        assert p_value > 1e-3


def test_rows_in_another_order_and_small_memory_give_the_same():
    X, queries = table(30, 5), table(9, 5, seed=1)
    model = LocalScoreDiffusion(0.5, size=3, width=0.1, **CHEAP)
    expected = clone(model).fit(X).score_samples(queries)
    # A tile is one query and one group.
    other = clone(model).set_params(memory_limit=1e-3).fit(X[::-1])
    assert_allclose(other.score_samples(queries), expected, rtol=1e-10)
    assert_allclose(model.fit(X).score_samples(queries[3:4]), expected[3:4], rtol=1e-10)


def test_weights_are_repeated_rows():
    X, queries = table(20, 3), table(5, 3, seed=1)
    weight = np.arange(20) % 3 + 1
    model = LocalScoreDiffusion(**CHEAP)
    weighted = clone(model).fit(X, sample_weight=weight)
    repeated = clone(model).fit(np.repeat(X, weight, axis=0))
    assert weighted.bandwidth_ == pytest.approx(repeated.bandwidth_, rel=1e-12)
    assert_allclose(weighted.score_samples(queries), repeated.score_samples(queries), rtol=1e-9)


def test_leaving_one_row_out_is_a_fit_without_it():
    X = table(14, 3)
    model = LocalScoreDiffusion(
        0.5,
        groups=[[0, 1], [1, 2]],
        width=0.0,
        terminal="empirical",
        background=0.0,
        terminal_scale=9.0,
        **CHEAP,
    ).fit(X)
    left_out = model.leave_one_out_log_density()
    for i in (0, 5):
        point = model.points_[i]
        rest = X[~np.all(point == X, axis=1)]
        assert left_out[i] == pytest.approx(
            clone(model).fit(rest).score_samples([point])[0], rel=1e-8
        )
    half = model.leave_one_out_log_density(model.weights_ / 2)
    assert np.all(half > left_out)


def test_no_row_is_part_of_the_covariance_by_which_it_is_judged():
    X = table(12, 3)
    weights = np.arange(1, 13) / 78
    folds, exclude = np.arange(12) % 5, np.array([0, 3, 5, 11])
    parts = covariances_by_fold(X, weights, folds, exclude)
    assert sorted(np.concatenate([taken for taken, _ in parts])) == [0, 1, 2, 3]
    for taken, covariance in parts:
        (fold,) = np.unique(folds[exclude[taken]])
        kept = folds != fold
        expected = np.cov(X[kept].T, aweights=weights[kept], ddof=0)
        assert_allclose(covariance, expected, rtol=1e-12)


def test_few_images_in_many_columns_choose_no_degenerate_density():
    images = small_images(150)
    train, held_out = images[:10], images[50:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LocalScoreDiffusion(image_shape=(4, 4)).fit(train)
    # With the left-out row in the covariance the bandwidth is 0.001 of the standard deviation, and the
    # left-out mean 28 nats above the held-out one. Standard errors of the two are 1 and 0.4 nats.
    assert model.bandwidth_ > 0.005 * np.sqrt(train.var(axis=0).mean())
    assert model.leave_one_out_log_density().mean() < model.score(held_out) + 6


def test_gaussian_rows_get_nearly_their_own_density():
    rng = np.random.RandomState(0)
    covariance = np.array([[1.0, 0.6, 0.0], [0.6, 1.0, 0.3], [0.0, 0.3, 1.0]])
    X, held_out = (rng.multivariate_normal(np.zeros(3), covariance, n) for n in (300, 200))
    truth = multivariate_normal(np.zeros(3), covariance).logpdf(held_out).mean()
    # A Gaussian with nine parameters fitted to 300 rows loses 9 / 600 nats on average; the choices of
    # this model lose 0.08 here.
    model = LocalScoreDiffusion(n_steps=16).fit(X)
    assert model.score(held_out) > truth - 0.11


def small_images(n):
    """Centers of digits, 4 x 4, with noise of one unit."""
    rng = np.random.RandomState(0)
    images = load_digits().data.reshape(-1, 8, 8)[:n, 2:6, 2:6].reshape(n, 16)
    return (images + rng.uniform(size=images.shape)) / 16


def test_the_bandwidth_ends_where_denoising_does():
    X = small_images(80)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LocalScoreDiffusion(image_shape=(4, 4)).fit(X)
    std = np.sqrt(X.var(axis=0).mean())
    # The lowest that could be chosen is 0.001; the noise of one unit has 0.05.
    assert 0.002 < model.bandwidth_ / std < 0.05


@pytest.mark.parametrize("n_levels", [1, 2, 4])
def test_few_levels_suffice_for_a_chosen_bandwidth(n_levels):
    model = LocalScoreDiffusion(n_levels=n_levels, n_steps=4).fit(table(10, 2))
    assert np.isfinite(model.score(table(5, 2)))


def test_atoms_are_named():
    X = small_images(30)
    X[X < 0.3] = 0.0
    with pytest.warns(UserWarning, match="0.001 of the columns' standard deviation"):
        LocalScoreDiffusion(image_shape=(4, 4)).fit(X)


def test_patches_have_all_channels_and_are_cut_at_the_border():
    family = resolve_groups("auto", (3, 4, 2), 3, 24, np.eye(24))
    groups = family.make(3, 1.0)
    of_corner = groups.columns[groups.owner[0]]
    assert_array_equal(of_corner[of_corner >= 0], [0, 1, 2, 3, 8, 9, 10, 11])
    middle = groups.columns[groups.owner[(1 * 4 + 1) * 2]]
    assert np.sum(middle >= 0) == 18
    # Both channels of a pixel have one group.
    assert len(groups.columns) == 12


def test_windows_and_given_groups():
    windows = resolve_groups("windows", None, 3, 5, np.eye(5)).make(3, 1.0)
    ends = [windows.columns[windows.owner[p]] for p in (0, 2)]
    assert [end[end >= 0].tolist() for end in ends] == [[0, 1], [1, 2, 3]]
    given = resolve_groups([[0, 1], [1, 2]], None, "auto", 3, np.eye(3)).make(1, 1.0)
    sizes = [np.sum(given.columns[given.owner[p]] >= 0) for p in range(3)]
    assert sizes == [2, 3, 2]


def test_conditionals_are_those_of_the_joint_density():
    X = three(30)
    model = LocalScoreDiffusion(0.5, groups=[[0, 1], [1, 2]], width=0.0, n_levels=5, n_steps=10)
    model.fit(X)
    query = X[:2]
    axis = np.linspace(-5, 5, 101)
    rows = np.column_stack([np.full(101, query[0, 0]), np.full(101, query[0, 1]), axis])
    joint = np.exp(model.score_samples(rows))
    marginal = joint.sum() * (axis[1] - axis[0])
    result, _ = model.score_samples(query[:1], given=[0, 1], return_error=True)
    expected = model.score_samples(query[:1])[0] - np.log(marginal)
    assert result[0] == pytest.approx(expected, abs=0.01)
    draws = model.sample(4, random_state=0, given={0: 0.5})
    assert_array_equal(draws[:, 0], 0.5)


def test_pixels_can_be_bent_before():
    X = np.exp(three(20))
    model = LocalScoreDiffusion(0.5, image_shape=(1, 3), **CHEAP)
    bend = FunctionTransformer(np.log, np.exp, check_inverse=False)
    bent = TransformedDensity(clone(model), bend).fit(X)
    # log|d log x / dx| of each pixel is -log x.
    expected = model.fit(np.log(X)).score_samples(np.log(X)) - np.log(X).sum(axis=1)
    assert_allclose(bent.score_samples(X), expected, rtol=1e-6)
    assert bent.sample(50, random_state=0).min() > 0


def test_denoised_rows_are_posterior_means():
    X = table(20, 3)
    model = LocalScoreDiffusion(0.2, size=1, width=0.0, background=0.0, **CHEAP).fit(X)
    t = 0.5
    weights = np.exp(-((X[:1, None] - X) ** 2) / (2 * t))[0]
    expected = (weights * X).sum(axis=0) / weights.sum(axis=0)
    assert_allclose((X[:1] + t * model.grad_log_density(X[:1], t))[0], expected, rtol=1e-10)


def assert_has_the_divergence_of_its_differences(model, queries):
    t, step = 0.4, 1e-4
    ahead, back = (
        sum(model.grad_log_density(queries + e, t)[:, p] for p, e in enumerate(sign * np.eye(3)))
        for sign in (step, -step)
    )
    # The error of central differences is some step^2 times the third derivative.
    assert_allclose(model.laplacian_log_density(queries, t), (ahead - back) / (2 * step), rtol=1e-6)


def test_scores_have_the_divergence_of_their_differences():
    X = table(20, 3)
    model = LocalScoreDiffusion(0.5, groups=[[0, 1], [1, 2]], width=0.1, **CHEAP).fit(X)
    assert_has_the_divergence_of_its_differences(model, X[:4])
    assert_allclose(model.grad_log_density(X), model.grad_log_density(X, 0.25), rtol=1e-12)


def test_constant_pixels_and_few_rows():
    X = table(12, 4)
    X[:, 2] = 3.0
    model = LocalScoreDiffusion(image_shape=(2, 2), background=0.0, **CHEAP).fit(X)
    # The constant column has a Gaussian of the bandwidth, and changes no weights.
    moved = X + np.array([0, 0, model.bandwidth_, 0])
    assert_allclose(model.score_samples(moved), model.score_samples(X) - 0.5, rtol=1e-9)
    assert np.std(model.sample(50, random_state=0)[:, 2]) < 2 * model.bandwidth_
    two = LocalScoreDiffusion(0.5, image_shape=(2, 2), **CHEAP).fit(X[:2])
    assert np.isfinite(two.score_samples(X)).all()


def test_a_constant_pixel_does_not_lower_the_bandwidth():
    X = small_images(24)
    expected = LocalScoreDiffusion(image_shape=(4, 4)).fit(X).bandwidth_
    X[:, 3] = 0.5
    # Bandwidths that are compared are a factor of 1.8 apart; without this pixel some are a little lower.
    assert expected / 2 < LocalScoreDiffusion(image_shape=(4, 4)).fit(X).bandwidth_ < 2 * expected


def test_integer_images_are_named():
    images = load_digits().data[:60, 18:22]
    with pytest.warns(UserWarning, match="4 of 4 columns of X were recorded in steps of up to 1,"):
        LocalScoreDiffusion(0.3, **CHEAP).fit(images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_shape": (3, 3)}, "9 pixels, and X has 4"),
        ({"image_shape": (4,)}, "two or three"),
        ({"groups": "patches"}, "needs image_shape"),
        ({"groups": [[0, 1], [2]]}, r"miss the columns \[3\]"),
        ({"groups": [[0, 1, 2, 3], []]}, "empty"),
        ({"groups": [[0, 1, 2, 4]]}, "has the column 4"),
        ({"groups": [[0, 1, 2, 3]], "size": 3}, "size=3 has no effect"),
        (
            {"groups": "windows", "image_shape": (2, 2)},
            "has no effect with groups of the kind 'win",
        ),
        ({"bandwidth": 2.0, "terminal_scale": 1.0}, "terminal_scale=1 is not above"),
        ({"shifts": 1}, "shifts=1 needs image_shape"),
        ({"shifts": 1, "groups": "windows"}, r"or \(1, 4\) for series, with groups='auto'"),
        ({"shifts": 2, "image_shape": (2, 2)}, "2 x 2 pixels have no places so far apart"),
        ({"shifts": -1, "image_shape": (2, 2)}, "shifts=-1 is too small"),
    ],
)
def test_wrong_groups_are_refused(settings, message):
    model = LocalScoreDiffusion(**settings)
    with pytest.raises(ValueError, match=message):
        model.fit(table())
    assert not hasattr(model, "model_")


def test_a_missing_pixel_is_named():
    X = table()
    X[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        LocalScoreDiffusion(image_shape=(2, 2)).fit(X)


def test_images_that_are_no_rows_are_named():
    with pytest.raises(ValueError, match=r"reshape\(len\(X\), -1\), and image_shape=\(2, 3\)"):
        LocalScoreDiffusion(image_shape=(2, 3)).fit(np.zeros((5, 2, 3)))


def test_saved_models_score_the_same():
    X = table(20, 3)
    model = LocalScoreDiffusion(0.5, **CHEAP).fit(X)
    again = pickle.loads(pickle.dumps(model))
    assert_array_equal(again.score_samples(X), model.score_samples(X))


def test_moved_copies_repeat_the_edges():
    center = np.arange(24.0)
    images = np.random.RandomState(0).normal(size=(2, 24))
    shifted = ShiftedImages((3, 4, 2), center, 1)
    copies = shifted.copies(images).reshape(shifted.n_copies, 2, 3, 4, 2)
    assert_array_equal(copies[0].reshape(2, 24) + center, images + center)
    of_image = (images[1] + center).reshape(3, 4, 2)
    expected = [
        [[of_image[np.clip(i + a, 0, 2), np.clip(j + b, 0, 3)] for j in range(4)] for i in range(3)]
        for a in (-1, 0, 1)
        for b in (-1, 0, 1)
    ]
    moved = [copy[1] + center.reshape(3, 4, 2) for copy in copies]
    assert_allclose(
        sorted(m.ravel().tolist() for m in moved), sorted(np.ravel(e).tolist() for e in expected)
    )


def test_series_move_along_their_side_only():
    series = np.random.RandomState(0).normal(size=(2, 5))
    shifted = ShiftedImages((1, 5), np.zeros(5), 2)
    index = np.clip(np.arange(5) + np.array([0, -2, -1, 1, 2])[:, None], 0, 4)
    assert_array_equal(shifted.copies(series), np.concatenate([series[:, i] for i in index]))
    assert shifted.n_copies == len(index)


def test_a_row_is_left_out_with_its_copies():
    images = ShiftedImages((2, 2), np.zeros(4), 1)
    points = table(6, 4)
    groups = ColumnGroups.of([np.array(g) for g in ([0, 1], [1], [2, 3], [0, 3])])
    weights = np.arange(1, 7) / 21

    def score(rows, weights, exclude=None):
        copies = torch.from_numpy(images.copies(rows))
        log_weights = torch.from_numpy(np.tile(np.log(weights), 9))
        local = LocalPosterior(copies, log_weights, groups, None, 64.0, (0.1, 9.0), 9)
        return local.score(torch.from_numpy(table(2, 4, seed=1)), 0.8, exclude)

    without = score(np.delete(points, 2, axis=0), np.delete(weights, 2))
    for excluded, expected in zip(
        score(points, weights, torch.tensor([2, 2])), without, strict=True
    ):
        assert_allclose(excluded, expected, rtol=1e-10)


def test_patches_of_other_places_keep_mass_and_divergence():
    rng = np.random.RandomState(1)
    # All columns have one distribution, so that each helps the others.
    X = rng.choice([-1.1, 1.1], size=(8, 3)) + 0.2 * rng.normal(size=(8, 3))
    model = LocalScoreDiffusion(
        0.6, image_shape=(1, 3), shifts=1, width=0.0, size=2, n_levels=4, n_steps=24
    ).fit(X)
    assert all(part["shifts"] == 1 for parts in model.parts_ for part in parts)
    axis, grid = cube()
    mass = np.exp(model.score_samples(grid)).sum() * (axis[1] - axis[0]) ** 3
    assert mass == pytest.approx(1, abs=2e-3)
    assert_has_the_divergence_of_its_differences(model, X[:4])


def test_patches_of_other_places_help_where_images_are_few():
    images = small_images(150)
    settings = {"image_shape": (4, 4), "n_levels": 12, "n_steps": 12, "width": 0.0}
    fixed, moved = (
        LocalScoreDiffusion(0.02, shifts=shifts, **settings)
        .fit(images[:60])
        .score_samples(images[60:])
        for shifts in (0, 1)
    )
    gain = moved - fixed
    assert gain.mean() > 3 * gain.std() / np.sqrt(len(gain))


def test_places_win_on_digits():
    """Local scores denoise better than all pixels together, which the likelihood confirms."""
    rng = np.random.RandomState(0)
    images = load_digits().data.reshape(-1, 8, 8)[:460, 1:7, 1:7].reshape(460, 36)
    images = (images + rng.uniform(size=images.shape)) / 16
    train, held_out = images[:400], images[400:]
    settings = {"image_shape": (6, 6), "width": 0.0, "n_levels": 8, "n_steps": 8}
    local, whole = (LocalScoreDiffusion(0.08, size=size, **settings).fit(train) for size in (3, 11))
    assert local.score(held_out) > whole.score(held_out) + 5


def test_the_background_bounds_what_one_new_pixel_costs():
    X = table(40, 4)
    query = X[:1] + np.array([0.0, 12.0 * X.std(), 0.0, 0.0])
    settings = {"size": 1, "width": 0.0, **CHEAP}
    far = LocalScoreDiffusion(0.2, **settings).fit(X).score_samples(query)
    without = LocalScoreDiffusion(0.2, background=0.0, **settings).fit(X).score_samples(query)
    assert far > without + 20


def test_single_precision_and_merged_points_change_no_score():
    # With 300 points the engine computes in single precision, and merges points of single columns: their
    # relative errors are some 1e-5, of scores times the standard deviation of the noise.
    points = torch.from_numpy(np.random.RandomState(0).gamma(2.0, size=(300, 3)) - 2)
    log_weights = torch.full((300,), -math.log(300.0), dtype=torch.float64)
    noise = torch.from_numpy(np.random.RandomState(1).normal(size=(20, 3)))
    alone, together = [[0], [1], [2]], [[0, 1, 2]] * 3
    for groups, v in ((alone, 0.04), (alone, 4.0), (together, 1e-6), (together, 4.0)):
        local = ColumnGroups.of([np.array(group) for group in groups])
        fast = LocalPosterior(points, log_weights, local, None, 64.0, (0.001, 9.0))
        x = (points[:20] + math.sqrt(v) * noise).requires_grad_()
        score, slopes = fast.score(x.detach(), v)
        settings = points, log_weights, groups, np.zeros((3, 3)), v, (0.001, 9.0)
        slow = torch.stack([slow_score(row, *settings) for row in x])
        exact = [torch.autograd.grad(slow[:, p].sum(), x, retain_graph=True)[0] for p in range(3)]
        assert_allclose(math.sqrt(v) * score, math.sqrt(v) * slow.detach(), atol=1e-4)
        assert_allclose(
            v * slopes, v * torch.stack([exact[p][:, p] for p in range(3)], 1), atol=1e-4
        )


def test_the_warning_of_a_small_bandwidth_is_in_units_of_X():
    rng = np.random.default_rng(0)
    X = np.where(rng.uniform(size=(30, 3)) < 0.5, 0.0, rng.normal(size=(30, 3))) * 2.0**-300
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LocalScoreDiffusion().fit(X)
    assert any(f"the bandwidth {model.bandwidth_:.3g}," in str(each.message) for each in caught)


def test_few_values_in_a_wide_range_are_merged():
    # Ten grey levels, 33 standard deviations of the noise apart: nearly all bins between them are empty.
    rng = np.random.RandomState(0)
    points = torch.from_numpy(rng.randint(10, size=(300, 3)) + 0.01 * rng.normal(size=(300, 3)))
    log_weights, v = torch.full((300,), -math.log(300.0), dtype=torch.float64), 0.03**2
    width = torch.full((3, 1), 0.35 * math.sqrt(v), dtype=torch.float64)
    merged = _merged(points.T, log_weights.exp(), width)
    assert merged is not None
    assert merged[0].shape[2] < 200
    assert_allclose(merged[1].exp().sum(dim=1), 1.0, rtol=1e-12)
    groups = [[0], [1], [2]]
    local = ColumnGroups.of([np.array(group) for group in groups])
    fast = LocalPosterior(points, log_weights, local, None, 64.0)
    std = math.sqrt(v)
    x = (points[:20] + std * torch.from_numpy(rng.normal(size=(20, 3)))).requires_grad_()
    settings = points, log_weights, groups, np.zeros((3, 3)), v, (0.0, 1.0)
    slow = torch.stack([slow_score(row, *settings) for row in x]).detach()
    # Of scores times the standard deviation of the noise; see the test above.
    assert_allclose(std * fast.score(x.detach(), v)[0], std * slow, atol=1e-4)
