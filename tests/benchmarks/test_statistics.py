"""Intervals and tests against analysis of variance, SciPy, theory, and simulations whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.results.equivalents import equivalent, fitted, kept_share
from benchmarks.results.pools import member_effects, shared_members
from benchmarks.statistics import Means, holm, independent
from tests.support.coverage_world import REPETITIONS, WORLDS, coverage

values = st.lists(st.floats(-100, 100), min_size=2, max_size=10)


# ----------------------------------------------------------------------------------------------------- coverage


@pytest.fixture(scope="module")
def covered():
    suites = 150
    return suites, coverage(WORLDS["students that hear a little"], suites)


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say(covered):
    # The larger table is in docs/statistics.md, and tests/support/coverage_world.py prints it.
    suites, found = covered
    assert {repetitions for *_, repetitions in found} == set(REPETITIONS)
    for (what, shared, repetitions), share in found.items():
        where = (what, "shared" if shared else "own", repetitions, share)
        # Between 93 and 97 %, to 98.5 % with two repetitions or one pool, as far as so many simulations can tell.
        assert stats.binom.cdf(round(share * suites), suites, 0.93) > 1e-3, where
        most = 0.985 if shared or repetitions == 2 else 0.97
        assert stats.binom.sf(round(share * suites) - 1, suites, most) > 1e-3, where
    for shared in (False, True):
        assert 0.94 < np.mean([share for key, share in found.items() if key[1] == shared]) < 0.98


@pytest.mark.parametrize("repetitions", [2, 3, 5])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8, 0.95, 1.0])
def test_the_quantiles_of_two_parts_never_cover_much_too_little(repetitions, share):
    # Repetitions bring the share of the variance, examples the rest, which is known well.
    rng = np.random.default_rng(0)
    n = 20_000
    found = Means(np.zeros((1, repetitions, 2000)))
    parts = np.stack([share * rng.chisquare(repetitions - 1, n) / (repetitions - 1), np.full(n, 1 - share)], 1)
    halves = found.half_widths(np.pad(parts, ((0, 0), (0, 1))))
    inside = np.mean(np.abs(rng.normal(size=n)) <= halves)
    assert 0.935 < inside < 0.982 if repetitions == 2 else 0.945 < inside < 0.975


# -------------------------------------------------------------------------------------------- means and their parts


@given(values=values)
@settings(max_examples=30, deadline=None)
def test_independent_values_have_scipys_interval_and_test(values):
    got = independent(np.array(values))
    assert got.value == pytest.approx(np.mean(values))
    error = stats.sem(values)
    if error > 1e-6:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=error)
        assert (got.low, got.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)
        assert got.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6, abs=1e-12)


def test_one_repetition_has_no_interval():
    for got in (independent(np.array([0.3])), Means(np.full((1, 1, 50), 0.3)).test()):
        assert got.value == pytest.approx(0.3)
        assert math.isnan(got.low)
        assert math.isnan(got.high)
        assert math.isnan(got.p_value)
    gaps = Means(np.random.default_rng(0).normal(size=(3, 1, 50)) + np.array([-0.2, 0.1, 0.2])[:, None, None])
    for dee in (equivalent(gaps, [1, 2, 4]), fitted(gaps, [1, 2, 4])):
        assert math.isnan(dee.low)
        assert math.isnan(dee.high)
        assert not math.isnan(dee.value)


def test_the_parts_are_those_of_the_analysis_of_variance():
    rng = np.random.default_rng(1)
    r, n = 4, 30
    scores = rng.normal(size=(r, 1)) + 2 * rng.normal(size=n) + rng.normal(size=(r, n))
    rows, columns, mean = scores.mean(1), scores.mean(0), scores.mean()
    ms_rows = n * rows.var(ddof=1)
    ms_columns = r * columns.var(ddof=1)
    ms_rest = np.square(scores - rows[:, None] - columns + mean).sum() / ((r - 1) * (n - 1))
    [(repetitions, examples, members)] = Means(scores[None]).variances(np.ones((1, 1)))
    assert repetitions == pytest.approx(ms_rows / (r * n))
    assert examples == pytest.approx((ms_columns - ms_rest) / (r * n))
    assert members == 0
    # And without bias: the mean over many data sets is the variance of the mean.
    many = [rng.normal(size=(r, 1)) + 2 * rng.normal(size=n) + rng.normal(size=(r, n)) for _ in range(1500)]
    parts = np.mean([Means(each[None]).variances(np.ones((1, 1)))[0] for each in many], 0)
    assert parts[:2].tolist() == pytest.approx([(1 + 1 / n) / r, 4 / n], rel=0.05)
    assert np.var([each.mean() for each in many]) == pytest.approx(parts.sum(), rel=0.08)


def test_combinations_of_means_are_means_of_combinations():
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(3, 4, 25)) + rng.normal(size=(3, 1, 25)) + rng.normal(size=(3, 4, 1))
    weights = np.array([1.0, -0.25, -0.75])
    combined = Means(np.einsum("k,krn->rn", weights, scores)[None]).test()
    got = Means(scores).test(weights)
    assert vars(got) == pytest.approx(vars(combined))


def test_a_clear_difference_is_found_and_signed():
    rng = np.random.default_rng(0)
    reference = rng.exponential(1, size=(4, 50))  # examples differ by far more than the methods do: pairing removes it
    better = reference - 0.1 + 0.01 * rng.normal(size=(4, 50))
    got, turned = (Means(gap[None]).test() for gap in (better - reference, reference - better))
    assert got.low < got.value < got.high < 0
    assert got.value == pytest.approx(-0.1, abs=0.005)
    assert got.p_value < 1e-4  # nothing stops it at a number of draws
    assert (turned.value, turned.low, turned.high) == pytest.approx((-got.value, -got.high, -got.low))
    assert turned.p_value == pytest.approx(got.p_value)


@given(seed=st.integers(0, 10_000), shift=st.floats(-2, 2))
@settings(max_examples=40, deadline=None)
def test_the_p_value_is_small_just_where_the_interval_leaves_out_zero(seed, shift):
    rng = np.random.default_rng(seed)
    got = Means((shift + rng.normal(size=(3, 1)) + rng.normal(size=(3, 20)) + rng.normal(size=20))[None]).test()
    assert (got.p_value < 0.05) == (not got.low <= 0 <= got.high)


def test_p_values_of_no_difference_are_uniform_where_repetitions_alone_vary():
    rng = np.random.default_rng(5)
    p = [Means(rng.normal(size=(1, 3, 1)) + np.zeros((1, 3, 20))).test().p_value for _ in range(800)]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


# --------------------------------------------------------------------------------------------------- shared members


def test_member_effects_are_covariances_without_what_these_examples_add():
    rng = np.random.default_rng(0)
    p, n = 6, 15
    found = []
    for _ in range(1500):
        skill = rng.normal(size=(p, 1))
        alone = skill + 2 * rng.normal(size=(p, n)) + rng.normal(size=n)
        others = -0.5 * skill + rng.normal(size=(p, n))
        found.append(member_effects(alone, others).covariance)
    np.testing.assert_allclose(np.mean(found, 0), [[1, -0.5], [-0.5, 0.25]], atol=0.08)
    assert member_effects(alone, others).members == p


def linear_pool(rng, p):
    """Scores that are means of their members' scores, to first order all that there is."""
    skill = rng.normal(size=p)
    others = (skill.sum() - skill) / (p - 1)
    return skill, member_effects(skill[:, None] + np.zeros((p, 2)), others[:, None] + np.zeros((p, 2)))


