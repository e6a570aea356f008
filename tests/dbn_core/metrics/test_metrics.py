"""Metrics against netcal, torchmetrics, scikit-learn, loops and published curves."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from netcal.metrics import ECE
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, log_loss

from dbn_core.metrics.calibration import (
    calibration_error_terms,
    expected_calibration_error,
    fit_temperature,
    reliability,
    search_temperature,
)
from dbn_core.metrics.dee import deep_ensemble_equivalent, fit_weights, fitted_equivalent, monotone_curve
from dbn_core.metrics.scores import (
    LOG_FLOOR,
    brier,
    correct,
    floored,
    kl_divergence,
    mixture_log_probs,
    negative_log_likelihood,
)

seeds = st.integers(0, 2**32 - 1)


def predictions(seed, examples=300, classes=5, sharpness=2.0):
    rng = np.random.default_rng(seed)
    log_probs = log_softmax(sharpness * rng.normal(size=(examples, classes)), axis=1)
    labels = np.where(rng.random(examples) < 0.5, log_probs.argmax(1), rng.integers(0, classes, examples))
    return log_probs, labels


# -------------------------------------------------------------------------------------------------------- scores


def test_scores_equal_scikit_learn_in_float64_and_leave_their_input_alone():
    log_probs, labels = predictions(0, 60)
    single = log_probs.astype(np.float32)
    copy = single.copy()
    for function, expected in ((negative_log_likelihood, log_loss), (correct, accuracy_score)):
        found = function(single, labels)
        given = np.exp(single) if expected is log_loss else single.argmax(1)
        assert found.mean() == pytest.approx(expected(labels, given), rel=1e-5)
        assert found.dtype == np.float64
    assert np.array_equal(single, copy)
    for bad in (log_probs[0], log_probs[None]):
        with pytest.raises(ValueError, match="expected log-probabilities"):
            negative_log_likelihood(bad, labels)
    with pytest.raises(ValueError, match="expected log-probabilities"):
        brier(log_probs, labels[:-1])


def test_mixture_survives_extreme_log_probabilities():
    terms = np.array([[[0.0, -1e4, -1e4]], [[-1e4, 0.0, -2e4]]])
    got = mixture_log_probs(terms)[0]
    assert got[:2] == pytest.approx([math.log(0.5)] * 2)
    assert got[2] == pytest.approx(-1e4 + math.log(0.5))
    assert math.isfinite(negative_log_likelihood(got[None], np.array([2]))[0])
    with pytest.raises(ValueError, match=r"\[M, N, K\]"):
        mixture_log_probs(terms[0])


@given(seed=seeds, classes=st.integers(2, 8))
@settings(max_examples=20, deadline=None)
def test_kl_divergence_is_a_divergence(seed, classes):
    rng = np.random.default_rng(seed)
    p, q = (log_softmax(3 * rng.normal(size=(9, classes)), axis=1) for _ in range(2))
    got = kl_divergence(p, q)
    assert np.all(got >= -1e-12)
    assert np.all(kl_divergence(p, p) == 0)
    expected = torch.distributions.kl_divergence(
        *(torch.distributions.Categorical(logits=torch.from_numpy(x)) for x in (p, q))
    )
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-9)


# --------------------------------------------------------------------------------------------------- calibration


@given(seed=seeds, classes=st.integers(2, 20), sharpness=st.floats(0.1, 5), examples=st.integers(1, 400))
@settings(max_examples=30, deadline=None)
def test_ece_equals_netcal(seed, classes, sharpness, examples):
    log_probs, labels = predictions(seed, examples, classes, sharpness)
    confidence, hit = np.exp(log_probs.max(1)), (log_probs.argmax(1) == labels).astype(int)
    expected = ECE(15).measure(confidence, hit)  # the top-label reduction
    assert expected_calibration_error(log_probs, labels) == pytest.approx(expected, abs=1e-9)


def two_classes(*confidences):
    p = np.array(confidences)
    with np.errstate(divide="ignore"):
        return np.log(np.stack([p, 1 - p], 1))


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # Four bins have edges that are exact in binary; 0.75 lies between the third and the fourth.
    below, on, above = np.nextafter(0.75, 0), 0.75, np.nextafter(0.75, 1)
    for confidence, bin_ in ((below, 2), (on, 2), (above + 1e-12, 3), (1.0, 3), (0.5, 1), (0.51, 2)):
        counts = reliability(two_classes(confidence), np.array([0]), bins=4).count
        assert counts.tolist() == [float(i == bin_) for i in range(4)]


def test_reliability_by_hand():
    table = reliability(two_classes(0.55, 0.58, 0.72, 0.98, 1.0), np.array([0, 1, 0, 0, 1]), bins=5)
    assert table.lower.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert table.upper.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert table.count.tolist() == [0, 0, 2, 1, 2]
    assert table.confidence[2:].tolist() == pytest.approx([0.565, 0.72, 0.99])
    assert table.accuracy[2:].tolist() == pytest.approx([0.5, 1, 0.5])
    assert np.isnan(table.confidence[:2]).all()
    assert table.ece == pytest.approx((2 * 0.065 + 0.28 + 2 * 0.49) / 5)


@given(seed=seeds, classes=st.integers(2, 20), sharpness=st.floats(0.1, 5), examples=st.integers(1, 400))
@settings(max_examples=30, deadline=None)
def test_the_terms_of_the_ece_have_it_as_their_mean(seed, classes, sharpness, examples):
    log_probs, labels = predictions(seed, examples, classes, sharpness)
    terms = calibration_error_terms(log_probs, labels)
    assert terms.shape == (examples,)
    assert terms.mean() == pytest.approx(expected_calibration_error(log_probs, labels), abs=1e-12)
    # Debiased: 2 |g| - E|N(g, s^2)| in each bin, here by simulation.
    table, rng = reliability(log_probs, labels), np.random.default_rng(0)
    used = table.count > 0
    gap = (table.confidence - table.accuracy)[used]
    confidence = np.exp(log_probs.max(1))
    bins = np.digitize(confidence, table.upper, right=True).clip(0, 14)
    variance = np.bincount(bins, confidence * (1 - confidence), 15)[used] / table.count[used] ** 2
    drawn = np.abs(gap + np.sqrt(variance) * rng.normal(size=(20_000, len(gap)))).mean(0)
    expected = ((2 * np.abs(gap) - drawn) * table.count[used]).sum() / examples
    assert calibration_error_terms(log_probs, labels, debiased=True).mean() == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize("tilt", [1.0, 0.75, 0.5])
@pytest.mark.parametrize("examples", [100, 500])
def test_the_debiased_ece_is_nearer_to_the_known_calibration_error(tilt, examples):
    # Two classes; where the confidence is c, the top label is right with probability 1/2 + tilt (c - 1/2).
    rng = np.random.default_rng(1)
    n = 800 * examples
    confidence = 0.5 + 0.5 * rng.beta(2, 1, n)
    labels = (rng.random(n) > 0.5 + tilt * (confidence - 0.5)).astype(int)
    log_probs = two_classes(*confidence)
    truth = ((1 - tilt) * (confidence - 0.5)).mean()  # one sign everywhere, so that bins hide nothing
    parts = [slice(start, start + examples) for start in range(0, n, examples)]
    plain, debiased = (
        np.mean([calibration_error_terms(log_probs[p], labels[p], debiased=d).mean() for p in parts]) - truth
        for d in (False, True)
    )
    assert plain > 0.002
    assert abs(debiased) < 0.65 * plain


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 1.7, 4.0])
def test_temperature_scaling_recovers_the_temperature(true_temperature):
    rng = np.random.default_rng(3)
    z = 3 * rng.normal(size=(20_000, 6))
    gumbel = rng.gumbel(size=z.shape)
    labels = (z / true_temperature + gumbel).argmax(1)  # a draw from softmax(z / T)
    assert fit_temperature(log_softmax(z, axis=1), labels) == pytest.approx(true_temperature, rel=0.04)


# ----------------------------------------------------------------------------------------------------------- DEE

CIFAR10 = [0.3382, 0.2489, 0.2252, 0.2091, 0.2005, 0.1965]
TINY = [1.6829, 1.4986, 1.4250, 1.3815, 1.3540, 1.3347, 1.3235]
IMAGENET = [0.9358, 0.8830, 0.8619, 0.8508, 0.8440, 0.8398, 0.8368]


@pytest.mark.parametrize(
    ("curve", "value", "published", "within"),
    [
        *((CIFAR10, *pair, 0.003) for pair in ((0.2524, 1.961), (0.2412, 2.325), (0.2378, 2.468))),
        *((TINY, *pair, 0.006) for pair in ((1.478, 2.28), (1.395, 3.69), (1.347, 5.36))),
        *((IMAGENET, *pair, 0.006) for pair in ((0.914, 1.41), (0.870, 2.62))),
    ],
)
def test_dee_of_published_methods(curve, value, published, within):
    assert deep_ensemble_equivalent(value, range(1, len(curve) + 1), curve) == pytest.approx(published, abs=within)


def test_dee_beyond_the_curve_is_censored():
    sizes, curve = [1, 3, 7], [0.5, 0.3, 0.2]
    found = [deep_ensemble_equivalent(value, sizes, curve) for value in (0.5001, 0.4, 0.25, 0.1999)]
    assert found == pytest.approx([-math.inf, 2, 5, math.inf])


@pytest.mark.parametrize(("sizes", "curve"), [([1], [0.3]), ([1, 2], [0.3]), ([1, 1], [0.3, 0.2])])
def test_dee_refuses_a_curve_that_is_none(sizes, curve):
    with pytest.raises(ValueError, match="increasing sizes"):
        deep_ensemble_equivalent(0.25, sizes, curve)


curves = st.lists(st.floats(0.05, 2), min_size=2, max_size=8)


@given(curve=curves, values=st.lists(st.floats(0.01, 2.5), min_size=2, max_size=6))
@settings(max_examples=30, deadline=None)
def test_dee_falls_as_the_nll_grows(curve, values):
    sizes = range(1, len(curve) + 1)
    sizes_of = [deep_ensemble_equivalent(v, sizes, curve) for v in sorted(values)]
    assert not any(math.isnan(s) for s in sizes_of)
    assert all(a >= b - 1e-9 * max(1, abs(b)) for a, b in itertools.pairwise(sizes_of) if a != b)


@given(a=st.floats(0, 2), b=st.floats(0.01, 1), sizes=st.sets(st.integers(1, 30), min_size=3))
@settings(max_examples=30, deadline=None)
def test_a_curve_of_its_form_is_fitted_exactly(a, b, sizes):
    m = np.array(sorted(sizes))
    assert (fit_weights(m) @ (a + b / m)).tolist() == pytest.approx([a, b], abs=1e-9)
    for size in (0.5, 4.5, 100):
        assert fitted_equivalent(a + b / size, m, a + b / m) == pytest.approx(size, rel=1e-6)
    assert fitted_equivalent(a - 1e-6, m, a + b / m) == math.inf
    assert math.isnan(fitted_equivalent(a, m, a - b / m))  # an NLL that rises with the size


def committed_curves():
    """NLL curves of eight sizes and more than one kind of network and score, means over repetitions."""
    for suite in ("cifar10-small", "digits"):
        path = Path(__file__).resolve().parents[3] / "results" / "reference" / suite / "rows.csv"
        rows = pd.read_csv(path).query("family == 'de'")
        for metric in ("nll", "cnll"):
            yield rows[rows["metric"] == metric].groupby("size")["value"].mean().sort_index().to_numpy()


def test_the_fit_to_four_sizes_predicts_the_larger_ones():
    curves = [*committed_curves(), *map(np.array, (CIFAR10, TINY, IMAGENET))]
    assert sorted(map(len, curves)) == [6, 7, 7, 8, 8, 8, 8]
    for curve in curves:
        sizes = np.arange(1, len(curve) + 1)
        a, b = fit_weights(sizes[:4]) @ curve[:4]
        missed = np.abs(a + b / sizes[4:] - curve[4:])
        assert missed.max() < 0.11 * (curve[0] - curve[3])  # a tenth of what four members gain
        # Nearer than the last measured size, which is what censoring knows.
        assert np.square(missed).sum() < 0.6 * np.square(curve[3] - curve[4:]).sum()


@given(curve=curves)
@settings(max_examples=30, deadline=None)
def test_monotone_curve_is_the_nearest_falling_one(curve):
    got = monotone_curve(np.array(curve))
    assert np.all(np.diff(got) <= 1e-12)
    assert got.mean() == pytest.approx(np.mean(curve))  # a property of isotonic least squares
    np.testing.assert_allclose(monotone_curve(got), got, atol=1e-12)
    # No falling sequence is nearer: the residual has no positive component along any other one (projection on a cone).
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = np.sort(rng.uniform(0, 2, len(curve)))[::-1]
        assert np.sum((np.array(curve) - got) * (other - got)) <= 1e-9


# ----------------------------------------------------------------------------------------- probabilities of zero


def test_a_mixture_has_no_probability_of_zero():
    with np.errstate(divide="ignore"):
        terms = np.log(np.array([[[1, 0, 0.0]], [[0.5, 0.5, 0]]], np.float32))
    got = mixture_log_probs(terms)[0]
    assert np.exp(got[:2]).tolist() == pytest.approx([0.75, 0.25])
    assert got[2] == LOG_FLOOR == pytest.approx(math.log(np.finfo(np.float32).smallest_subnormal))
    row = np.array([[0.0, -np.inf]])
    assert floored(row)[0].tolist() == [0, LOG_FLOOR]
    assert row[0, 1] == -np.inf
    finite = np.array([[-0.1, -300.0]])
    assert floored(finite) is finite


def test_kl_divergence_of_predictions_with_zeros():
    with np.errstate(divide="ignore"):
        certain, even = np.log([[1.0, 0.0]]), np.log([[0.5, 0.5]])
    assert kl_divergence(certain, certain).tolist() == [0]
    assert kl_divergence(certain, even).tolist() == pytest.approx([math.log(2)])
    assert kl_divergence(even, certain).tolist() == [math.inf]


def test_one_label_of_probability_zero_leaves_the_temperature_where_it_is():
    log_probs, labels = predictions(0, 2000, 10, 3.0)
    truth = fit_temperature(log_probs, labels)
    log_probs[0, labels[0]] = -np.inf
    temperature, determined = search_temperature(log_probs, labels)
    assert determined
    assert temperature == pytest.approx(truth, rel=0.05)
    log_probs[0, labels[0]] = LOG_FLOOR
    assert temperature == fit_temperature(log_probs, labels)


@pytest.mark.parametrize(
    ("probability_of_label", "determined"), [(1 - 1e-6, False), (0.5, False), (1e-6, False), (None, True)]
)
def test_a_temperature_that_validation_does_not_determine_is_told(probability_of_label, determined):
    if probability_of_label is None:
        log_probs, labels = predictions(1, 200, 5, 2.0)
    else:
        labels = np.arange(100) % 2
        share = np.where(np.arange(2) == labels[:, None], probability_of_label, 1 - probability_of_label)
        log_probs = np.log(share)
    temperature, found = search_temperature(log_probs, labels)
    assert found == determined
    assert temperature == fit_temperature(log_probs, labels)
