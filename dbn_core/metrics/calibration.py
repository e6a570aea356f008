"""Expected calibration error, reliability bins and temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from dbn_core.metrics.scores import Array, _check, negative_log_likelihood

BINS = 15


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
    log_probs, labels = _check(log_probs, labels)
    confidence = np.minimum(np.exp(log_probs.max(1)), 1.0)
    hit = (log_probs.argmax(1) == labels).astype(np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_confidence = np.bincount(index, confidence, bins) / count
        accuracy = np.bincount(index, hit, bins) / count
    return Reliability(edges[:-1], edges[1:], count, mean_confidence, accuracy)


def expected_calibration_error(log_probs: Array, labels: Array, bins: int = BINS) -> float:
    """ECE: 15 equal-width bins, top label, L1, as a fraction (Guo et al., 2017).

    >>> import numpy as np
    >>> expected_calibration_error(np.log([[0.7, 0.3], [0.7, 0.3]]), np.array([0, 1])).__round__(3)
    0.2
    """
    return reliability(log_probs, labels, bins).ece


def fit_temperature(log_probs: Array, labels: Array) -> float:
    """The T > 0 that minimises the NLL of softmax(log p / T); searched on log T in [-3, 3].

    Fit it on validation predictions, never on test.
    """
    log_probs, labels = _check(log_probs, labels)

    def loss(log_t: float) -> float:
        return float(negative_log_likelihood(apply_temperature(log_probs, np.exp(log_t)), labels).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-4}).x))


def apply_temperature(log_probs: Array, temperature: float) -> Array:
    """log softmax(log p / T), [N, K]."""
    return log_softmax(np.asarray(log_probs, np.float64) / temperature, axis=-1)
