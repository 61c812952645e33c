"""Log-densities with missing numbers, beside sums over a dense grid."""

import numpy as np
import pandas as pd
import pytest

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth.tables import TableDensity


@pytest.fixture(scope="module")
def model():
    rng = np.random.RandomState(0)
    kind = rng.choice(["a", "b"], 100)
    shared = rng.normal(size=100) + (kind == "b")
    frame = pd.DataFrame(
        {
            "kind": kind,
            "x": shared + rng.normal(0, 0.5, 100),
            "y": np.round(2 * shared + rng.normal(size=100)),
            "z": rng.normal(0, 0.5, 100) - shared,
        }
    )
    density = SmoothedScoreDiffusion(n_nodes=8, n_steps=8)
    return TableDensity(density=density).fit(frame), frame


def _log_sum(model, row, **grids):
    """Return the log-density of a row of values summed over grids of columns with equal steps."""
    points = np.meshgrid(*grids.values(), indexing="ij")
    rows = pd.DataFrame(
        {name: row[name] for name in row.index}, index=range(points[0].size)
    ).assign(**{name: grid.ravel() for name, grid in zip(grids, points, strict=True)})
    step = np.prod([1.0 if name == "y" else g[1] - g[0] for name, g in grids.items()])
    return float(np.log(step * np.exp(model.score_samples(rows)).sum()))


@pytest.mark.parametrize("missing", [["x"], ["x", "z"], ["y", "z"]])
def test_integrals_over_missing_numbers_are_within_their_errors(model, missing):
    density, frame = model
    grids = {"x": np.linspace(-6, 7, 36), "y": np.arange(-10.0, 13), "z": np.linspace(-7, 6, 36)}
    rows = frame[:1].astype({"y": float})
    log_density, error = density.score_samples(
        rows.assign(**dict.fromkeys(missing, np.nan)), return_error=True
    )
    expected = [
        _log_sum(density, row, **{k: grids[k] for k in missing}) for _, row in rows.iterrows()
    ]
    assert (error > 0).all()
    # Three standard errors, and .01 for the grid and the tails beyond it.
    assert (np.abs(log_density - expected) < 3 * error + 0.01).all()
    assert (error < 0.15).all()


def test_rough_integrals_of_levels_add_to_accurate_ones(model):
    density, frame = model
    rows = frame[:3].astype({"y": float}).assign(x=np.nan, z=np.nan)
    # With a level given, an integral is accurate from the start.
    of_levels = np.array([density.score_samples(rows.assign(kind=kind)) for kind in "ab"])
    open_level = density.score_samples(rows.assign(kind=None))
    np.testing.assert_allclose(open_level, np.logaddexp(*of_levels), atol=0.06)
    share = np.exp(of_levels[0, 0] - np.logaddexp(*of_levels)[0])
    drawn = density.sample(1000, given={"y": rows["y"][0]}, random_state=0)["kind"] == "a"
    # Four standard errors (false alarms: 6e-5), and half of the error of .1 that shares may have.
    assert abs(drawn.mean() - share) < 4 * np.sqrt(share * (1 - share) / 1000) + 0.025
