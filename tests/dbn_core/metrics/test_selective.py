"""Selective prediction, smooth calibration, disagreement and conformal sets against loops and worked examples."""

import doctest
import itertools
import math

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from dbn_core.metrics import selective
from dbn_core.metrics.calibration import apply_temperature, confidence_and_hit
from dbn_core.metrics.selective import (
    augrc,
    augrc_terms,
    aurc,
    aurc_terms,
    conformal_scores,
    conformal_sets,
    conformal_threshold,
    disagreement,
    mutual_information,
    risk_at_coverage,
    risk_at_coverage_terms,
    selective_risks,
    smooth_calibration_error,
    smooth_calibration_terms,
)

CONFIDENCE = np.array([0.9, 0.9, 0.8, 0.7, 0.7, 0.7, 0.6, 0.5])
HIT = 1.0 - np.array([0, 1, 0, 0, 1, 0, 1, 1])


def random_case(seed, examples=400):
    rng = np.random.default_rng(seed)
    log_probs = log_softmax(2 * rng.normal(size=(examples, 5)), axis=1)
    labels = np.where(rng.random(examples) < 0.5, log_probs.argmax(1), rng.integers(0, 5, examples))
    return log_probs, labels


def test_the_examples_of_the_docstrings_hold():
    assert doctest.testmod(selective).failed == 0


# ------------------------------------------------------------------------------------------ selective prediction


def test_risks_of_the_worked_example():
    errors = selective_risks(CONFIDENCE, HIT) * np.arange(1, 9)
    assert errors == pytest.approx([0.5, 1, 1, 4 / 3, 5 / 3, 2, 3, 4])
    assert aurc(CONFIDENCE, HIT) == pytest.approx(0.407738, abs=1e-6)
    assert augrc(CONFIDENCE, HIT) == pytest.approx(0.195312, abs=1e-6)
    assert risk_at_coverage(CONFIDENCE, HIT) == pytest.approx(3 / 7)


