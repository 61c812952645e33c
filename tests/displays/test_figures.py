import sys

import pytest
from display_models import frame

from skdiffsmooth.displays import DensityDisplay


@pytest.mark.parametrize(
    ("package", "extra", "method"),
    [("matplotlib.pyplot", "plot", "plot"), ("pandas", "pandas", "frame")],
)
def test_a_missing_package_is_named_with_its_extra(models, monkeypatch, package, extra, method):
    display = DensityDisplay.from_estimator(models[1], frame(1), grid_resolution=3)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'skdiffsmooth\[{extra}\]'"):
        getattr(display, method)()
