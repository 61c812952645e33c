"""The derivative of the projection of moving least squares.

The projection p of z is on its own surface, c_0(p) = 0, and z - p is perpendicular to it,
J(p)^T (z - p) = 0, where c_0 is the constant coefficient of the polynomial around p, and J are its
linear coefficients. By the implicit function theorem p moves along the null space U of dc_0/dp, the
tangents of the learned manifold:

    dp/dz = U (J^T U - H)^-1 J^T,    H_jl = (z - p) . dJ_j[U_l].

The learned manifold consists of one point of each polynomial (neighbours change with p), so its
tangents are not those of the polynomial, which J spans, and the matrix has rank k but is not symmetric.
The coefficients depend on p through the origin, the weights, and the plane on which the polynomial is
defined.
"""

from __future__ import annotations

import torch

from ._monomials import monomials


def image_of_derivative(
    rows: torch.Tensor,
    root: torch.Tensor,
    residual: torch.Tensor,
    tangent: torch.Tensor,
    degree: int,
    matrices: torch.Tensor,
) -> torch.Tensor:
    """Return matrices A (n, r, k), such that dp/dz = A T^T for projections p of queries z.

    They are zero where p does not move with z: at centres of curvature, and where the neighbours do
    not determine a tangent plane.

    - `rows` (n, K, r): neighbours less p, nearest first, in units of the width of the
      neighbourhood.
    - `root` (n, K): roots of their weights, which sum to one.
    - `residual` (n, r): z - p in the same units.
    - `tangent` (n, r, k): orthonormal tangents T of the polynomials at p.
    - `degree`: degree of the polynomials.
    - `matrices` (k, P, P): map coefficients of a polynomial to those of its partial derivatives.
    """
    k, weights = tangent.shape[2], root**2
    centered = rows - (weights[:, None] @ rows)
    _, sizes, span = torch.linalg.svd(root[:, :, None] * centered, full_matrices=False)
    # In coordinates of the span of the neighbours, of which p is a weighted mean: first those of the
    # plane, then those across it.
    y, centered = rows @ span.mT, centered @ span.mT
    powers = monomials(y[:, :, :k], degree)
    triangle = torch.linalg.qr(root[:, :, None] * powers, mode="r")[1]
    identity = torch.eye(triangle.shape[1], dtype=y.dtype, device=y.device)
    halves = torch.linalg.solve_triangular(triangle, identity.expand_as(triangle), upper=True)
    inverse = halves @ halves.mT
    coefficients = inverse @ (powers * weights[:, :, None]).mT @ y
    errors = y - powers @ coefficients

    # The width is the distance of the farthest neighbour.
    squares = (y**2).sum(2, keepdim=True)
    falling = y - squares * y[:, -1:] / squares[:, -1:]
    of_weights = 6 * (weights[:, :, None] / (1 - squares)) * falling
    # First-order perturbation of the principal axes: only the rotation of the plane has an effect, not
    # that of the axes within it.
    variances = sizes**2
    gap = variances[:, None, :k] - variances[:, k:, None]
    gap = gap.clamp_min(torch.finfo(y.dtype).eps)
    turn = torch.einsum("nim,nil,nie->nmle", centered[:, :, k:], centered[:, :, :k], of_weights)
    turn = turn / gap[..., None]

    # Coefficients 0, ..., k are linear in the neighbours, and depend on their coordinates in the plane.
    reading = inverse[:, : k + 1] @ powers.mT
    of_powers = torch.einsum("nia,jab->nijb", powers, matrices)
    slopes = torch.einsum("nijb,nbc->nijc", of_powers, coefficients)
    leverage = torch.einsum("nab,nijb->naij", inverse[:, : k + 1], of_powers)
    of_coordinates = leverage[..., None] * errors[:, None, :, None]
    of_coordinates = of_coordinates - reading[..., None, None] * slopes[:, None]
    of_coordinates = of_coordinates * weights[:, None, :, None, None]
    change = torch.einsum("nai,nic,nie->nace", reading, errors, of_weights)
    change[:, 0].diagonal(dim1=1, dim2=2).sub_(1)
    change[..., :k] -= of_coordinates.sum(2).mT
    of_turn = torch.einsum("naijc,nim->najmc", of_coordinates, y[:, :, k:])
    change = change + torch.einsum("najmc,nmje->nace", of_turn, turn)

    across = torch.linalg.solve_ex(change[:, 0, k:, k:], -change[:, 0, k:, :k])[0]
    along = torch.cat([identity[:k, :k].expand(len(y), k, k), across], dim=1)
    slope = coefficients[:, 1 : k + 1]
    in_span = (span @ residual[:, :, None])[..., 0]
    curvature = torch.einsum("njce,nel,nc->njl", change[:, 1:], along, in_span)
    moves = torch.linalg.solve_ex(slope @ along - curvature, slope @ (span @ tangent))[0]
    image = span.mT @ (along @ moves)
    return torch.where(image.isfinite().all(2).all(1)[:, None, None], image, 0.0)
