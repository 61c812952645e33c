import numpy as np
import pytest
from display_models import frame
from sklearn.exceptions import NotFittedError

from skdiffsmooth import KDESampler, LangevinSampler
from skdiffsmooth.displays import ChainDisplay

SAMPLER = LangevinSampler(30, n_warmup=5, n_chains=4, step_size=0.1)
# Thirty draws have not mixed.
pytestmark = pytest.mark.filterwarnings("ignore:chains have not mixed")


def test_chains_are_those_of_the_sampler():
    model = KDESampler(0.5).fit(frame(2))
    chains = SAMPLER.run(model, random_state=0)
    display = ChainDisplay.from_estimator(model, SAMPLER, random_state=0, columns=["column 1"])
    display.plot()
    np.testing.assert_array_equal(display.draws, chains.draws[:, :, [1]])
    assert f"{chains.r_hat[1]:.3f}" in display.ax_[0, 0].get_title()
    shown = display.frame()
    np.testing.assert_array_equal(shown[shown["chain"] == 2]["column 1"], chains.draws[2, :, 1])


def test_names_and_few_draws():
    sampler = LangevinSampler(3, n_warmup=2, n_chains=2, step_size=0.1)
    chains = sampler.run(KDESampler(0.5).fit(frame(2)), random_state=0)
    assert chains.r_hat is None
    display = ChainDisplay.from_chains(chains, names=["a", "b"], columns=["b"]).plot()
    assert display.columns == ["b"]
    assert display.ax_[0, 0].get_title() == ""


def test_bad_input():
    with pytest.raises(NotFittedError):
        ChainDisplay.from_estimator(KDESampler(0.5), SAMPLER)
    model = KDESampler(0.5).fit(frame(2))
    with pytest.raises(TypeError, match="sampler=DataFrame; expected a LangevinSampler"):
        ChainDisplay.from_estimator(model, frame(2))
    chains = SAMPLER.run(model, random_state=0)
    with pytest.raises(ValueError, match="names has 1 names; expected 2"):
        ChainDisplay.from_chains(chains, names=["a"])
    with pytest.raises(ValueError, match="columns is empty"):
        ChainDisplay.from_chains(chains, columns=[])
