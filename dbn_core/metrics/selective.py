"""Metrics of stored predictions beyond proper scores: selective prediction, smooth calibration, disagreement, sets.

Selective prediction accepts examples in order of falling confidence.  A temperature hardly changes that order, so these
scores show what calibration cannot improve.  ``confidence`` [N] and ``hit`` [N], 1 where the prediction is right,
are those of :func:`dbn_core.metrics.calibration.confidence_and_hit`.  Numbers are fractions.

``..._terms`` [N] split a score over the examples: their mean is the score, and their spread gives its first-order
standard error, as for a mean (Hampel's influence function), so that examples can be paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from dbn_core.metrics.scores import Array, by_example

_GRID = 2001  # points of the smooth calibration error, on [0, 1]
_TRAPEZOIDS = np.r_[0.5, np.ones(_GRID - 2), 0.5]  # weights of its integral, in grid steps
_SMALLEST_WIDTH = 1e-3  # of its kernel
_LEAST = -750.0  # of log-probabilities: its exponential is 0, and a product with that is not NaN
_NEAR = 0.05  # share of the examples that estimates the error rate at a threshold


def _by_confidence(confidence: Array, hit: Array) -> tuple[Array, Array, Array]:
    """Groups of equal confidence, the most confident first: that of each example [N], and sizes and errors of all."""
    _, group, size = np.unique(-np.asarray(confidence), return_inverse=True, return_counts=True)
    return group, size, np.bincount(group, 1.0 - np.asarray(hit, np.float64))


def selective_risks(confidence: Array, hit: Array) -> Array:
    """Share of errors among the k most confident examples, k = 1 ... N; [N].

    Within a tie every order is equally likely; the expectation over these orders is returned.

    >>> import numpy as np
    >>> selective_risks(np.array([0.9, 0.5, 0.5]), np.array([1, 0, 1])).round(4).tolist()
    [0.0, 0.25, 0.3333]
    """
    _, size, errors = _by_confidence(confidence, hit)
    place = np.arange(1, len(confidence) + 1)
    before = np.repeat(np.cumsum(errors) - errors, size)
    within = np.repeat(errors / size, size) * (place - np.repeat(np.cumsum(size) - size, size))
    return np.asarray((before + within) / place)


def aurc(confidence: Array, hit: Array) -> float:
    """Area under the risk-coverage curve: the mean of :func:`selective_risks` (Geifman and El-Yaniv, 2017).

    >>> import numpy as np
    >>> aurc(np.array([0.9, 0.8]), np.array([1, 0]))
    0.25
    """
    return float(selective_risks(confidence, hit).mean())


def aurc_terms(confidence: Array, hit: Array) -> Array:
    """Terms of :func:`aurc`, [N].

    The example at place k, with the error e, adds its risk r_k and shifts all later ones:
    ``r_k + sum_{l >= k} (e - r_l) / l``.

    >>> import numpy as np
    >>> aurc_terms(np.array([0.9, 0.8]), np.array([1, 0])).tolist()
    [-0.25, 0.75]
    """
    group, size, _ = _by_confidence(confidence, hit)
    risks, place, first = selective_risks(confidence, hit), np.arange(1, len(group) + 1), np.cumsum(size) - size
    later, later_risks = (np.cumsum(each[::-1])[::-1] for each in (1 / place, risks / place))
    fixed, slope = (np.add.reduceat(each, first) / size for each in (risks - later_risks, later))
    return np.asarray(fixed[group] + (1.0 - np.asarray(hit, np.float64)) * slope[group])


def augrc(confidence: Array, hit: Array) -> float:
    """Area under the generalised risk-coverage curve (Traub et al., 2024, arXiv 2407.01032).

    The integral over coverage of P(wrong and accepted) equals ``(1 - AUROC) a (1 - a) + (1 - a)^2 / 2``, with accuracy
    a and the AUROC of the confidence for right against wrong predictions, ties counting half.

    >>> import numpy as np
    >>> augrc(np.array([0.9, 0.8]), np.array([1, 0]))
    0.125
    """
    return float(augrc_terms(confidence, hit).mean())


def augrc_terms(confidence: Array, hit: Array) -> Array:
    """Terms of :func:`augrc`, [N].

    The area is the mean over all pairs (i, j) of ``wrong_i [c_i > c_j]``, equal confidences counting half: a
    V-statistic.  The term of an example is the mean over the pairs that it is the first of, plus that over those that
    it is the second of, minus the area (Hoeffding, 1948).

    >>> import numpy as np
    >>> augrc_terms(np.array([0.9, 0.8]), np.array([1, 0])).tolist()
    [-0.125, 0.375]
    """
    group, size, errors = _by_confidence(confidence, hit)
    n = len(group)
    less_confident = (n - np.cumsum(size) + size / 2) / n
    wrong_above = (np.cumsum(errors) - errors / 2) / n
    terms = (1.0 - np.asarray(hit, np.float64)) * less_confident[group] + wrong_above[group]
    return np.asarray(terms - errors @ less_confident / n)


def risk_at_coverage(confidence: Array, hit: Array, coverage: float = 0.8) -> float:
    """Share of errors among the most confident examples, ``coverage`` of all, rounded up.

    >>> import numpy as np
    >>> risk_at_coverage(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 1, 1, 0, 0]))
    0.25
    """
    return float(selective_risks(confidence, hit)[places(len(confidence), coverage) - 1])


def places(examples: int, coverage: float) -> int:
    """How many of ``examples`` are accepted at a coverage, rounded up."""
    return math.ceil(round(coverage * examples, 9))


def risk_at_coverage_terms(confidence: Array, hit: Array, coverage: float = 0.8) -> Array:
    """Terms of :func:`risk_at_coverage`, [N].

    With k of N accepted, ``[accepted] (e - m) N / k + m``: an accepted example moves the threshold, where the error
    rate is m, estimated on the twentieth of the examples that is nearest in rank.

    >>> import numpy as np
    >>> risk_at_coverage_terms(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 1, 1, 0, 0])).mean().round(9).item()
    0.25
    """
    group, size, errors = _by_confidence(confidence, hit)
    n = len(group)
    count, half = places(n, coverage), max(1, round(_NEAR / 2 * n))
    accepted = np.clip((count - (np.cumsum(size) - size)) / size, 0, 1)[group]  # the expected share of a tie
    at_threshold = np.repeat(errors / size, size)[max(0, count - half) : count + half].mean()
    return np.asarray(accepted * (1.0 - np.asarray(hit, np.float64) - at_threshold) * n / count + at_threshold)


def smooth_calibration_error(confidence: Array, hit: Array, width: float | None = None) -> float:
    """Smooth ECE (Blasiok and Nakkiran, 2024, arXiv 2309.12236), without bins.

    ``int |mean_i K(t, c_i) (c_i - hit_i)| dt`` over [0, 1], with a Gaussian kernel K that is reflected at 0 and 1.

    Args:
        width: standard deviation of the kernel; by default the one that equals the error itself, at least 0.001.

    >>> import numpy as np
    >>> round(smooth_calibration_error(np.array([0.7, 0.7]), np.array([1, 0])), 6)
    0.2
    """
    return float(smooth_calibration_terms(confidence, hit, width).mean())


def smooth_calibration_terms(confidence: Array, hit: Array, width: float | None = None) -> Array:
    """Terms of :func:`smooth_calibration_error`, [N]: ``(c - hit) int s(t) K(t, c) dt``, s the sign of the mean at t.

    Their distances from the mean are smaller where the width follows the error.
    """
    cells = _GRID - 1
    residual, place = confidence - np.asarray(hit, np.float64), np.asarray(confidence, np.float64) * cells
    low = np.clip(place.astype(int), 0, cells - 1)
    share = place - low
    sums = np.bincount(low, (1 - share) * residual, _GRID) + np.bincount(low + 1, share * residual, _GRID)
    mass = sums / len(residual)

    def error(width: float) -> float:
        return float(np.abs(_smoothed(mass, width)) @ _TRAPEZOIDS)

    found = _own_width(error) if width is None else width
    # The kernel is symmetric, so the sum over t can come first.
    kernel = _smoothed(np.sign(_smoothed(mass, found)) * _TRAPEZOIDS, found)
    terms = np.asarray(residual * ((1 - share) * kernel[low] + share * kernel[low + 1]))
    if width is not None or found <= _SMALLEST_WIDTH:
        return terms
    # A larger error widens the kernel, which lowers the error: the differential of error(width) = width.
    slope = (error(1.01 * found) - error(0.99 * found)) / (0.02 * found)
    return terms.mean() + (terms - terms.mean()) / (1 - min(slope, 0.0))


def _own_width(error: Callable[[float], float]) -> float:
    """The width that equals the error which it gives, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if middle < max(_SMALLEST_WIDTH, error(middle)):
            low = middle
        else:
            high = middle
    return high