def test_shared_members_give_the_covariance_of_overlapping_means():
    rng, p = np.random.default_rng(0), 8
    sets = [(0, 1, 2), (3, 1, 4), (5, 6, 0)]  # overlaps of 1, 1 and 0 members
    found = np.mean([shared_members([sets], [True], linear_pool(rng, p)[1]).variances[0, 0, 0] for _ in range(1000)])
    assert found == pytest.approx((1 + 1 + 0) / 3 / 9, rel=0.07)
    # The whole variance of the mean, from what one suite shows.
    truth, estimate = [], []
    for _ in range(2000):
        skill, effects = linear_pool(rng, p)
        scores = np.array([[skill[list(members)].mean()] for members in sets])
        means = Means(scores[None], shared_members([sets], [True], effects))
        truth.append(means.mean[0])
        estimate.append(means.variances(np.ones((1, 1))).sum())
    assert np.mean(estimate) == pytest.approx(np.var(truth), rel=0.1)


def test_a_pool_that_all_repetitions_use_whole_has_the_jackknifes_variance():
    skill, effects = linear_pool(np.random.default_rng(1), 5)
    everyone = [tuple(range(5))] * 3
    got = Means(np.full((1, 3, 1), skill.mean()), shared_members([everyone], [True], effects)).test()
    expected = stats.t.interval(0.95, 4, loc=skill.mean(), scale=stats.sem(skill))
    assert (got.low, got.high) == pytest.approx(expected)


