"""The density of a whole row of a table: levels first, and continuous coordinates given them.

    p(c, z) = p(c) p(z | c)

p(c) is a probability, in closed form; p(z | c) a density per unit of the columns, in which recorded
values of columns with cells (integers, rounded values) have the probability of their cell. Coordinates
that have no value at the levels c (a column at one of its atoms) are left out of z. The density of
columns with atoms is conditional on the other columns, whose density has one model for all rows. Missing
levels are summed over, missing values integrated out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from .._utils.draws import CommonRandomState, choose_in_rows
from .._utils.progress import tracked
from .._utils.warnings import warn_user
from ._amounts import AmountPart
from ._cells import (
    REFINED,
    averaged,
    in_cells,
    log_widths,
    mapped,
    mapped_ends,
    points_of,
)
from ._columns import EncodedTable, TableColumns
from ._continuous import ContinuousPart
from ._discrete import LevelDensity

# Most combinations of missing levels that are summed over, for each row.
_MOST_COMBINATIONS = 64
# Requested errors in nats: of the first integrals for each combination of a row's levels; of their sum;
# of the probabilities by which levels are drawn.
_ROUGH, _TOLERANCE, _TOLERANCE_OF_DRAWS = 0.3, 0.03, 0.1
# Draws of missing columns without atoms, over which the density of those with atoms is averaged.
_N_COMMON = 64


class _Group(NamedTuple):
    """Rows that may have values in the same coordinates, `pattern` (p,), and the same `observed`."""

    rows: np.ndarray
    pattern: np.ndarray
    observed: np.ndarray


class _AtPoints(NamedTuple):
    """Log-densities (m, n) of n rows at m points of their cells, errors, and coordinates (m, n, p)."""

    rows: np.ndarray
    observed: np.ndarray  # (p,) coordinates; the others are integrated out
    z: np.ndarray
    log_density: np.ndarray
    error: np.ndarray


@dataclass(frozen=True, eq=False)
class MixedDensity:
    """The density of encoded rows."""

    table: TableColumns
    level_density: LevelDensity
    parts: list[ContinuousPart]  # one for each set of coordinates that has a density of its own
    # One for each set of columns that may be at no atom together, given the columns without
    # atoms; empty if no column, or every column, has atoms.
    amounts: list[AmountPart]

    @property
    def all_parts(self) -> list[ContinuousPart | AmountPart]:
        """The densities of all sets of coordinates."""
        return [*self.parts, *self.amounts]

    @property
    def conditional(self) -> np.ndarray:
        """Indices of the coordinates in `amounts`: of columns with atoms, unless all have atoms."""
        indices = {c.continuous for c in self.table.discrete if c.continuous is not None}
        return np.array(
            sorted(indices) if len(indices) < len(self.table.continuous) else [], dtype=np.intp
        )

    @property
    def common(self) -> np.ndarray:
        """Indices of the coordinates whose density is in `parts`."""
        return np.setdiff1d(np.arange(len(self.table.continuous)), self.conditional)

    def _recorded(self, values: np.ndarray) -> np.ndarray:
        """Return values (n, p) rounded to the units of their columns."""
        recorded = values.copy()
        for column in self.table.columns:
            if column.continuous is not None and self.table.continuous[column.continuous].unit:
                j = column.continuous
                recorded[:, j] = np.clip(column.lattice.rounded(values[:, j]), *column.extremes)
        return recorded

    # ------------------------------------------------------------------------------- coordinates

    def present(self, levels: np.ndarray) -> np.ndarray:
        """Return which coordinates (n, p) have a value at levels (n, q), or may have."""
        present = np.ones((len(levels), len(self.table.continuous)), dtype=bool)
        for k, each in enumerate(self.table.discrete):
            if each.continuous is not None:
                present[:, each.continuous] = levels[:, k] <= 0
        return present

    # ------------------------------------------------------------------------------- log-densities

    def log_density(
        self, rows: EncodedTable, tolerance: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities (n,) of rows, and their standard errors (n,), in nats.

        Integrals end at errors of about `tolerance` nats; None is the smallest one that is supported.
        """
        has_values = (~np.isnan(rows.values)).any(axis=1)
        result, error = np.empty(len(rows.levels)), np.zeros(len(rows.levels))
        plain = np.flatnonzero(~has_values)
        result[plain] = self.level_density.log_density(rows.levels[plain])
        (used,) = np.nonzero(has_values)
        if not len(used):
            return result, error
        source, levels, left = self._combinations(rows.take(used))
        log_masses, errors = self._log_masses(
            source, levels, rows.values[used], tolerance or _TOLERANCE, tolerance
        )
        result[used], posterior = _log_sums(log_masses, source, len(used))
        error[used] = np.bincount(source, posterior * np.nan_to_num(errors), len(used)) + left
        return result, error

    def _log_masses(
        self,
        source: np.ndarray,
        levels: np.ndarray,
        values: np.ndarray,
        of_sum: float,
        of_terms: float | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities (m,) of levels (m, q) and values (n, p) of rows `source`, and errors.

        Integrals are first computed roughly. The terms of a row with the largest errors, weighted by
        their posterior probabilities, are computed again with errors of about `of_terms`, so that the
        weighted errors of the other terms sum to at most `of_sum`.
        """
        log_masses, errors = self.level_density.log_density(levels), np.zeros(len(levels))
        has_several = np.bincount(source, minlength=len(values)) > 1
        is_rough = (has_several & np.isnan(values[:, self.common]).any(axis=1))[source]
        of_values = np.empty(len(levels))
        for own, rough in ((is_rough, _ROUGH), (~is_rough, of_terms)):
            of_values[own], errors[own] = self.log_density_given(
                levels[own], values[source[own]], rough
            )
        posterior = _log_sums(log_masses + of_values, source, len(values))[1]
        parts = np.where(is_rough, np.nan_to_num(posterior * errors), 0.0)
        totals = np.bincount(source, parts, len(values))
        order = np.lexsort((parts, source))
        sums = np.cumsum(parts[order]) - (np.cumsum(totals) - totals)[source[order]]
        again = order[(sums > of_sum) & (parts[order] > 0)]
        of_values[again], errors[again] = self.log_density_given(
            levels[again], values[source[again]], of_terms
        )
        return log_masses + of_values, errors

    def _combinations(self, rows: EncodedTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return combinations of the missing levels on which the distribution of values depends.

        Returned are the index (m,) of each combination's row, its levels (m, q), and for each row (n,)
        the error in nats from omitting its least probable combinations.
        """
        matter = self._that_matter()
        is_open = (rows.levels[:, matter] < 0).any(axis=1)
        source, levels = [np.flatnonzero(~is_open)], [rows.levels[~is_open]]
        left = np.zeros(len(rows.levels))
        for index in np.flatnonzero(is_open):
            own, left[index] = self._combinations_of(rows.levels[index], matter)
            source.append(np.full(len(own), index))
            levels.append(own)
        return np.concatenate(source), np.concatenate(levels), left

    def _combinations_of(self, levels: np.ndarray, matter: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the likeliest ways (m, q) to fill missing levels at `matter`, and -log of their mass.

        That mass is of the levels alone, and the values of a row can favour combinations that are
        omitted: see `TableDensity.score_samples` for what follows from it.
        """
        combinations, left = levels[None], 0.0
        for k in matter[levels[matter] < 0]:
            n = self.table.discrete[k].n_levels
            combinations = np.repeat(combinations, n, axis=0)
            combinations[:, k] = np.arange(len(combinations)) % n
            if len(combinations) > _MOST_COMBINATIONS:
                log_masses = self.level_density.log_density(combinations)
                order = np.argsort(-log_masses, kind="stable")
                total = logsumexp(log_masses)
                combinations = combinations[order[:_MOST_COMBINATIONS]]
                left += float(total - logsumexp(log_masses[order[:_MOST_COMBINATIONS]]))
        return combinations, left

    def _that_matter(self) -> np.ndarray:
        """Return the indices of the discrete coordinates on which the distribution of values depends."""
        used = {int(k) for part in self.all_parts for k in part.relevant}
        used |= {k for k, each in enumerate(self.table.discrete) if each.continuous is not None}
        return np.array(sorted(used), dtype=np.intp)

    def log_density_given(
        self, levels: np.ndarray, values: np.ndarray, tolerance: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities (n,) of values (n, p) given levels (n, q), and their errors (n,).

        Integrals over missing coordinates end at errors of `tolerance` nats; None is the smallest one.
        A row with a value in a column that is at an atom by its level has density zero.
        """
        result, error = np.zeros(len(levels)), np.zeros(len(levels))
        present, is_known = self.present(levels), ~np.isnan(values)
        result[(is_known & ~present).any(axis=1)] = -np.inf
        of_parts: dict[ContinuousPart, list[np.ndarray]] = {}
        for group in _groups(present, is_known & present):
            used = group.rows[result[group.rows] == 0]
            for part, observed in self._parts_of(group):
                if observed.any():
                    of_parts.setdefault(part, []).append(used)
            if group.observed[self.conditional].any():
                of_amounts, of_error = self._of_amounts(group, levels[used], values[used])
                result[used] += of_amounts
                error[used] = np.hypot(error[used], of_error)
        # Rows with the same levels have the same model, whichever coordinates are observed.
        for part, of_rows in of_parts.items():
            used = np.sort(np.concatenate(of_rows))
            of_part, of_error = self._of_part(part, levels[used], values[used], tolerance)
            result[used] += of_part
            error[used] = np.hypot(error[used], of_error)
        return result, error

    def _amounts_of(self, pattern: np.ndarray) -> list[AmountPart]:
        """Return the conditional densities of the amounts in `pattern` (p,)."""
        key = self.conditional[pattern[self.conditional]]
        together = [part for part in self.amounts if np.array_equal(part.columns, key)]
        return together or [
            part for part in self.amounts if len(part.columns) == 1 and part.columns[0] in key
        ]

    def _of_amounts(
        self, group: _Group, levels: np.ndarray, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities (n,) of amounts given the others, and their errors (n,).

        Missing ones among the other coordinates are drawn, and the density is averaged over the draws.
        """
        parts = [
            part for part in self._amounts_of(group.pattern) if group.observed[part.columns].any()
        ]
        if not parts:
            # No training row has a value that is no atom: the probability of level 0 is zero.
            return np.zeros(len(levels)), np.zeros(len(levels))
        needed = np.unique(np.concatenate([part.base for part in parts]).astype(np.intp))
        if group.observed[needed].all() or not len(levels):
            return self._log_amounts(parts, levels, values), np.zeros(len(levels))
        terms = self._log_amounts_at_draws(
            parts, levels, self._with_common(levels, values, _N_COMMON)
        )
        log_mean = logsumexp(terms, axis=0) - np.log(_N_COMMON)
        deviation = np.exp(terms - log_mean).std(axis=0, ddof=1)
        return log_mean, deviation / np.sqrt(_N_COMMON)

    def _log_amounts_at_draws(
        self, parts: list[AmountPart], levels: np.ndarray, drawn: np.ndarray
    ) -> np.ndarray:
        """Return log-densities (m, n) of amounts given levels (n, q), at draws (m, n, p)."""
        m, n, p = drawn.shape
        log_terms = self._log_amounts(parts, np.tile(levels, (m, 1)), drawn.reshape(-1, p))
        return log_terms.reshape(m, n)

    def _log_amounts(
        self, parts: list[AmountPart], levels: np.ndarray, values: np.ndarray
    ) -> np.ndarray:
        """Return log-densities (n,) of amounts given all others; NaN is integrated out."""
        result = np.zeros(len(levels))
        for part in parts:
            _, log_slopes = self.table.coordinates(values)
            low, high = mapped_ends(self.table, values, part.columns)
            exact = low == high
            result += np.where(exact, log_slopes[:, part.columns], 0.0).sum(axis=1)
            result += part.log_density(levels, mapped(self.table, values, part.base)[0], low, high)
        return result

    def _with_common(
        self,
        levels: np.ndarray,
        values: np.ndarray,
        m: int,
        rng: np.random.RandomState | None = None,
        *,
        for_means: bool = False,
    ) -> np.ndarray:
        """Return values (m, n, p), in which missing ones of columns without atoms are drawn m times.

        Without `rng` all rows have the same random numbers, so that no row depends on the others.
        """
        n, levels, values = len(levels), np.tile(levels, (m, 1)), np.tile(values, (m, 1))
        drawn = values.copy()
        drawn[:, self.conditional] = np.nan
        present = self.present(levels)
        z, _ = self.table.coordinates(drawn)
        for group in _groups(present, present & ~np.isnan(drawn)):
            for part, observed in self._parts_of(group):
                if observed.all():
                    continue
                rows = group.rows.reshape(m, -1)
                which = np.arange(rows.shape[1])
                if rng is None:
                    # One row of each condition, since equal rows together would get more proposals.
                    relevant = levels[rows[0]][:, part.relevant]
                    first, which = _distinct(relevant, drawn[rows[0]][:, part.columns])
                    rows = rows[:, first]
                taken = rows.ravel()
                own = self._draw_part(part, levels[taken], drawn[taken], m, rng, for_means)
                own = own.reshape(*rows.shape, -1)[:, which]
                z[np.ix_(group.rows, part.columns)] = own.reshape(len(group.rows), -1)
        missing = np.isnan(values) & present
        missing[:, self.conditional] = False
        values[missing] = self._recorded(self.table.values_at(z))[missing]
        return values.reshape(m, n, values.shape[1])

    def _draw_part(
        self,
        part: ContinuousPart,
        levels: np.ndarray,
        values: np.ndarray,
        m: int,
        rng: np.random.RandomState | None,
        for_means: bool,
    ) -> np.ndarray:
        """Return coordinates (k, p) of a part given levels (k, q) and values (k, p), m draws a row.

        The same coordinates are missing in all rows. Without `rng`, see `_with_common`.
        """
        first = int(part.columns[0])
        drawn = self._points_in_cells(part, levels, values, rng or CommonRandomState(m, (first, 0)))
        for index, same in tracked(list(_same_rows(levels[:, part.relevant]))):
            source = rng or CommonRandomState(m, (first, 1))
            drawn[same] = part.draw(levels[index], drawn[same], source, for_means=for_means)
        return drawn

    def part(self, key: tuple[int, ...]) -> ContinuousPart | None:
        """Return the joint density of the coordinates with indices `key`, or None if there is none."""
        own = [part for part in self.parts if tuple(part.columns) == key]
        return own[0] if own else None

    def _parts_of(self, group: _Group) -> list[tuple[ContinuousPart, np.ndarray]]:
        """Return the independent densities of a group of rows, and the observed coordinates of each."""
        key = tuple(int(k) for k in self.common[group.pattern[self.common]])
        part = self.part(key)
        parts = [self.part((k,)) for k in key] if part is None else [part]
        return [(each, group.observed[each.columns]) for each in parts if each is not None]

    def _of_part(
        self, part: ContinuousPart, levels: np.ndarray, values: np.ndarray, tolerance: float | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log-densities (n,) of the observed coordinates of a part, and their errors (n,)."""
        result, error = np.empty((2, len(levels)))
        again = np.arange(len(levels))
        for n_refined in range(3):
            large = [again[:0]]
            for each in self._at_points(part, levels[again], values[again], tolerance, n_refined):
                rows = again[each.rows]
                log_mean, error[rows], of_cells = averaged(each.log_density, each.error)
                columns = part.columns[each.observed]
                result[rows] = log_mean + log_widths(self.table, values[rows], columns)
                has_integrals = not each.observed.all() and part.is_integrated
                most = REFINED[1 if n_refined or has_integrals else 0]
                large.append(rows[of_cells > max(most, tolerance or 0.0)])
            again = np.sort(np.concatenate(large))
            if not len(again):
                break
        return result, error

    def _at_points(
        self,
        part: ContinuousPart,
        levels: np.ndarray,
        values: np.ndarray,
        tolerance: float | None,
        n_refined: int = 0,
    ) -> list[_AtPoints]:
        """Return log-densities at points of the cells of values (n, p), by set of observed columns."""
        known = ~np.isnan(values[:, part.columns])
        results = []
        for index, rows in _same_rows(known):
            are_few = tolerance is not None
            offsets = points_of(part, known[index], are_few=are_few, n_refined=n_refined)
            z, log_slopes = in_cells(self.table, values[rows], part.columns, offsets)
            results.append(_AtPoints(rows, known[index], z, log_slopes, np.empty_like(log_slopes)))
        for index, same in tracked(list(_same_rows(levels[:, part.relevant]))):
            chosen = [np.flatnonzero(np.isin(each.rows, same)) for each in results]
            pairs = [(each, own) for each, own in zip(results, chosen, strict=True) if len(own)]
            requests = [
                (each.observed, each.z[:, own].reshape(-1, each.z.shape[2])) for each, own in pairs
            ]
            of_requests = part.log_densities(levels[index], requests, tolerance)
            for (each, own), (log_density, error) in zip(pairs, of_requests, strict=True):
                each.log_density[:, own] += log_density.reshape(-1, len(own))
                each.error[:, own] = error.reshape(-1, len(own))
        return results

    def warn_of_support(self, rows: EncodedTable) -> None:
        """Warn if there are rows whose given levels are in no training row together."""
        distinct, counts = np.unique(rows.levels, axis=0, return_counts=True)
        lacking = [
            k
            for k, levels in enumerate(distinct)
            if (levels >= 0).any() and not self.level_density.has_row(levels)
        ]
        if lacking:
            (known,) = np.nonzero(distinct[lacking[0]] >= 0)
            example = {
                self.table.discrete[k].name: self.table.label_of(
                    int(k), int(distinct[lacking[0], k])
                )
                for k in known
            }
            warn_user(
                f"no training row has the given levels of {list(example)} together, such as {example} "
                f"({counts[lacking].sum()} of {len(rows)} conditions): draws and log-densities given "
                "them are extrapolated from rows with other levels. Give fewer columns, or other levels."
            )

    # ------------------------------------------------------------------------------- draws

    def draw_missing(
        self, rows: EncodedTable, rng: np.random.RandomState, *, for_means: bool = False
    ) -> EncodedTable:
        """Return rows whose missing levels and values are drawn given the others.

        With `for_means` draws for equal rows may be equal, which is faster.
        """
        levels = self.draw_levels(rows, rng)
        values, present = rows.values.copy(), self.present(levels)
        groups = list(_groups(present, present & ~np.isnan(values)))
        for group in groups:
            own = group.rows
            lacks = not group.observed[self.common][group.pattern[self.common]].all()
            if not lacks or not group.observed[self.conditional].any():
                continue
            # One of several draws is chosen, weighted by the density of the observed columns with atoms.
            index, filled = (
                np.arange(len(own)),
                self._with_common(levels[own], values[own], _N_COMMON, rng),
            )
            log_terms = self._log_amounts_at_draws(
                self._amounts_of(group.pattern), levels[own], filled
            )
            masses = np.exp(log_terms - log_terms.max(axis=0)).T
            values[own] = filled[choose_in_rows(masses, index, rng.uniform(size=len(own))), index]
        (values,) = self._with_common(levels, values, 1, rng, for_means=for_means)
        for group in groups:
            for part in self._amounts_of(group.pattern):
                if group.observed[part.columns].all():
                    continue
                own = group.rows
                x, _ = mapped(self.table, values[own], part.base)
                low, high = mapped_ends(self.table, values[own], part.columns)
                z = np.full_like(values[own], np.nan)
                z[:, part.columns] = part.draw(levels[own], x, low, high, rng)
                drawn = self._recorded(self.table.values_at(z))
                missing = np.isnan(values[own]) & ~np.isnan(z)
                values[own] = np.where(missing, drawn, values[own])
        return EncodedTable(levels, values, rows.index)

    def _points_in_cells(
        self,
        part: ContinuousPart,
        levels: np.ndarray,
        values: np.ndarray,
        rng: np.random.RandomState,
    ) -> np.ndarray:
        """Return coordinates (k, p) of random points, drawn by their density, in the cells of rows.

        Rows have levels (k, q) and values (k, p); the same values are missing in all rows, and are NaN.
        """
        first, which = _distinct(levels, values)
        uniform = rng.uniform(size=len(values))
        offsets = points_of(part, ~np.isnan(values[0, part.columns]), are_few=True)
        if len(offsets) == 1:
            return in_cells(self.table, values, part.columns, offsets)[0][0]
        (at,) = self._at_points(part, levels[first], values[first], _ROUGH)
        masses = np.exp(at.log_density - at.log_density.max(axis=0)).T
        return at.z[choose_in_rows(masses, which, uniform), which]

    def draw_levels(self, rows: EncodedTable, rng: np.random.RandomState) -> np.ndarray:
        """Return levels (n, q), the missing ones drawn given other levels and values."""
        levels, matter = rows.levels.copy(), self._that_matter()
        has_values = (~np.isnan(rows.values)).any(axis=1)
        is_open = (levels[:, matter] < 0).any(axis=1) & has_values
        (own,) = np.nonzero(is_open)
        if len(own):
            # Equal rows have the same combinations, which are computed once.
            first, which = _distinct(levels[own], rows.values[own])
            distinct = rows.take(own[first])
            source, combinations, _ = self._combinations(distinct)
            log_masses, _ = self._log_masses(
                source, combinations, distinct.values, _TOLERANCE_OF_DRAWS
            )
            uniform = rng.uniform(size=len(own))
            order = np.argsort(source, kind="stable")
            sizes = np.bincount(source, minlength=len(first))
            starts = np.cumsum(sizes) - sizes
            table = np.full((len(first), sizes.max()), -np.inf)
            position = np.arange(len(source)) - np.repeat(starts, sizes)
            table[source[order], position] = log_masses[order]
            table -= table.max(axis=1, keepdims=True)
            chosen = choose_in_rows(np.exp(table), which, uniform)
            levels[own] = combinations[order[starts[which] + chosen]]
        return self.level_density.draw(levels, rng)


def _groups(present: np.ndarray, observed: np.ndarray) -> Iterator[_Group]:
    """Yield groups of rows with the same present and observed coordinates, both (n, p)."""
    p = present.shape[1]
    for index, rows in _same_rows(np.column_stack([present, observed])):
        yield _Group(rows, present[index], observed[index, :p])


def _same_rows(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the index of the first row of each distinct row of labels (n, k), and all of its indices."""
    if not len(labels):
        return
    if not labels.shape[1]:
        yield 0, np.arange(len(labels))
        return
    _, first, which = np.unique(labels, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(which.ravel()))
    for index, rows in zip(first, np.split(order, ends[:-1]), strict=True):
        yield int(index), rows


def _distinct(levels: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of distinct rows of levels and values, and which of them each row equals."""
    # np.unique takes rows with NaN as different.
    missing = np.isnan(values)
    joined = np.column_stack([levels, missing, np.where(missing, 0.0, values)])
    _, first, which = np.unique(joined, axis=0, return_index=True, return_inverse=True)
    return first, which.ravel()


def _log_sums(log_terms: np.ndarray, source: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return log sums (n,) of the terms of each source, and each term's fraction (m,) of its sum."""
    highest = np.full(n, -np.inf)
    np.maximum.at(highest, source, log_terms)
    finite = np.where(np.isfinite(highest), highest, 0.0)
    terms = np.exp(log_terms - finite[source])
    sums = np.bincount(source, weights=terms, minlength=n)
    with np.errstate(divide="ignore"):
        return np.log(sums) + finite, terms / np.where(sums > 0, sums, 1.0)[source]
