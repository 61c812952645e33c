import subprocess
import sys

import pytest
from display_models import frame

from skdiffsmooth.displays import DensityDisplay


def test_matplotlib_is_loaded_by_plot_only():
    code = (
        "import numpy, sys; from skdiffsmooth import KDESampler;"
        "from skdiffsmooth.displays import DensityDisplay;"
        "DensityDisplay.from_estimator(KDESampler(0.5).fit(numpy.eye(2)), grid_resolution=3);"
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("package", "extra", "method"),
    [("matplotlib.pyplot", "plot", "plot"), ("pandas", "pandas", "frame")],
)
def test_a_missing_package_is_named_with_its_extra(models, monkeypatch, package, extra, method):
    display = DensityDisplay.from_estimator(models[1], frame(1), grid_resolution=3)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'skdiffsmooth\[{extra}\]'"):
        getattr(display, method)()
