"""Expected calibration error, reliability bins and temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

from dbn_core.metrics.scores import Array, _check, _shift, by_example, floored, log_softmax

BINS = 15
_LIMIT = 3.0  # largest |log T| in the search for a temperature


@dataclass(frozen=True)
class Reliability:
    """Equal-width bins of top-label confidence, each [bins]; empty bins have count 0 and NaN means."""

    lower: Array
    upper: Array
    count: Array
    confidence: Array
    accuracy: Array

    @property
    def ece(self) -> float:
        """Share-weighted mean gap between accuracy and confidence, a fraction."""
        used = self.count > 0
        gaps = np.abs(self.accuracy[used] - self.confidence[used])
        return float((gaps * self.count[used]).sum() / self.count.sum())


def reliability(log_probs: Array, labels: Array, bins: int = BINS) -> Reliability:
    """Bin the top-label confidences.

    Bins are (lower, upper], so a confidence on an inner edge belongs to the bin below it, as in the code of the DBN
    and Bridge Network papers; confidence 1 is in the last bin.
    """
    confidence, hit = confidence_and_hit(log_probs, labels)
    index = _bin(confidence, bins)
    count = np.bincount(index, minlength=bins).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_confidence = np.bincount(index, confidence, bins) / count
        accuracy = np.bincount(index, hit, bins) / count
    edges = np.linspace(0.0, 1.0, bins + 1)
    return Reliability(edges[:-1], edges[1:], count, mean_confidence, accuracy)


def confidence_and_hit(log_probs: Array, labels: Array) -> tuple[Array, Array]:
    """Confidence of the top label, and 1 where it is correct, else 0; each [N]."""
    log_probs, labels = _check(log_probs, labels)
    top = log_probs.argmax(1)
    confidence = np.minimum(np.exp(log_probs[np.arange(len(top)), top]), 1.0)
    return confidence, (top == labels).astype(np.float64)


def _bin(confidence: Array, bins: int) -> Array:
    """The bin of each confidence, [N]."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)


def expected_calibration_error(log_probs: Array, labels: Array, bins: int = BINS) -> float:
    """ECE: 15 equal-width bins, top label, L1, as a fraction (Guo et al., 2017).

    >>> import numpy as np
    >>> expected_calibration_error(np.log([[0.7, 0.3], [0.7, 0.3]]), np.array([0, 1])).__round__(3)
    0.2
    """
    return reliability(log_probs, labels, bins).ece


def calibration_error_terms(log_probs: Array, labels: Array, bins: int = BINS, debiased: bool = False) -> Array:
    """Terms of the ECE, [N]: their mean is the ECE, and their spread gives its first-order standard error.

    The plug-in ECE of N examples is too large, by up to ``sqrt(2 / pi)`` standard errors of each bin's gap; the bias
    grows with better calibration and smaller test sets.  ``debiased`` subtracts the bias under the assumption that the
    measured gaps are true, ``2 |g| - E |N(g, s^2)|`` for each bin: the estimator of Kumar et al. (2019, arXiv
    1909.10155; their ``normal_debiased_ce``) with the expectation in closed form, and with s^2 from the confidences,
    which is defined for a bin of one example.  It nearly halves the bias at perfect calibration and may be negative.

    >>> import numpy as np
    >>> calibration_error_terms(np.log([[0.7, 0.3], [0.7, 0.3]]), np.array([0, 1])).round(3).tolist()
    [-0.3, 0.7]
    """
    return calibration_terms(*confidence_and_hit(log_probs, labels), bins, debiased)


def calibration_terms(confidence: Array, hit: Array, bins: int = BINS, debiased: bool = False) -> Array:
    """As :func:`calibration_error_terms`, from what :func:`confidence_and_hit` returns."""
    index, gaps = _bin(confidence, bins), confidence - hit
    count = np.maximum(np.bincount(index, minlength=bins), 1)
    gap = np.bincount(index, gaps, bins) / count
    if not debiased:
        return np.sign(gap)[index] * gaps
    error = np.sqrt(np.bincount(index, confidence * (1 - confidence), bins)) / count
    size = np.abs(gap)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(error > 0, size / error, np.inf)
    density, tail = np.exp(-(ratio**2) / 2) / np.sqrt(2 * np.pi), ndtr(-ratio)
    folded = 2 * error * density + size * (1 - 2 * tail)
    slope = np.sign(gap) * (1 + 2 * tail)
    return (2 * size - folded)[index] + slope[index] * (gaps - gap[index])


def fit_temperature(log_probs: Array, labels: Array) -> float:
    """The T > 0 that minimises the NLL of softmax(log p / T); searched on log T in [-3, 3].

    Fit it on validation predictions, never on test.  If they do not determine T, it is arbitrary within these limits;
    :func:`search_temperature` returns whether they do.
    """
    return search_temperature(log_probs, labels)[0]


def search_temperature(log_probs: Array, labels: Array) -> tuple[float, bool]:
    """The temperature of :func:`fit_temperature`, and whether it is a minimum within the limits of the search.

    It is not if the NLL still falls at a limit or is flat, as for predictions that are uniform, or certain and correct.
    Probabilities of exactly zero are raised to ``FLOOR``
    (:func:`dbn_core.metrics.scores.floored`).
    """
    log_probs, labels = _check(log_probs, labels)
    log_probs = floored(log_probs)
    most = log_probs.max(1)

    def loss(log_t: float) -> float:
        temperature = np.exp(log_t)

        def nll(log_probs: Array, labels: Array, most: Array) -> Array:
            """The NLL after :func:`apply_temperature`, computed for the labels' classes alone."""
            shifted = log_probs / temperature
            shifted -= _shift(most / temperature)[:, None]
            label = shifted[np.arange(len(labels)), labels]
            with np.errstate(divide="ignore"):
                return np.log(np.exp(shifted, out=shifted).sum(1)) - label

        return float(by_example(nll, log_probs, labels, most).mean())

    found = minimize_scalar(loss, bounds=(-_LIMIT, _LIMIT), method="bounded", options={"xatol": 1e-4})
    inside = abs(found.x) < _LIMIT - 1e-3
    minimum = inside and min(loss(found.x - 0.1), loss(found.x + 0.1)) > found.fun + 1e-9
    return float(np.exp(found.x)), bool(minimum)


def apply_temperature(log_probs: Array, temperature: float) -> Array:
    """log softmax(log p / T), [N, K]."""
    return by_example(lambda block: log_softmax(block / temperature), np.asarray(log_probs, np.float64))