def test_what_a_student_takes_from_its_teachers_is_bounded():
    # Against the ensemble of its own teachers: all of the ensemble's dependence if it takes nothing, else less.
    _, effects = linear_pool(np.random.default_rng(3), 6)
    sets = [(0, 1, 2), (0, 3, 4)]
    alone = shared_members([sets], [True], effects).variances[0, 0, 0]
    minus = np.array([[1.0, -1.0]])
    difference = shared_members([sets, sets], [False, True], effects).of(minus)
    assert difference.variances.max() == pytest.approx(alone)
    assert difference.variances.min() == pytest.approx(0, abs=1e-15)
    ensembles = shared_members([sets, sets], [True, True], effects).of(minus)
    assert ensembles.variances.tolist() == [[[pytest.approx(0, abs=1e-15)]]]


# ----------------------------------------------------------------------------------------------------------- Holm


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.5, 0.9])).tolist() == [1, 1]
    got = holm(np.array([math.nan, 0.02, 0.5]))
    assert math.isnan(got[0])
    assert got[1:].tolist() == pytest.approx([0.04, 0.5])
    assert holm(np.array([])).tolist() == []


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_holm_rejects_step_by_step(p):
    rejected, left = set(), len(p)
    for i in sorted(range(len(p)), key=p.__getitem__):
        if p[i] * left > 0.05:
            break
        rejected.add(i)
        left -= 1
    assert {i for i, corrected in enumerate(holm(np.array(p))) if corrected <= 0.05} == rejected


# ----------------------------------------------------------------------------------------------------------- DEE

SIZES = [1, 2, 3, 5]


def ensemble_scores(seed=0, repetitions=4, examples=50, noise=0.0):
    """NLLs that fall with the size in every example: bases that differ, less a share for each size."""
    rng = np.random.default_rng(seed)
    base = rng.exponential(1, size=(repetitions, examples)) + 0.5
    curve = np.stack([base * (0.5 + 0.5 / size) for size in SIZES])
    return curve + noise * rng.normal(size=(len(SIZES), repetitions, 1))


def test_dee_of_an_ensemble_of_the_suite_is_its_size():
    curve = ensemble_scores()
    for size, nll in zip(SIZES, curve, strict=True):
        assert equivalent(Means(nll - curve), SIZES).value == pytest.approx(size)
        assert fitted(Means(nll - curve), SIZES).value == pytest.approx(size)


def test_dee_between_two_sizes_with_its_interval():
    curve = ensemble_scores()
    method = (curve[2] + curve[3]) / 2
    got = equivalent(Means(method - curve), SIZES)  # half way in every example, so the test leaves nothing else
    assert (got.value, got.low, got.high) == pytest.approx((4, 4, 4), abs=0.01)
    rng = np.random.default_rng(1)
    got = equivalent(Means((curve[1] + curve[2]) / 2 + 0.1 * rng.normal(size=method.shape) - curve), SIZES)
    assert got.low < got.value < got.high


@pytest.mark.parametrize("seed", range(6))
def test_the_interval_of_dee_agrees_with_the_tests_against_single_ensembles(seed):
    curve = ensemble_scores(seed, repetitions=3, noise=0.02)
    rng = np.random.default_rng(100 + seed)
    method = curve[1 + seed % 3] - 0.03 + 0.02 * rng.normal(size=(3, 1)) + 0.2 * rng.normal(size=(3, 50))
    gaps = Means(method - curve)
    got = equivalent(gaps, SIZES)
    for size, gap in zip(SIZES, method - curve, strict=True):
        inside = got.low <= size <= got.high
        assert inside == (Means(gap[None]).test().p_value >= 0.05) or size in (1, 5)
    # Just outside the ends, the interpolated curve is told from the method; just inside, it is not.
    for end, side in ((got.low, -1), (got.high, 1)):
        if np.isfinite(end):
            for step, told in ((side * 0.02, True), (-side * 0.02, False)):
                point = np.interp(end + step, SIZES, range(4))
                weights = np.maximum(0, 1 - np.abs(point - np.arange(4)))
                p = Means(np.einsum("k,krn->rn", weights, method - curve)[None]).test().p_value
                assert (p < 0.05) == told


def test_the_interval_of_dee_carries_the_uncertainty_of_the_curve():
    # A method whose NLL is known exactly; the noisier the curve, the wider.
    widths = []
    for noise in (0.001, 0.01):
        rng = np.random.default_rng(0)
        curve = np.array([0.9, 0.7, 0.6, 0.5])[:, None, None] + noise * rng.normal(size=(4, 4, 1)) + np.zeros(50)
        got = equivalent(Means(0.65 - curve), SIZES)
        widths.append(got.high - got.low)
        assert got.low < 2.5 < got.high
    assert widths[1] > 5 * widths[0]