def _smoothed(mass: Array, width: float) -> Array:
    """Masses at the points of the grid, smoothed by the reflected kernel."""
    even = np.concatenate([mass, mass[-2:0:-1]])
    even[[0, _GRID - 1]] *= 2  # what lies on a boundary is its own mirror image
    spectrum = np.fft.rfft(even)
    damping = np.exp(-0.5 * (np.pi * np.arange(len(spectrum)) * width) ** 2)
    return np.fft.irfft(spectrum * damping, len(even))[:_GRID]


def mutual_information(terms: Array) -> Array:
    """Entropy of the mean prediction minus mean entropy of the M terms, in nats; [M, N, K] log-probabilities to [N].

    It grows with M, so compare it at equal M.

    >>> import numpy as np
    >>> with np.errstate(divide="ignore"):
    ...     mutual_information(np.log([[[1.0, 0.0]], [[0.0, 1.0]]])).round(4).tolist()
    [0.6931]
    """

    def of_block(terms: Array) -> Array:
        logs = np.maximum(terms.astype(np.float64), _LEAST)
        probs = np.exp(logs)
        mean = probs.mean(1)
        own = np.multiply(probs, logs, out=probs).sum(-1).mean(1)
        return np.clip(own - (mean * np.log(np.where(mean > 0, mean, 1.0))).sum(-1), 0.0, None)

    return by_example(of_block, np.asarray(terms).transpose(1, 0, 2))


