"""Intervals and paired bootstraps against SciPy, theory and cases with a known answer."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.statistics import DeeCurve, PairedBootstrap, mean_interval

values = st.lists(st.floats(-100, 100), min_size=2, max_size=10)


def bootstrap(repetitions=4, examples=50, draws=1000, seed=0):
    return PairedBootstrap(repetitions, examples, draws, np.random.default_rng(seed))


# ----------------------------------------------------------------------------------------------------- intervals


@given(values=values)
@settings(max_examples=30, deadline=None)
def test_mean_interval_equals_scipys(values):
    got = mean_interval(np.array(values))
    assert got.value == pytest.approx(np.mean(values))
    error = stats.sem(values)
    if error > 0:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
        assert (got.low, got.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
    else:
        assert (got.low, got.high) == pytest.approx((got.value, got.value))


def test_one_repetition_has_no_interval():
    got = mean_interval(np.array([0.3]))
    assert got.value == 0.3
    assert math.isnan(got.low)
    assert math.isnan(got.high)


def test_mean_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [mean_interval(row) for row in rng.normal(3, 2, size=(2000, 4))]
    covered = sum(i.low <= 3 <= i.high for i in intervals)
    assert stats.binomtest(covered, 2000, 0.95).pvalue > 1e-3


def test_percentile_interval_by_hand():
    replicates = np.arange(1, 1001, dtype=float)
    got = PairedBootstrap.interval(7.0, np.random.default_rng(0).permutation(replicates))
    assert got.value == 7
    assert got.low in (25, 26)  # order statistics themselves, whichever side of 2.5 % they lie
    assert got.high in (975, 976)


def test_percentile_interval_keeps_censored_replicates():
    replicates = np.array([-np.inf] * 30 + [2.0] * 940 + [np.inf] * 30)
    got = PairedBootstrap.interval(2.0, replicates)
    assert (got.low, got.high) == (-np.inf, np.inf)
    got = PairedBootstrap.interval(2.0, np.array([-np.inf] * 10 + [2.0] * 980 + [np.inf] * 10))
    assert (got.low, got.high) == (2.0, 2.0)


# ----------------------------------------------------------------------------------------------------- bootstrap


def test_bootstrap_means_have_the_mean_and_variance_of_the_theory():
    # Scores a_r + b_n: repetitions and examples are resampled apart, so their variances of the mean add.
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 6), rng.exponential(2, 80)
    means = bootstrap(6, 80, 20_000).means(a[:, None] + b)
    assert means.shape == (20_000,)
    variance = a.var() / 6 + b.var() / 80
    assert means.mean() == pytest.approx(a.mean() + b.mean(), abs=5 * math.sqrt(variance / 20_000))
    assert means.var() == pytest.approx(variance, rel=0.05)
    only_examples = bootstrap(1, 80, 20_000).means(b[None])
    assert only_examples.var() == pytest.approx(b.var() / 80, rel=0.05)


def test_bootstrap_means_equal_explicit_resampling():
    # A score that marks one repetition and one example shows the weight of that pair, a product of two counts.
    pairs = bootstrap(3, 5, 200)
    weights = np.zeros((200, 3, 5))
    for r in range(3):
        for n in range(5):
            marked = np.zeros((3, 5))
            marked[r, n] = 1
            weights[:, r, n] = pairs.means(marked)
    np.testing.assert_allclose(weights.sum((1, 2)), 1)
    for side, count in ((weights.sum(2), 3), (weights.sum(1), 5)):
        counts = side * count
        np.testing.assert_allclose(counts, counts.round(), atol=1e-9)  # whole numbers of draws
    np.testing.assert_allclose(weights, weights.sum(2)[:, :, None] * weights.sum(1)[:, None, :], atol=1e-12)
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(3, 5))
    np.testing.assert_allclose(pairs.means(scores), (weights * scores).sum((1, 2)))


def test_bootstrap_repeats_with_its_seed():
    scores = np.random.default_rng(0).normal(size=(4, 50))
    assert np.array_equal(bootstrap(seed=3).means(scores), bootstrap(seed=3).means(scores))
    assert not np.array_equal(bootstrap(seed=3).means(scores), bootstrap(seed=4).means(scores))


def test_identical_methods_do_not_differ():
    scores = np.random.default_rng(0).normal(size=(4, 50))
    interval, p = bootstrap().difference(scores, scores)
    assert (interval.value, interval.low, interval.high) == (0, 0, 0)
    assert p == 1


def test_a_clear_difference_is_found_and_signed():
    rng = np.random.default_rng(0)
    reference = rng.exponential(1, size=(4, 50))  # examples differ by far more than the methods do: pairing removes it
    better = reference - 0.1 + 0.01 * rng.normal(size=(4, 50))
    interval, p = bootstrap().difference(better, reference)
    assert interval.low < interval.value < interval.high < 0
    assert interval.value == pytest.approx(-0.1, abs=0.005)
    assert p == pytest.approx(2 / 1001)  # the smallest that 1000 draws can show
    turned, same_p = bootstrap().difference(reference, better)
    assert (turned.value, turned.low, turned.high) == pytest.approx(
        (-interval.value, -interval.high, -interval.low), rel=0.05
    )
    assert same_p == p


def test_p_values_of_no_difference_are_seldom_small():
    rng = np.random.default_rng(5)
    p_values = []
    for seed in range(150):
        noise = rng.normal(size=(1, 200))
        p_values.append(bootstrap(1, 200, 400, seed).difference(noise, np.zeros((1, 200)))[1])
    rejected = sum(p <= 0.05 for p in p_values)
    assert stats.binomtest(rejected, 150, 0.05).pvalue > 1e-3
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.1)


# ----------------------------------------------------------------------------------------------------------- DEE


def ensemble_scores(seed=0, repetitions=4, examples=50):
    """NLLs that fall with the size in every example: bases that differ, less a share for each size."""
    rng = np.random.default_rng(seed)
    base = rng.exponential(1, size=(repetitions, examples)) + 0.5
    return {size: base * (0.5 + 0.5 / size) for size in (1, 2, 3, 5)}


def test_dee_of_an_ensemble_of_the_suite_is_its_size():
    scores = ensemble_scores()
    curve = DeeCurve(scores, bootstrap())
    for size, nll in scores.items():
        got = curve.equivalent(nll)
        assert (got.value, got.low, got.high) == pytest.approx((size, size, size), abs=1e-9)


def test_dee_between_two_sizes_with_its_interval():
    scores = ensemble_scores()
    curve = DeeCurve(scores, bootstrap())
    got = curve.equivalent((scores[3] + scores[5]) / 2)  # half way in every example, so in every replicate
    assert (got.value, got.low, got.high) == pytest.approx((4, 4, 4), abs=1e-9)
    rng = np.random.default_rng(1)
    got = curve.equivalent((scores[2] + scores[3]) / 2 + 0.1 * rng.normal(size=scores[2].shape))
    assert got.low < got.value < got.high


def test_dee_outside_the_curve_is_censored():
    scores = ensemble_scores()
    curve = DeeCurve(scores, bootstrap())
    worse, better = curve.equivalent(scores[1] + 1), curve.equivalent(0.1 * scores[5])
    assert (worse.value, worse.low, worse.high) == (-np.inf, -np.inf, -np.inf)
    assert (better.value, better.low, better.high) == (np.inf, np.inf, np.inf)


def test_dee_curve_does_not_depend_on_the_order_of_its_sizes():
    scores = ensemble_scores()
    method = (scores[1] + scores[2]) / 2
    turned = dict(reversed(scores.items()))
    assert DeeCurve(turned, bootstrap()).sizes == [1, 2, 3, 5]
    assert DeeCurve(turned, bootstrap()).equivalent(method) == DeeCurve(scores, bootstrap()).equivalent(method)


def test_sharing_the_draws_narrows_the_interval_of_dee():
    # A method that shares the examples of the ensembles: what makes an example hard cancels in its DEE.
    scores = ensemble_scores(examples=20)
    paired = DeeCurve(scores, bootstrap(examples=20))
    method = scores[2] * 0.95
    got = paired.equivalent(method)
    other = bootstrap(examples=20, seed=9).means(method)
    assert got.low > 2
    assert got.high < 3
    assert np.quantile(other, 0.975) - np.quantile(other, 0.025) > 0.2  # though the NLL itself is uncertain
