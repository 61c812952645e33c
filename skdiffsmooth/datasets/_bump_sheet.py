"""All images of a Gaussian bump with its center in a square: a manifold of dimension two.

An image is a product g(y) g(x) of one function for the rows of pixels and one for the columns, so it
is a matrix of rank one. The functions span, to rounding, a space of some twenty dimensions, and in it
every inner product of an image X with a bump and its derivatives is a product of small matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .._coordinates.hull import AffineHull
from .._utils.cached import cached_property
from .._utils.memory import slices_within
from ..manifolds._base import Constants, ManifoldInHull

# Singular values of the profiles below this, relative to the largest, are dropped.
NEGLIGIBLE = 1e-14
# Steps per width of the bump, of the lattice of centers at which searches start.
STEPS_PER_WIDTH = 4
# Number of local minima of the lattice from which Newton's method starts: far from the manifold several
# images may be equally near, up to the square of a lattice step.
CANDIDATES = 3
# Newton's method doubles the number of correct digits once it takes full steps.
ITERATIONS = 20
# Newton's method ends after a step this small, in units of half the side of the square.
STEP_TOLERANCE = 1e-12
MEMORY_LIMIT = 64.0  # MiB
# The reach is estimated at 25 x 25 centers, from the curvature in 32 directions.
REACH_CENTERS, REACH_DIRECTIONS = 25, 32


def bump_profile(pixels: np.ndarray, centers: np.ndarray, width: float) -> np.ndarray:
    """Return exp(-(pixel - center)^2 / (2 width^2)), shape (n_centers, n_pixels)."""
    return np.exp(-((pixels - centers[:, None]) ** 2) / (2 * width**2))


class _Nearest(NamedTuple):
    """Queries (n, r, r) in hull coordinates and the centers (n, 2) of the nearest images.

    `derivatives` are the profiles of these images and their derivatives, `rounding` the machine epsilon.
    """

    z: torch.Tensor
    centers: torch.Tensor
    derivatives: tuple[torch.Tensor, ...]
    rounding: float


class BumpSheet(ManifoldInHull):
    """The images exp(-|pixel - center|^2 / (2 width^2)) with centers (x, y) in a square about zero.

    Images have `size` pixels a side, evenly spaced from -1 to 1, and are rows of size^2, line by line;
    `width` is in units of the pixels' coordinates, and ``|x|, |y| <= half_side``.

    A query is compared with a lattice of centers a quarter of a width apart. Newton's method for the
    squared distance starts from the three lowest local minima, with a positive definite Hessian, centers
    within the square, and steps that are shortened until the distance decreases; the nearest of the
    three results is the projection. Images with centers on the edge of the square belong to the
    manifold: the projection of a query to one of them does not move across the edge.

    n projections cost O(n d r) for the map to the r dimensions that the images span (about 400) and
    back, and O(n r^1/2 K^2) for the comparison with K x K centers.
    """

    def __init__(self, size: int, width: float, half_side: float) -> None:
        self.size, self.width, self.half_side = size, width, half_side
        self._axis = np.linspace(-1, 1, size)
        n_steps = max(2, math.ceil(STEPS_PER_WIDTH * 2 * half_side / width))
        lattice = np.linspace(-half_side, half_side, n_steps + 1)
        # Eight times as fine as the lattice: profiles between two such centers add no new direction.
        fine = np.linspace(-half_side, half_side, 8 * n_steps + 1)
        _, values, axes = np.linalg.svd(bump_profile(self._axis, fine, width), full_matrices=False)
        span = axes[values > NEGLIGIBLE * values[0]].T
        self._step = 2 * half_side / n_steps
        self._set_hull(AffineHull(np.zeros(size**2), np.kron(span, span)))
        profiles = bump_profile(self._axis, lattice, width) @ span
        self._table = Constants(self._axis, span, lattice, profiles)

    @property
    def dimension(self) -> int:
        """Dimension of the manifold, two."""
        return 2

    @cached_property
    def reach(self) -> float:
        """An estimate of the reach, not below the true one up to rounding.

        The smaller of the least radius of curvature, in 32 directions at 25 x 25 centers, and of
        |q - p|^2 / (2 dist(q - p, T_p)) over pairs of images p, q there (Federer 1959, Theorem 4.18).
        """
        c = np.linspace(-self.half_side, self.half_side, REACH_CENTERS)
        y, x = (part.ravel() for part in np.meshgrid(c, c, indexing="ij"))
        centers = torch.from_numpy(np.stack([x, y], axis=1))
        derivatives = [part.numpy() for part in self._derivatives(centers)]
        points, slopes, curvatures = (
            _outer(derivatives[0]),
            _slopes(derivatives),
            _second_derivatives(derivatives),
        )
        frames = np.linalg.qr(slopes)[0]
        angle = np.pi * np.arange(REACH_DIRECTIONS) / REACH_DIRECTIONS
        v = np.stack([np.cos(angle) ** 2, 2 * np.cos(angle) * np.sin(angle), np.sin(angle) ** 2])
        across = curvatures - frames @ (np.swapaxes(frames, 1, 2) @ curvatures)
        curved = np.linalg.norm(across @ v, axis=1)
        speeds = np.linalg.norm(slopes @ np.stack([np.cos(angle), np.sin(angle)]), axis=1) ** 2
        smallest = float((speeds / curved).min())
        sizes = (points**2).sum(axis=1)
        squares = np.maximum(sizes[:, None] + sizes - 2 * points @ points.T, 0.0)
        along = points @ frames
        along -= np.diagonal(along, axis1=0, axis2=1).T[:, None]
        outside = np.sqrt(np.maximum(squares - (along**2).sum(2), 0.0))
        # Without pairs of a center with itself, whose distances are rounding errors.
        slope_squares = outside > 1e-4 * np.sqrt(sizes.max())
        smallest = min(
            smallest, float((squares[slope_squares] / (2 * outside[slope_squares])).min())
        )
        return smallest

    def images(self, centers: np.ndarray) -> np.ndarray:
        """Return the images (n, size^2) with centers (n, 2)."""
        x, y = (bump_profile(self._axis, part, self.width) for part in centers.T)
        return (y[:, :, None] * x[:, None, :]).reshape(len(centers), -1)

    def centers(self, X: np.ndarray) -> np.ndarray:
        """Return the centers (n, 2) of the images nearest to images X (n, size^2)."""
        return self._nearest(torch.from_numpy(X)).centers.numpy()

    def log_area(self, centers: np.ndarray) -> np.ndarray:
        """Return the log (n,) of the manifold's area per area of centers, at centers (n, 2)."""
        gram = _gram(self._derivatives(torch.from_numpy(np.ascontiguousarray(centers))))
        return torch.log(torch.linalg.det(gram)).numpy() / 2

    # -------------------------------------------------------------------------------- projection

    def _nearest(self, x: torch.Tensor) -> _Nearest:
        z = self._coordinates(x)
        rank = math.isqrt(z.shape[1])
        z = z.reshape(len(z), rank, rank)
        centers = self._foot(z)
        return _Nearest(z, centers, self._derivatives(centers), torch.finfo(x.dtype).eps)

    def _point(self, nearest: _Nearest) -> torch.Tensor:
        return self._lift(_outer(nearest.derivatives[0]))

    def _frame(self, nearest: _Nearest) -> torch.Tensor:
        """Return orthonormal tangents (n, d, 2), the first along the movement of the center in x."""
        first, second = _slopes(nearest.derivatives).unbind(2)
        first = first / torch.linalg.vector_norm(first, dim=1, keepdim=True)
        second = second - (second * first).sum(1, keepdim=True) * first
        second = second / torch.linalg.vector_norm(second, dim=1, keepdim=True)
        return self._constants.like(first)[1] @ torch.stack([first, second], dim=2)

    def _derivatives(self, centers: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the profiles in x and y, their first and second derivatives, each (n, 2, r)."""
        axis, span, *_ = self._table.like(centers)
        offset = (axis - centers[:, :, None]) / self.width
        profile = torch.exp(-(offset**2) / 2)
        slope = offset / self.width * profile
        curvature = (offset**2 - 1) / self.width**2 * profile
        return profile @ span, slope @ span, curvature @ span

    def _foot(self, z: torch.Tensor) -> torch.Tensor:
        """Return the centers (x, y) of the nearest images, shape (n, 2)."""
        _, _, lattice, _ = self._table.like(z)
        row = z.element_size() * (
            8 * len(lattice) ** 2 + CANDIDATES * (8 * self.size + 4 * z.shape[1] ** 2)
        )
        return torch.cat(
            [self._foot_of_tile(z[tile]) for tile in slices_within(len(z), row, MEMORY_LIMIT)]
        )

    def _foot_of_tile(self, z: torch.Tensor) -> torch.Tensor:
        start = self._lowest(z)
        rows = z.repeat_interleave(CANDIDATES, dim=0)
        centers, squares = self._descend(rows, start.reshape(-1, 2))
        squares = squares.reshape(-1, CANDIDATES)
        # Several candidates may converge to one image: that with the nearest start is the most accurate.
        equal = squares <= squares.amin(dim=1, keepdim=True) + _slack(z)[:, None]
        best = equal.to(torch.uint8).argmax(dim=1)
        index = best[:, None, None].expand(-1, 1, 2)
        return centers.reshape(-1, CANDIDATES, 2).gather(1, index)[:, 0]

    def _lowest(self, z: torch.Tensor) -> torch.Tensor:
        """Return the centers of the lowest local minima of the lattice, shape (n, 3, 2)."""
        _, _, lattice, profiles = self._table.like(z)
        sizes = (profiles**2).sum(1)
        # Squared distances, less the squared length of z; rows of the lattice are y.
        squares = sizes[:, None] * sizes - 2 * profiles @ z @ profiles.T
        around = torch.nn.functional.pad(-squares[:, None], (1, 1, 1, 1), value=-torch.inf)
        highest = torch.nn.functional.max_pool2d(around, 3, stride=1)[:, 0]
        minima = torch.where(-squares >= highest, squares, torch.inf)
        lowest = minima.flatten(1).topk(CANDIDATES, dim=1, largest=False)
        # If there are fewer minima, the lowest is repeated.
        index = torch.where(torch.isfinite(lowest.values), lowest.indices, lowest.indices[:, :1])
        y, x = index // len(lattice), index % len(lattice)
        return torch.stack([lattice[x], lattice[y]], dim=2)

    def _descend(self, z: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return local minima of the squared distance: centers (n, 2), values (n,) of `_local`."""
        value, gradient, hessian = self._local(z, c)
        step_length = torch.ones_like(value)
        slack = _slack(z)
        for _ in range(ITERATIONS):
            step = self._newton(c, gradient, hessian)
            trial = (c + step_length[:, None] * step).clamp(-self.half_side, self.half_side)
            new = self._local(z, trial)
            lower = new[0] <= value + slack
            c = torch.where(lower[:, None], trial, c)
            value = torch.where(lower, new[0], value)
            gradient = torch.where(lower[:, None], new[1], gradient)
            hessian = torch.where(lower[:, None, None], new[2], hessian)
            step_length = torch.where(lower, 1.0, step_length / 4)
            if c.is_cpu and not (step.abs() > STEP_TOLERANCE * self.half_side).any():
                break
        return c, value

    def _newton(self, c: torch.Tensor, g: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """Return Newton steps (n, 2), at most a lattice step long and without crossing an edge."""
        held = self._held(c, g)
        g = torch.where(held, 0.0, g)
        a = torch.where(held[:, 0], 1.0, h[:, 0, 0])
        d = torch.where(held[:, 1], 1.0, h[:, 1, 1])
        b = torch.where(held.any(1), 0.0, h[:, 0, 1])
        # The smaller eigenvalue is raised to 1 % of the larger, so that the step goes downhill.
        middle, radius = (a + d) / 2, torch.sqrt(((a - d) / 2) ** 2 + b**2)
        largest = torch.maximum(
            middle.abs() + radius, torch.finfo(c.dtype).tiny * torch.ones_like(a)
        )
        raised = (0.01 * largest - (middle - radius)).clamp(min=0)
        a, d = a + raised, d + raised
        determinant = a * d - b * b
        step = -torch.stack([d * g[:, 0] - b * g[:, 1], a * g[:, 1] - b * g[:, 0]], dim=1)
        step = step / determinant[:, None]
        longest = step.abs().amax(1, keepdim=True)
        return step * (self._step / longest.clamp_min(self._step))

    def _held(self, c: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """Return which coordinates (n, 2) are at an edge across which the distance decreases."""
        return (c.abs() >= self.half_side) & (gradient * c < 0)

    def _local(self, z: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return half the squared distance minus ``|z|^2 / 2``, its gradient and its Hessian."""
        profile, slope, curvature = self._derivatives(c)
        derivatives = torch.stack([profile, slope, curvature], dim=2)
        x, y = derivatives.unbind(1)
        # Inner products of the image, and of the bump, with the bump and its derivatives.
        of_image = y @ z @ x.mT
        of_bump = (profile[:, :, None] @ derivatives.mT)[:, :, 0]
        squared = (slope**2).sum(2)
        (xx, xs, xb), (yy, ys, yb) = of_bump[:, 0].unbind(1), of_bump[:, 1].unbind(1)
        value = xx * yy / 2 - of_image[:, 0, 0]
        gradient = torch.stack([xs * yy - of_image[:, 0, 1], ys * xx - of_image[:, 1, 0]], dim=1)
        mixed = 2 * xs * ys - of_image[:, 1, 1]
        rows = [
            torch.stack([(xb + squared[:, 0]) * yy - of_image[:, 0, 2], mixed], dim=1),
            torch.stack([mixed, (yb + squared[:, 1]) * xx - of_image[:, 2, 0]], dim=1),
        ]
        return value, gradient, torch.stack(rows, dim=1)

    def _ratio(self, nearest: _Nearest) -> torch.Tensor:
        z, c, derivatives, rounding = nearest
        _, gradient, hessian = self._local(z, c)
        free = ~self._held(c, gradient)
        gram = _gram(derivatives)
        factor = torch.linalg.cholesky(gram)
        both = free[:, :, None] & free[:, None, :]
        h = torch.where(both, hessian, torch.diag_embed(torch.ones_like(c)))
        determinant = h[:, 0, 0] * h[:, 1, 1] - h[:, 0, 1] ** 2
        # The determinant is zero where the query is at a center of curvature.
        smallest = rounding * torch.linalg.det(gram)
        determinant = torch.maximum(determinant, smallest)
        adjugate = torch.stack(
            [
                torch.stack([h[:, 1, 1], -h[:, 0, 1]], dim=1),
                torch.stack([-h[:, 0, 1], h[:, 0, 0]], dim=1),
            ],
            dim=1,
        )
        inverse = torch.where(both, adjugate / determinant[:, None, None], 0.0)
        ratio = factor.mT @ inverse @ factor
        return (ratio + ratio.mT) / 2


def _slack(z: torch.Tensor) -> torch.Tensor:
    """Return a bound (n,) on the rounding error of squared distances."""
    return 8 * torch.finfo(z.dtype).eps * (z**2).sum((1, 2)).clamp_min(1.0)


def _outer(parts: Any) -> Any:
    """Return the products of functions of x and of y, shape (n, 2, r), as rows (n, r^2)."""
    n, _, rank = parts.shape
    return (parts[:, 1, :, None] * parts[:, 0, None, :]).reshape(n, rank**2)


def _slopes(derivatives: Sequence[Any]) -> Any:
    """Return the derivatives of the images with respect to the center, shape (n, r^2, 2)."""
    profile, slope, _ = derivatives
    stack = torch.stack if isinstance(profile, torch.Tensor) else np.stack
    x = stack([slope[:, 0], profile[:, 1]], 1)
    y = stack([profile[:, 0], slope[:, 1]], 1)
    return stack([_outer(x), _outer(y)], -1)


def _second_derivatives(derivatives: Sequence[np.ndarray]) -> np.ndarray:
    """Return the second derivatives xx, xy, yy, shape (n, r^2, 3)."""
    profile, slope, curvature = derivatives
    xx = np.stack([curvature[:, 0], profile[:, 1]], 1)
    yy = np.stack([profile[:, 0], curvature[:, 1]], 1)
    return np.stack([_outer(xx), _outer(slope), _outer(yy)], -1)


def _gram(derivatives: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return inner products of the derivatives, shape (n, 2, 2)."""
    profile, slope, _ = derivatives
    squares, mixed, slope_squares = (profile**2).sum(2), (profile * slope).sum(2), (slope**2).sum(2)
    across = mixed[:, 0] * mixed[:, 1]
    rows = [
        torch.stack([slope_squares[:, 0] * squares[:, 1], across], dim=1),
        torch.stack([across, squares[:, 0] * slope_squares[:, 1]], dim=1),
    ]
    return torch.stack(rows, dim=1)
