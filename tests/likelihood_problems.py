"""Parameters, rows and geometries of the likelihood wing, made without an estimator."""

import numpy as np

from skdiffsmooth import SmoothedScoreDiffusion
from skdiffsmooth._diffusion.geometry import make_geometry
from skdiffsmooth._diffusion.settings import parse_parameters
from skdiffsmooth._diffusion.training_data import TrainingData
from skdiffsmooth._utils.shards import ONE_PROCESS
from skdiffsmooth.kernels import GaussianKernel
from skdiffsmooth.kernels._choice import SameEverywhere


def parsed(d=2, kernel=None, **params):
    params = SmoothedScoreDiffusion(**params).get_params(deep=False)
    return parse_parameters(params, SameEverywhere(kernel or GaussianKernel()), d)


def geometry_of(points, metric="euclidean", settings=None, weights=None, **more):
    data = rows_of(points, weights, **more)
    return make_geometry(metric, data, settings or parsed(points.shape[1]))


def rows_of(points, weights=None, **more):
    n = len(points)
    weights = np.full(n, 1 / n) if weights is None else weights
    return TrainingData(points, weights, ONE_PROCESS, n, is_weighted=False, **more)
