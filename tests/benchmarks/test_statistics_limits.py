"""Differences that Student's t misreads: not finite, without spread, of accuracies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.results.equivalents import equivalent
from benchmarks.statistics import Means, holm, independent, paired


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
def test_a_difference_that_is_not_finite_has_no_p_value(odd):
    gaps = np.random.default_rng(0).normal(size=(1, 3, 50))
    gaps[0, 0, 0] = odd
    for got in (Means(gaps).test(), Means(np.full((1, 3, 50), odd)).test(), independent(gaps[0, 0])):
        assert math.isnan(got.p_value)
        assert math.isnan(got.low)
        assert math.isnan(got.high)
    assert holm(np.array([Means(gaps).test().p_value, 0.03, 0.01])).tolist()[1:] == pytest.approx([0.03, 0.02])


@pytest.mark.parametrize("repetitions", [2, 5, 6, 12])
def test_repetitions_that_agree_exactly_have_the_p_value_of_a_sign_test(repetitions):
    for got in (Means(np.full((1, repetitions, 7), 0.1)).test(), independent(np.full(repetitions, 0.1))):
        assert got.p_value == stats.binomtest(0, repetitions).pvalue
        assert math.isnan(got.low) == math.isnan(got.high) == (got.p_value > 0.05)
        assert math.isnan(got.low) or got.low <= got.value <= got.high
    # A mean has its interval all the same: it is no test of anything.
    mean = Means(np.full((1, repetitions, 1), 16.0)).interval()
    assert (mean.low, mean.value, mean.high) == (16, 16, 16)


def test_an_equivalent_without_spread_in_two_repetitions_has_no_end():
    curve = np.array([-0.2, 0.0, 0.1])[:, None, None] + np.zeros((3, 2, 4))
    dee = equivalent(Means(curve), [1, 2, 4])
    assert (dee.value, dee.low, dee.high) == (2, -math.inf, math.inf)


@pytest.mark.parametrize(("better", "worse", "equal"), [(5, 0, 0), (4, 0, 1), (9, 1, 3), (6, 5, 200), (300, 240, 4000)])
def test_accuracies_of_one_repetition_are_compared_by_the_exact_sign_test(better, worse, equal):
    gaps = np.repeat([1.0, -1.0, 0.0], [better, worse, equal])
    got, turned, student = paired(gaps), paired(-gaps), independent(gaps)
    exact = stats.binomtest(better, better + worse).pvalue
    assert got.p_value == pytest.approx(max(exact, student.p_value))
    assert (got.p_value <= 0.05) == (not got.low <= 0 <= got.high)
    assert got.low < got.value <= got.high <= 1
    assert (turned.value, turned.low, turned.high) == pytest.approx((-got.value, -got.high, -got.low))
    assert turned.p_value == pytest.approx(got.p_value)
