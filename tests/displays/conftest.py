"""Models that the displays draw, fitted once, on a backend that needs no screen."""

import matplotlib as mpl
import pytest
from display_models import fitted

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(scope="package")
def models():
    """Models of one to three named columns, by the number of columns."""
    return {d: fitted(d) for d in (1, 2, 3)}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")
