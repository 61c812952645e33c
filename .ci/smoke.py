"""Try an installed package, outside the repository: fit, score, draw, save; and what an extra adds.

python smoke.py [extra ...]
"""

import pathlib
import pickle
import sys
import sysconfig

import numpy as np

import skdiffsmooth
from skdiffsmooth import SmoothedScoreDiffusion, sample
from skdiffsmooth.displays import DensityDisplay


def main():
    """Raise an error if the installed package does not work."""
    home = pathlib.Path(skdiffsmooth.__file__).resolve()
    assert home.is_relative_to(pathlib.Path(sysconfig.get_path("purelib")).resolve()), home
    X = np.random.RandomState(0).normal(size=(60, 2))
    model = SmoothedScoreDiffusion().fit(X)
    assert np.isfinite(model.score_samples(X)).all()
    assert model.sample(5, random_state=0).shape == (5, 2)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.score_samples(X), model.score_samples(X))
    for frames in {"pandas", "polars"} & set(sys.argv[1:]):
        drawn = sample(model, 3, random_state=0, output=frames)
        assert list(drawn.columns) == ["x0", "x1"]
    if "plot" in sys.argv[1:]:
        DensityDisplay.from_estimator(model, X).plot()
    print(f"skdiffsmooth {skdiffsmooth.__version__} works, from {home.parent}")


if __name__ == "__main__":
    main()