def disagreement(terms: Array) -> Array:
    """Share of the pairs of M terms whose top classes differ; [M, N, K] to [N], NaN where M is 1.

    >>> import numpy as np
    >>> disagreement(np.array([[[2.0, 1.0]], [[2.0, 1.0]], [[1.0, 2.0]]])).round(4).tolist()
    [0.6667]
    """
    members = len(terms)
    if members == 1:
        return np.full(terms.shape[1], np.nan)
    votes = np.asarray(terms).argmax(-1)
    agreeing = (votes[:, None] == votes[None]).sum((0, 1)) - members  # ordered pairs
    return np.asarray(1 - agreeing / (members * (members - 1)))


def conformal_threshold(scores: Array, error: float) -> float:
    """The k-th smallest of n calibration scores, ``k = ceil((n + 1) (1 - error))``; infinite where k exceeds n.

    A set of all classes whose score is at most this holds the label with probability ``1 - error`` or more.

    >>> import numpy as np
    >>> conformal_threshold(np.arange(10.0), 0.2), conformal_threshold(np.arange(8.0), 0.1)
    (8.0, inf)
    """
    rank = math.ceil(round((len(scores) + 1) * (1 - error), 9))
    return math.inf if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])


def conformal_scores(log_probs: Array, labels: Array) -> Array:
    """One minus the probability of the label, [N]: what :func:`conformal_threshold` takes of validation examples."""
    return 1 - np.exp(np.asarray(log_probs, np.float64)[np.arange(len(labels)), labels])


def conformal_sets(log_probs: Array, threshold: float) -> Array:
    """Prediction sets of the least ambiguous kind (LAC: Sadinle et al., 2019, arXiv 1609.00451); [N, K] to bool [N, K].

    A class is in the set where one minus its probability is at most the threshold.  Of examples that are exchangeable
    with those of the threshold, the sets hold the label as often as promised.

    >>> import numpy as np
    >>> validation = np.log(np.tile([[0.6, 0.3, 0.1]], (20, 1)))
    >>> threshold = conformal_threshold(conformal_scores(validation, np.repeat([0, 1], 10)), 0.05)
    >>> conformal_sets(np.log([[0.5, 0.35, 0.15]]), threshold).tolist()
    [[True, True, False]]
    """
    return np.asarray(1 - np.exp(np.asarray(log_probs, np.float64)) <= threshold)
