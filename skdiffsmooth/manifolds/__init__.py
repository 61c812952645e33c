"""Known and learned manifolds in R^d, with projections, distances and tangent spaces."""

from ._affine import AffineSubspace
from ._base import Manifold, SmoothManifold, check_idempotent
from ._cloud import PointCloud
from ._curve import Curve
from ._dimension import IntrinsicDimension, intrinsic_dimension
from ._level_sets import smooth_along_level_sets
from ._local_polynomial import LocalPolynomialManifold
from ._product import ProductManifold
from ._reach import estimate_reach
from ._sphere import Circle, Sphere
from ._torus import Torus

__all__ = [
    "AffineSubspace",
    "Circle",
    "Curve",
    "IntrinsicDimension",
    "LocalPolynomialManifold",
    "Manifold",
    "PointCloud",
    "ProductManifold",
    "SmoothManifold",
    "Sphere",
    "Torus",
    "check_idempotent",
    "estimate_reach",
    "intrinsic_dimension",
    "smooth_along_level_sets",
]
