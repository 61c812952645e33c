"""Values of each metric for samplers that are wrong in a known way, its time, and how often it errs.

Rows are from a mixture of two bananas in the plane, one heavier than the other; every sampler is given
the same training rows and is judged by held-out rows. Best read by column: a metric that does not detect
what is wrong is near its value for held-out rows.
"""

import numpy as np
from _common import full_requested, header, row, timed
from sklearn.linear_model import LogisticRegression

from skdiffsmooth import KDESampler, SmoothedScoreDiffusion, metrics
from skdiffsmooth.manifolds import Circle

N_TRAIN, N_JUDGED, SEEDS = 100, 500, 3


def bananas(n, rng, share=0.7, noise=0.05):
    """Return rows about two half circles, `share` of them about the upper one."""
    is_upper = rng.uniform(size=n) < share
    angle = np.pi * rng.uniform(size=n) + np.where(is_upper, 0, np.pi)
    center = np.where(is_upper, 0.0, 2.5)
    X = np.column_stack([np.cos(angle) + center, np.sin(angle)])
    return X + noise * rng.normal(size=X.shape)


def samplers(data, rng):
    """Return samples by what is wrong with them."""
    n = N_JUDGED
    copies = data[rng.randint(len(data), size=n)]
    moments = rng.multivariate_normal(data.mean(axis=0), np.cov(data.T), size=n)
    kde = KDESampler("loo").fit(data)
    return {
        "nothing (fresh rows)": bananas(n, rng),
        "copies of training rows": copies,
        "copies, noise 0.01": copies + 0.01 * rng.normal(size=copies.shape),
        "blurred, noise 0.3": bananas(n, rng) + 0.3 * rng.normal(size=(n, 2)),
        "shrunk by 0.9": data.mean(axis=0) + 0.9 * (bananas(n, rng) - data.mean(axis=0)),
        "one mode": bananas(n, rng, share=1.0),
        "weights 0.3 : 0.7": bananas(n, rng, share=0.3),
        "a hole": with_hole(n, rng),
        "the Gaussian of the moments": moments,
        "KDE": kde.sample(n, random_state=rng),
        "smoothed score": SmoothedScoreDiffusion().fit(data).sample(n, random_state=rng),
    }


def with_hole(n, rng):
    """Return rows without a tenth of the upper arc, at its top."""
    X = bananas(2 * n, rng)
    is_in_hole = (np.abs(X[:, 0]) < 0.157) & (X[:, 1] > 0)
    return X[~is_in_hole][:n]


def measure(X, data, reference):
    """Return each metric's number by name."""
    fidelity = metrics.fidelity_and_diversity(X, reference)
    return {
        "to data": metrics.distance_to_data(X, data).mean(),
        "memorised": metrics.memorization(X, data).share,
        "variance": X.var(axis=0, ddof=1).sum() / data.var(axis=0, ddof=1).sum(),
        "coverage scale": metrics.coverage_scale(X, reference),
        "classifier": metrics.classifier_two_sample_test(X, reference, random_state=0).accuracy,
        "precision": fidelity.precision,
        "recall": fidelity.recall,
        "density": fidelity.density,
        "coverage": fidelity.coverage,
    }


def what_is_seen():
    """Print the table of wrong samplers."""
    print(
        f"\nTwo half circles, {N_TRAIN} training rows; {N_JUDGED} rows of each sampler against as many "
        f"held-out rows; means of {SEEDS} seeds.\n"
    )
    found = {}
    for seed in range(SEEDS):
        rng = np.random.RandomState(seed)
        data, reference = bananas(N_TRAIN, rng), bananas(N_JUDGED, rng)
        for name, X in samplers(data, rng).items():
            found.setdefault(name, []).append(measure(X, data, reference))
    names = list(next(iter(found.values()))[0])
    header("what is wrong", *names)
    for name, values in found.items():
        row(name, *(f"{np.mean([one[key] for one in values]):.2g}" for key in names))


def costs(full):
    """Print times, for rows in few and in many columns."""
    n = 5000 if full else 2000
    print(f"\nSeconds for {n} rows against {n}.\n")
    calls = {
        "distance_to_manifold (circle)": lambda X, Y: metrics.distance_to_manifold(
            X, Circle([0.0] * X.shape[1], 1.0, np.eye(X.shape[1])[:, :2])
        ),
        "distance_to_data": metrics.distance_to_data,
        "memorization": metrics.memorization,
        "coverage_scale": metrics.coverage_scale,
        "classifier_two_sample_test": lambda X, Y: metrics.classifier_two_sample_test(
            X, Y, random_state=0
        ),
        "fidelity_and_diversity": metrics.fidelity_and_diversity,
    }
    dimensions = (2, 10, 64, 784)
    header("metric", *(f"d = {d}" for d in dimensions))
    rng = np.random.RandomState(0)
    pairs = [(rng.normal(size=(n, d)), rng.normal(size=(n, d))) for d in dimensions]
    for name, call in calls.items():
        times = [timed(lambda c=call, p=pair: c(*p), repeats=1, warm_up=False)[0] for pair in pairs]
        row(name, *(f"{seconds:.2g}" for seconds in times))


def error_rates(full):
    """Print how often the classifier test rejects, where it should and where it should not."""
    n_repeats = 500 if full else 100
    print(f"\nShare of p-values up to 0.05, {n_repeats} repeats: 60 rows against 60 in R^5.\n")
    tests = {
        "neighbours, halves": lambda X, Y, rng: metrics.classifier_two_sample_test(
            X, Y, random_state=rng
        ),
        "logistic, halves": lambda X, Y, rng: metrics.classifier_two_sample_test(
            X, Y, LogisticRegression(), random_state=rng
        ),
        "logistic, 2 folds": lambda X, Y, rng: metrics.classifier_two_sample_test(
            X, Y, LogisticRegression(), cv=2, n_permutations=19, random_state=rng
        ),
    }
    cases = {
        "none": lambda rng: rng.normal(size=(60, 5)),
        "mean by 0.3 in each column": lambda rng: 0.3 + rng.normal(size=(60, 5)),
        "scale by 1.4": lambda rng: 1.4 * rng.normal(size=(60, 5)),
        "two modes": modes,
    }
    header("difference", *tests)
    for name, draw in cases.items():
        rng = np.random.RandomState(0)
        pairs = [(draw(rng), rng.normal(size=(60, 5))) for _ in range(n_repeats)]
        row(
            name,
            *(
                f"{np.mean([test(X, Y, rng).p_value <= 0.05 for X, Y in pairs]):.3f}"
                for test in tests.values()
            ),
        )


def modes(rng):
    """Return rows of two modes in the first column, with the moments of a standard normal."""
    X = rng.normal(size=(60, 5))
    X[:, 0] = 0.97 * np.sign(X[:, 0]) + np.sqrt(1 - 0.97**2) * rng.normal(size=60)
    return X


def run(full=False):
    """Print the three tables."""
    what_is_seen()
    error_rates(full)
    costs(full)


if __name__ == "__main__":
    run(full_requested())
