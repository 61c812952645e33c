"""Monomials of a few variables up to a degree, and matrices that differentiate polynomials."""

from __future__ import annotations

import itertools

import numpy as np
import torch


def _terms(n_variables: int, degree: int) -> list[tuple[int, ...]]:
    """Return the variables of each monomial, lower degrees first, as (), (0,), (1,), (0, 0), ..."""
    choose = itertools.combinations_with_replacement
    return [term for d in range(degree + 1) for term in choose(range(n_variables), d)]


def monomials(s: torch.Tensor, degree: int) -> torch.Tensor:
    """Return all monomials (..., P) of variables s (..., n_variables)."""
    values: dict[tuple[int, ...], torch.Tensor] = {(): torch.ones_like(s[..., 0])}
    for term in _terms(s.shape[-1], degree)[1:]:
        values[term] = values[term[:-1]] * s[..., term[-1]]
    return torch.stack(list(values.values()), dim=-1)


def derivatives(n_variables: int, degree: int) -> np.ndarray:
    """Return the matrices (P, P) that map coefficients to those of the partial derivatives."""
    terms = _terms(n_variables, degree)
    matrices = np.zeros((n_variables, len(terms), len(terms)))
    for column, term in enumerate(terms):
        for variable in set(term):
            remaining = list(term)
            remaining.remove(variable)
            matrices[variable, terms.index(tuple(remaining)), column] = term.count(variable)
    return matrices
