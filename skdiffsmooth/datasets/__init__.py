"""Shapes: manifolds of known dimension and volume, with a distribution of known density on them."""

from ._curves import circle, ellipse, lima_bean, rough_circle, wavy_circle
from ._distributions import Distribution, PiecewiseConstant, Uniform, VonMises
from ._generators import (
    make_affine_subspace,
    make_bump_images,
    make_circle,
    make_ellipse,
    make_lima_bean,
    make_rough_circle,
    make_sphere,
    make_swiss_roll,
    make_torus,
    make_wavy_circle,
)
from ._images import bump_images
from ._shape import Shape
from ._surfaces import affine_subspace, sphere, swiss_roll, torus

__all__ = [
    "Distribution",
    "PiecewiseConstant",
    "Shape",
    "Uniform",
    "VonMises",
    "affine_subspace",
    "bump_images",
    "circle",
    "ellipse",
    "lima_bean",
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
    "rough_circle",
    "sphere",
    "swiss_roll",
    "torus",
    "wavy_circle",
]
