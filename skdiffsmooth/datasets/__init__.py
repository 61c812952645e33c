"""Data whose manifold, density and dimension are known."""

from ._curves import (
    make_circle,
    make_ellipse,
    make_lima_bean,
    make_rough_circle,
    make_wavy_circle,
)
from ._images import make_bump_images
from ._laws import PiecewiseConstant, Uniform, VonMises
from ._shape import Shape
from ._surfaces import make_affine_subspace, make_sphere, make_swiss_roll, make_torus

__all__ = [
    "PiecewiseConstant",
    "Shape",
    "Uniform",
    "VonMises",
    "make_affine_subspace",
    "make_bump_images",
    "make_circle",
    "make_ellipse",
    "make_lima_bean",
    "make_rough_circle",
    "make_sphere",
    "make_swiss_roll",
    "make_torus",
    "make_wavy_circle",
]
