"""How a place of moving least squares follows its query: the derivative of the projection.

The projection p of z is on its own surface, c_0(p) = 0, and z - p is perpendicular to it,
J(p)^T (z - p) = 0, where c_0 is the constant coefficient of the polynomial around p, and J are its
linear ones. By the implicit function theorem p moves along the null space U of dc_0/dp, the tangents
of the learned manifold:

    dp/dz = U (J^T U - H)^-1 J^T,    H_jl = (z - p) . dJ_j[U_l].

The tangents of the polynomial, which J spans, are not those of the manifold that all the polynomials
make (neighbours come and go with p), so the matrix is of rank k but not symmetric. Coefficients depend
on p by the origin, by the weights, and by the plane that the polynomial is a function on.
"""

from __future__ import annotations

import torch

from ._monomials import monomials

__all__ = ["image_of_derivative"]


def image_of_derivative(
    rows: torch.Tensor,
    root: torch.Tensor,
    left: torch.Tensor,
    tangent: torch.Tensor,
    degree: int,
    matrices: torch.Tensor,
) -> torch.Tensor:
    """Return the matrices A with dp/dz = A T^T at projections p of queries z.

    Parameters
    ----------
    rows : torch.Tensor of shape (n, K, r)
        Neighbours less p, nearest first, in units of the width of the neighbourhood.
    root : torch.Tensor of shape (n, K)
        Roots of their weights, which sum to one.
    left : torch.Tensor of shape (n, r)
        z - p in the same units.
    tangent : torch.Tensor of shape (n, r, k)
        Orthonormal tangents T of the polynomials at p.
    degree : int
        Of the polynomials.
    matrices : torch.Tensor of shape (k, P, P)
        Take coefficients to those of derivatives.

    Returns
    -------
    torch.Tensor of shape (n, r, k)
        Zero where p does not follow z: at centres of curvature, and where the neighbours do not tell
        along which directions they lie.
    """
    k, weights = tangent.shape[2], root**2
    centered = rows - (weights[:, None] @ rows)
    _, sizes, span = torch.linalg.svd(root[:, :, None] * centered, full_matrices=False)
    # Only what neighbours span matters: p is a weighted mean of them. First the plane, then across.
    y, centered = rows @ span.mT, centered @ span.mT
    powers = monomials(y[:, :, :k], degree)
    triangle = torch.linalg.qr(root[:, :, None] * powers, mode="r")[1]
    identity = torch.eye(triangle.shape[1], dtype=y.dtype, device=y.device)
    halves = torch.linalg.solve_triangular(triangle, identity.expand_as(triangle), upper=True)
    inverse = halves @ halves.mT
    coefficients = inverse @ (powers * weights[:, :, None]).mT @ y
    residual = y - powers @ coefficients

    # The farthest neighbour carries the width.
    squares = (y**2).sum(2, keepdim=True)
    falling = y - squares * y[:, -1:] / squares[:, -1:]
    weights_move = 6 * (weights[:, :, None] / (1 - squares)) * falling
    # First order perturbation of principal axes: the plane turns, whatever its axes do in it.
    variances = sizes**2
    gap = variances[:, None, :k] - variances[:, k:, None]
    gap = gap.clamp_min(torch.finfo(y.dtype).eps)
    turn = torch.einsum("nim,nil,nie->nmle", centered[:, :, k:], centered[:, :, :k], weights_move)
    turn = turn / gap[..., None]

    # Coefficients 0, ..., k are linear in the values, and follow where neighbours are in the plane.
    reading = inverse[:, : k + 1] @ powers.mT
    powers_move = torch.einsum("nia,jab->nijb", powers, matrices)
    slopes = torch.einsum("nijb,nbc->nijc", powers_move, coefficients)
    leverage = torch.einsum("nab,nijb->naij", inverse[:, : k + 1], powers_move)
    by_place = leverage[..., None] * residual[:, None, :, None]
    by_place = by_place - reading[..., None, None] * slopes[:, None]
    by_place = by_place * weights[:, None, :, None, None]
    change = torch.einsum("nai,nic,nie->nace", reading, residual, weights_move)
    change[:, 0].diagonal(dim1=1, dim2=2).sub_(1)
    change[..., :k] -= by_place.sum(2).mT
    by_turn = torch.einsum("naijc,nim->najmc", by_place, y[:, :, k:])
    change = change + torch.einsum("najmc,nmje->nace", by_turn, turn)

    across = torch.linalg.solve_ex(change[:, 0, k:, k:], -change[:, 0, k:, :k])[0]
    along = torch.cat([identity[:k, :k].expand(len(y), k, k), across], dim=1)
    slope = coefficients[:, 1 : k + 1]
    bend = torch.einsum("njce,nel,nc->njl", change[:, 1:], along, (span @ left[:, :, None])[..., 0])
    moves = torch.linalg.solve_ex(slope @ along - bend, slope @ (span @ tangent))[0]
    image = span.mT @ (along @ moves)
    return torch.where(image.isfinite().all(2).all(1)[:, None, None], image, 0.0)