def test_a_tie_is_the_mean_over_its_orders():
    by_order = []
    for tie_1, tie_2 in itertools.product(itertools.permutations([0, 1]), itertools.permutations([3, 4, 5])):
        errors = np.cumsum(1 - HIT[[*tie_1, 2, *tie_2, 6, 7]])
        by_order.append((errors / np.arange(1, 9)).mean())
    assert aurc(CONFIDENCE, HIT) == pytest.approx(np.mean(by_order))
    assert (min(by_order), max(by_order)) == pytest.approx((0.318, 0.499), abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_augrc_is_the_area_that_its_auroc_gives(seed):
    confidence, hit = confidence_and_hit(*random_case(seed))
    confidence = confidence.round(2)  # with ties
    a = hit.mean()
    expected = (1 - roc_auc_score(hit, confidence)) * a * (1 - a) + (1 - a) ** 2 / 2
    assert augrc(confidence, hit) == pytest.approx(expected)
    # The trapezoid through the joint rates at distinct thresholds.
    thresholds = [np.inf, *np.unique(confidence)[::-1]]
    coverage = [(confidence >= t).mean() for t in thresholds]
    joint = [((confidence >= t) * (1 - hit)).mean() for t in thresholds]
    assert augrc(confidence, hit) == pytest.approx(
        sum((coverage[i + 1] - coverage[i]) * (joint[i + 1] + joint[i]) / 2 for i in range(len(joint) - 1))
    )


@pytest.mark.parametrize(("hit", "area"), [(1.0, 0.0), (0.0, 0.5)])
def test_one_kind_of_prediction_alone(hit, area):
    hits = np.full(8, hit)
    assert augrc(CONFIDENCE, hits) == area
    assert aurc(CONFIDENCE, hits) == 2 * area


def test_a_temperature_of_two_classes_does_not_change_selection():
    log_probs, labels = random_case(9)
    log_probs = log_softmax(log_probs[:, :2], axis=1)
    cases = [confidence_and_hit(x, labels % 2) for x in (log_probs, apply_temperature(log_probs, 1.7))]
    assert augrc(*cases[0]) == pytest.approx(augrc(*cases[1]))


# ------------------------------------------------------------------------------------------- terms of the examples

TERMS = [
    (aurc, aurc_terms),
    (augrc, augrc_terms),
    (risk_at_coverage, risk_at_coverage_terms),
    (smooth_calibration_error, smooth_calibration_terms),
]


def by_definition(confidence, hit):
    """AURC, AUGRC and risk at 80 % coverage by loops over thresholds and pairs, ties in expectation."""
    n, wrong = len(hit), 1 - hit
    expected = []
    for k in range(1, n + 1):
        threshold = np.sort(confidence)[::-1][k - 1]
        sure, tied = confidence > threshold, confidence == threshold
        expected.append((wrong[sure].sum() + wrong[tied].mean() * (k - sure.sum())) / k)
    pairs = [
        wrong[i] * (1.0 if a > b else 0.5 if a == b else 0.0) for i, a in enumerate(confidence) for b in confidence
    ]
    return np.mean(expected), sum(pairs) / n**2, expected[math.ceil(0.8 * n) - 1]


@pytest.mark.parametrize("digits", [2, 16])
def test_terms_sum_up_to_the_scores_of_the_definition(digits):
    confidence, hit = confidence_and_hit(*random_case(5, 90))
    confidence = confidence.round(digits)  # with and without ties
    expected = [*by_definition(confidence, hit), smooth_calibration_error(confidence, hit)]
    for (score, terms), value in zip(TERMS, expected, strict=True):
        assert terms(confidence, hit).mean() == pytest.approx(value, rel=1e-12)
        assert score(confidence, hit) == pytest.approx(value, rel=1e-12)


def test_terms_of_the_worked_example_have_its_scores():
    assert aurc_terms(CONFIDENCE, HIT).mean() == pytest.approx(0.407738, abs=1e-6)
    assert augrc_terms(CONFIDENCE, HIT).mean() == pytest.approx(0.195312, abs=1e-6)
    assert risk_at_coverage_terms(CONFIDENCE, HIT).mean() == pytest.approx(3 / 7)
    assert risk_at_coverage_terms(CONFIDENCE, HIT, 1.0).mean() == pytest.approx(0.5)
    assert smooth_calibration_terms(CONFIDENCE, HIT, 0.02).mean() == pytest.approx(0.273360, abs=2e-5)


@pytest.mark.parametrize(("score", "terms"), TERMS, ids=lambda function: function.__name__)
def test_the_spread_of_terms_is_the_standard_error_of_the_bootstrap(score, terms):
    confidence, hit = confidence_and_hit(*random_case(7, 1000))
    rng = np.random.default_rng(0)
    again = [score(confidence[chosen], hit[chosen]) for chosen in rng.integers(0, 1000, (300, 1000))]
    ratio = terms(confidence, hit).std() / math.sqrt(1000) / np.std(again)
    assert 0.87 < ratio < 1.15  # 300 samples know their spread to 4 %


def test_terms_of_two_methods_give_the_error_of_their_difference():
    """The paired difference of two noisy versions of one network varies less than either."""
    log_probs, labels = random_case(8, 1000)
    noise = 0.3 * np.random.default_rng(1).normal(size=(2, *log_probs.shape))
    cases = [confidence_and_hit(log_softmax(log_probs + each, axis=1), labels) for each in noise]
    chosen = np.random.default_rng(2).integers(0, 1000, (300, 1000))
    again = [augrc(cases[0][0][i], cases[0][1][i]) - augrc(cases[1][0][i], cases[1][1][i]) for i in chosen]
    gap = augrc_terms(*cases[0]) - augrc_terms(*cases[1])
    assert 0.87 < gap.std() / math.sqrt(1000) / np.std(again) < 1.15
    assert gap.std() < augrc_terms(*cases[0]).std() / 2


# --------------------------------------------------------------------------------------------- smooth calibration


@pytest.mark.parametrize(
    ("width", "error"), [(0.02, 0.273360), (0.05, 0.235976), (0.1, 0.225), (0.3, 0.225), (None, 0.225)]
)
def test_smooth_error_of_the_worked_example(width, error):
    assert smooth_calibration_error(CONFIDENCE, HIT, width) == pytest.approx(error, abs=2e-5)


def test_smooth_error_is_the_sum_over_reflected_kernels():
    confidence, hit = confidence_and_hit(*random_case(1, 60))
    confidence = np.r_[confidence, 1.0, 0.999]  # mass on the boundary and in its cell
    hit, width, t = np.r_[hit, 0.0, 1.0], 0.05, np.linspace(0, 1, 20001)
    images = np.concatenate([sign * confidence + 2 * j for sign in (1, -1) for j in (-1, 0, 1)])
    weights = np.tile(confidence - hit, 6) / len(hit)
    kernel = np.exp(-0.5 * ((t[:, None] - images) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    by_kernels = np.abs(kernel @ weights)
    expected = (by_kernels[:-1] + by_kernels[1:]).sum() / 2 / 20000
    assert smooth_calibration_error(confidence, hit, width) == pytest.approx(expected, abs=1e-5)


def test_smooth_error_of_an_over_confident_network_is_its_gap():
    confidence, hit = np.r_[np.full(90, 0.9995), np.full(10, 1.0)], np.r_[np.zeros(6), np.ones(94)]
    assert smooth_calibration_error(confidence, hit) == pytest.approx(confidence.mean() - hit.mean(), abs=1e-6)
    assert smooth_calibration_error(np.array([0.7]), np.array([0.0])) == pytest.approx(0.7, abs=1e-6)


# ------------------------------------------------------------------------------------------------- disagreement


def test_disagreement_of_the_worked_example():
    first, second = (
        [(0.7, 0.2, 0.1), (0.6, 0.3, 0.1), (0.8, 0.1, 0.1)],
        [(0.5, 0.4, 0.1), (0.1, 0.8, 0.1), (0.3, 0.3, 0.4)],
    )
    terms = np.log(np.stack([first, second], 1))
    assert mutual_information(terms) == pytest.approx([0.022220, 0.139226], abs=1e-6)
    assert disagreement(terms).tolist() == [0, 1]
    assert np.isnan(disagreement(terms[:1])).all()
    assert mutual_information(terms[:1]) == pytest.approx([0, 0])


def test_mutual_information_is_the_mean_divergence_from_the_mean():
    terms = log_softmax(np.random.default_rng(3).normal(size=(4, 20, 6)), axis=-1)
    mean = np.log(np.exp(terms).mean(0))
    assert mutual_information(terms) == pytest.approx((np.exp(terms) * (terms - mean)).sum(-1).mean(0))


# ----------------------------------------------------------------------------------------------- conformal sets

CALIBRATION = np.log(
    [
        *[(0.7, 0.2, 0.1), (0.6, 0.3, 0.1), (0.5, 0.4, 0.1), (0.2, 0.7, 0.1), (0.1, 0.8, 0.1)],
        *[(0.3, 0.4, 0.3), (0.1, 0.1, 0.8), (0.2, 0.2, 0.6), (0.4, 0.35, 0.25), (0.9, 0.05, 0.05)],
    ]
)
LABELS = np.array([0, 0, 1, 1, 1, 0, 2, 2, 1, 0])
TEST = np.log([(0.55, 0.35, 0.1), (0.34, 0.33, 0.33), (0.97, 0.02, 0.01)])


def sets_of(calibration, labels, test, error):
    return conformal_sets(test, conformal_threshold(conformal_scores(calibration, labels), error))


def test_sets_of_the_worked_example():
    assert conformal_threshold(conformal_scores(CALIBRATION, LABELS), 0.2) == pytest.approx(0.65)
    sets = sets_of(CALIBRATION, LABELS, TEST, 0.2)
    assert [np.flatnonzero(row).tolist() for row in sets] == [[0, 1], [], [0]]


def test_sets_follow_a_permutation_of_the_classes_and_hold_everything_without_error():
    order = np.array([2, 0, 1])
    moved = sets_of(CALIBRATION[:, order], np.argsort(order)[LABELS], TEST[:, order], 0.2)
    assert np.array_equal(moved, sets_of(CALIBRATION, LABELS, TEST, 0.2)[:, order])
    assert sets_of(CALIBRATION, LABELS, TEST, 1e-6).all()
    assert sets_of(CALIBRATION[:8], LABELS[:8], TEST, 0.1).all()  # eight scores cannot promise 90 %


def test_coverage_is_the_promised_one():
    scores = np.random.default_rng(0).random((2000, 20))
    thresholds = [conformal_threshold(row, 0.1) for row in scores]
    assert np.mean(thresholds) == pytest.approx(19 / 21, abs=0.01)  # of uniform scores: P(U <= threshold)