def test_dee_outside_the_curve_is_censored():
    curve = ensemble_scores()
    worse, better = equivalent(Means(1.5 * curve[0] - curve), SIZES), equivalent(Means(0.1 * curve[3] - curve), SIZES)
    assert (worse.value, worse.low, worse.high) == (-np.inf, -np.inf, -np.inf)
    assert (better.value, better.low, better.high) == (np.inf, np.inf, np.inf)
    # What cannot be told from an end may lie beyond it.
    rng = np.random.default_rng(0)
    for at, value in ((0, "low"), (3, "high")):
        noisy = curve[at] + 0.1 * rng.normal(size=(4, 1))
        assert math.isinf(getattr(equivalent(Means(noisy - curve), SIZES), value))


def test_the_fitted_equivalent_goes_on_beyond_the_curve():
    m = np.array(SIZES)
    rng = np.random.default_rng(0)
    example = 0.3 * rng.normal(size=(1, 1, 200))
    curve = (0.2 + 0.4 / m)[:, None, None] + example + 0.001 * rng.normal(size=(4, 3, 1))
    for size in (0.5, 2, 12):
        method = 0.2 + 0.4 / size + example[0] + 0.0005 * np.array([[-1], [0], [1]])
        got = fitted(Means(method - curve), SIZES)
        assert got.low < got.value < got.high < np.inf
        assert got.value == pytest.approx(size, rel=0.2)
        assert got.low < size < got.high
    below = fitted(Means(0.1 + example[0] + 0.0005 * np.array([[-1], [0], [1]]) - curve), SIZES)
    assert (below.value, below.low, below.high) == (np.inf, np.inf, np.inf)  # clearly below the asymptote
    near = fitted(Means(0.201 + example[0] + 0.004 * np.array([[-1], [0], [1]]) - curve), SIZES)
    assert near.high == np.inf
    assert 5 < near.low < np.inf
    assert math.isnan(fitted(Means(curve[:2] * 0), [1, 2]).value)


def test_the_fitted_interval_is_the_set_that_the_test_accepts():
    m = np.array(SIZES)
    rng = np.random.default_rng(4)
    curve = (0.2 + 0.4 / m)[:, None, None] + 0.02 * rng.normal(size=(4, 3, 40))
    method = 0.25 + 0.02 * rng.normal(size=(3, 40)) + 0.005 * rng.normal(size=(3, 1))
    got = fitted(Means(method - curve), SIZES)
    design = np.stack([np.ones(4), 1 / m], 1) * m[:, None]
    a, b = np.linalg.solve(design.T @ design, np.einsum("kj,k,krn->jrn", design, m, curve).reshape(2, -1)).reshape(
        2, 3, 40
    )
    for end, outside in ((got.low, 0.97), (got.high, 1.03)):
        for factor, told in ((outside, True), (1 / outside, False)):
            p = Means((method - a - b / (end * factor))[None]).test().p_value
            assert (p < 0.05) == told


# ----------------------------------------------------------------------------------------------- share of a gain kept


def references_and_method(gain, share, noise, repetitions=5, n=300, seed=0):
    """Scores minus those of both references, [2, R, N]: as the first at 0, as the second at 1."""
    rng = np.random.default_rng(seed)
    first, second, mine = (at + noise * rng.normal(size=(repetitions, n)) for at in (0.0, -gain, -share * gain))
    return Means(np.stack([mine - first, mine - second]))


@pytest.mark.parametrize("share", [-0.5, 0.0, 0.6, 1.0, 1.4])
def test_a_share_that_is_kept_is_found_and_covered(share):
    found = [kept_share(references_and_method(0.2, share, 0.2, seed=seed)) for seed in range(60)]
    assert np.mean([one.value for one in found]) == pytest.approx(share, abs=0.03)
    covered = sum(one.low <= share <= one.high for one in found)
    assert stats.binom.cdf(covered, len(found), 0.95) > 1e-3
    assert np.median([one.high - one.low for one in found]) < 0.35


def test_the_share_of_an_uncertain_gain_has_no_end():
    found = kept_share(references_and_method(0.001, 0.5, 1.0))
    assert math.isinf(found.low) or math.isinf(found.high)
    assert math.isnan(kept_share(Means(np.zeros((2, 3, 9)))).value)  # there is no gain
    alone = kept_share(references_and_method(0.2, 0.5, 0.02, repetitions=1))
    assert alone.value == pytest.approx(0.5, abs=0.05)
    assert math.isnan(alone.low)


def test_an_end_of_the_share_is_where_the_test_is_undecided():
    means = references_and_method(0.2, 0.6, 0.2)
    found = kept_share(means)
    for end in (found.low, found.high):
        assert means.test(np.array([1 - end, end])).p_value == pytest.approx(0.05, abs=0.01)
