"""Metrics of stored predictions beyond proper scores: selective prediction, smooth calibration, disagreement, sets.

Selective prediction accepts examples in order of falling confidence.  A temperature hardly changes that order, so these
scores show what calibration cannot improve.  ``confidence`` [N] and ``hit`` [N], 1 where the prediction is right,
are those of :func:`dbn_core.metrics.calibration.confidence_and_hit`.  Numbers are fractions.
"""

from __future__ import annotations

import math

import numpy as np

from dbn_core.metrics.scores import Array

_GRID = 2001  # points of the smooth calibration error, on [0, 1]
_SMALLEST_WIDTH = 1e-3  # of its kernel


def selective_risks(confidence: Array, hit: Array) -> Array:
    """Share of errors among the k most confident examples, k = 1 ... N; [N].

    Within a tie every order is equally likely; the expectation over these orders is returned.

    >>> import numpy as np
    >>> selective_risks(np.array([0.9, 0.5, 0.5]), np.array([1, 0, 1])).round(4).tolist()
    [0.0, 0.25, 0.3333]
    """
    order = np.argsort(-confidence, kind="stable")
    confidence, wrong = confidence[order], 1.0 - np.asarray(hit, np.float64)[order]
    start = np.flatnonzero(np.r_[True, confidence[1:] != confidence[:-1]])
    size, errors = np.diff(np.r_[start, len(confidence)]), np.add.reduceat(wrong, start)
    place = np.arange(1, len(confidence) + 1)
    before = np.repeat(np.cumsum(errors) - errors, size)
    within = np.repeat(errors / size, size) * (place - np.repeat(start, size))
    return np.asarray((before + within) / place)


def aurc(confidence: Array, hit: Array) -> float:
    """Area under the risk-coverage curve: the mean of :func:`selective_risks` (Geifman and El-Yaniv, 2017).

    >>> import numpy as np
    >>> aurc(np.array([0.9, 0.8]), np.array([1, 0]))
    0.25
    """
    return float(selective_risks(confidence, hit).mean())


def augrc(confidence: Array, hit: Array) -> float:
    """Area under the generalised risk-coverage curve (Traub et al., 2024, arXiv 2407.01032).

    The integral over coverage of P(wrong and accepted) equals ``(1 - AUROC) a (1 - a) + (1 - a)^2 / 2``, with accuracy
    a and the AUROC of the confidence for right against wrong predictions, ties counting half.

    >>> import numpy as np
    >>> augrc(np.array([0.9, 0.8]), np.array([1, 0]))
    0.125
    """
    from scipy.stats import rankdata

    hit = np.asarray(hit, bool)
    right, wrong = int(hit.sum()), int((~hit).sum())
    # Pairs of a right and a wrong prediction in which the wrong one is the more confident.
    reversed_pairs = right * wrong - (rankdata(confidence)[hit].sum() - right * (right + 1) / 2)
    return float((reversed_pairs + wrong**2 / 2) / len(hit) ** 2)


def risk_at_coverage(confidence: Array, hit: Array, coverage: float = 0.8) -> float:
    """Share of errors among the most confident examples, ``coverage`` of all, rounded up.

    >>> import numpy as np
    >>> risk_at_coverage(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 1, 1, 0, 0]))
    0.25
    """
    return float(selective_risks(confidence, hit)[math.ceil(round(coverage * len(confidence), 9)) - 1])


