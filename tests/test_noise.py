"""Tests of the noise range: its levels, its steps, and that levels do not depend on steps."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdiffsmooth.noise import NoiseLevels


@st.composite
def noise_levels(draw):
    bandwidth = 10 ** draw(st.floats(-9, 6))
    ratio = 10 ** draw(st.floats(1e-3, 9))
    return NoiseLevels(bandwidth, bandwidth * ratio, draw(st.integers(1, 40)))


@settings(deadline=None)
@given(levels=noise_levels(), steps_per_level=st.integers(1, 7))
def test_steps_are_contiguous_and_span_the_range(levels, steps_per_level):
    """To the last bit: each step starts where the one before ends, and together they span the range."""
    steps = levels.steps(steps_per_level)
    assert len(steps) == levels.n_levels * steps_per_level
    assert steps[0].start == levels.bandwidth
    assert steps[-1].end == levels.terminal_scale
    for before, after in itertools.pairwise(steps):
        assert before.end == after.start
    ratios = np.array([step.end / step.start for step in steps])
    assert np.all(ratios > 1)
    # Equal in log y, to the rounding of the scales.
    np.testing.assert_allclose(np.log(ratios), np.log(ratios).mean(), rtol=0, atol=1e-14)


@settings(deadline=None)
@given(levels=noise_levels(), steps_per_level=st.integers(1, 7))
def test_no_step_leaves_its_level(levels, steps_per_level):
    """Each level has its steps, in order, and they span it: bounds are bandwidth * ratio^(k / n)."""
    steps = levels.steps(steps_per_level)
    wanted = np.repeat(np.arange(levels.n_levels), steps_per_level).tolist()
    assert [step.level for step in steps] == wanted
    log_ratio = math.log(levels.terminal_scale / levels.bandwidth)
    bounds = levels.bandwidth * np.exp(log_ratio * np.arange(levels.n_levels + 1) / levels.n_levels)
    for step in steps:
        # Rounding of powers: 1e-13 of the scale.
        assert step.start >= bounds[step.level] * (1 - 1e-13)
        assert step.end <= bounds[step.level + 1] * (1 + 1e-13)
        assert levels.level_of(math.sqrt(step.start * step.end)) == step.level
        # Ends belong to either neighbour, by rounding.
        assert levels.level_of(step.start * (1 + 1e-9)) == step.level
        assert levels.level_of(step.end * (1 - 1e-9)) == step.level


@settings(deadline=None)
@given(levels=noise_levels(), refinement=st.integers(2, 6))
def test_refining_the_steps_keeps_the_levels(levels, refinement):
    """The ends of coarse steps are ends of fine steps, in the same levels."""
    coarse, fine = levels.steps(1), levels.steps(refinement)
    for k, step in enumerate(coarse):
        group = fine[k * refinement : (k + 1) * refinement]
        assert {part.level for part in group} == {step.level}
        assert group[0].start == pytest.approx(step.start, rel=1e-13)
        assert group[-1].end == pytest.approx(step.end, rel=1e-13)


@settings(deadline=None)
@given(levels=noise_levels(), log_scale=st.floats(-20, 20))
def test_level_of_any_scale(levels, log_scale):
    level = levels.level_of(10**log_scale)
    assert 0 <= level < levels.n_levels
    if 10**log_scale <= levels.bandwidth:
        assert level == 0
    if 10**log_scale >= levels.terminal_scale:
        assert level == levels.n_levels - 1


@settings(deadline=None)
@given(levels=noise_levels(), fraction=st.floats(0, 1), other=st.floats(0, 1))
def test_level_grows_with_the_scale(levels, fraction, other):
    low, high = (
        levels.bandwidth * (levels.terminal_scale / levels.bandwidth) ** s
        for s in sorted([fraction, other])
    )
    assert levels.level_of(low) <= levels.level_of(high)


def test_levels_by_hand():
    levels = NoiseLevels(0.01, 100.0, 4)
    assert [levels.level_of(scale) for scale in (0.02, 0.2, 2.0, 20.0)] == [0, 1, 2, 3]
    steps = levels.steps(2)
    np.testing.assert_allclose([s.start for s in steps], 0.01 * 10 ** (np.arange(8) / 2))
    assert [step.level for step in steps] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_an_empty_range_has_no_steps():
    levels = NoiseLevels(0.3, 0.3, 8)
    assert list(levels.steps(4)) == []
    assert [levels.level_of(scale) for scale in (0.1, 0.3, 5.0)] == [0, 0, 0]


def test_reversed_steps():
    steps = NoiseLevels(0.1, 10.0, 3).steps(2)
    down = [step.reversed() for step in reversed(steps)]
    assert down[0].start == 10.0
    assert down[-1].end == 0.1
    assert all(a.end == b.start for a, b in itertools.pairwise(down))
    assert [step.level for step in down] == [2, 2, 1, 1, 0, 0]
    assert all(step.end < step.start for step in down)