def smooth_calibration_error(confidence: Array, hit: Array, width: float | None = None) -> float:
    """Smooth ECE (Blasiok and Nakkiran, 2024, arXiv 2309.12236), without bins.

    ``int |mean_i K(t, c_i) (c_i - hit_i)| dt`` over [0, 1], with a Gaussian kernel K that is reflected at 0 and 1.

    Args:
        width: standard deviation of the kernel; by default the one that equals the error itself, at least 0.001.

    >>> import numpy as np
    >>> round(smooth_calibration_error(np.array([0.7, 0.7]), np.array([1, 0])), 6)
    0.2
    """
    cells = _GRID - 1
    residual, place = confidence - np.asarray(hit, np.float64), np.asarray(confidence, np.float64) * cells
    low = np.clip(place.astype(int), 0, cells - 1)
    share = place - low
    mass = np.bincount(low, (1 - share) * residual, _GRID) + np.bincount(low + 1, share * residual, _GRID)
    mass[[0, -1]] *= 2  # what lies on a boundary is its own mirror image
    spectrum = np.fft.rfft(np.concatenate([mass, mass[-2:0:-1]]) / len(residual))
    frequency = np.pi * np.arange(len(spectrum))

    def error(width: float) -> float:
        smoothed = np.fft.irfft(spectrum * np.exp(-0.5 * (frequency * width) ** 2), 2 * cells)[:_GRID]
        gaps = np.abs(smoothed)
        return float(gaps.sum() - (gaps[0] + gaps[-1]) / 2)  # trapezoids

    if width is not None:
        return error(width)
    low_width, high_width = 0.0, 1.0
    for _ in range(30):
        middle = (low_width + high_width) / 2
        if middle < max(_SMALLEST_WIDTH, error(middle)):
            low_width = middle
        else:
            high_width = middle
    return error(high_width)


def mutual_information(terms: Array) -> Array:
    """Entropy of the mean prediction minus mean entropy of the M terms, in nats; [M, N, K] log-probabilities to [N].

    It grows with M, so compare it at equal M.

    >>> import numpy as np
    >>> with np.errstate(divide="ignore"):
    ...     mutual_information(np.log([[[1.0, 0.0]], [[0.0, 1.0]]])).round(4).tolist()
    [0.6931]
    """
    probs = np.exp(np.asarray(terms, np.float64))
    return np.clip(_entropy(probs.mean(0)) - _entropy(probs).mean(0), 0.0, None)


def _entropy(probs: Array) -> Array:
    return -(probs * np.log(np.where(probs > 0, probs, 1.0))).sum(-1)


def disagreement(terms: Array) -> Array:
    """Share of the pairs of M terms whose top classes differ; [M, N, K] to [N], NaN where M is 1.

    >>> import numpy as np
    >>> disagreement(np.array([[[2.0, 1.0]], [[2.0, 1.0]], [[1.0, 2.0]]])).round(4).tolist()
    [0.6667]
    """
    members, _, classes = terms.shape
    if members == 1:
        return np.full(terms.shape[1], np.nan)
    votes = (terms.argmax(-1)[..., None] == np.arange(classes)).sum(0)
    return np.asarray(1 - (votes * (votes - 1)).sum(-1) / (members * (members - 1)))


def conformal_threshold(scores: Array, error: float) -> float:
    """The k-th smallest of n calibration scores, ``k = ceil((n + 1) (1 - error))``; infinite where k exceeds n.

    A set of all classes whose score is at most this holds the label with probability ``1 - error`` or more.

    >>> import numpy as np
    >>> conformal_threshold(np.arange(10.0), 0.2), conformal_threshold(np.arange(8.0), 0.1)
    (8.0, inf)
    """
    rank = math.ceil(round((len(scores) + 1) * (1 - error), 9))
    return math.inf if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])


def conformal_sets(calibration: Array, labels: Array, log_probs: Array, error: float = 0.05) -> Array:
    """Prediction sets of the least ambiguous kind (LAC: Sadinle et al., 2019, arXiv 1609.00451); bool [N, K].

    A class is in the set where one minus its probability is at most :func:`conformal_threshold` of the labels' ones.

    Args:
        calibration: log-probabilities [n, K] of examples that are exchangeable with the test examples: validation.
        labels: their labels [n].
        log_probs: of the test examples, [N, K].
        error: share of sets that may miss the label.

    >>> import numpy as np
    >>> calibration = np.log(np.tile([[0.6, 0.3, 0.1]], (20, 1)))
    >>> conformal_sets(calibration, np.repeat([0, 1], 10), np.log([[0.5, 0.35, 0.15]])).tolist()
    [[True, True, False]]
    """
    scores = 1 - np.exp(np.asarray(calibration, np.float64)[np.arange(len(labels)), labels])
    return np.asarray(1 - np.exp(np.asarray(log_probs, np.float64)) <= conformal_threshold(scores, error))
