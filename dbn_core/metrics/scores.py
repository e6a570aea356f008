"""Proper scores and accuracy.

Shapes: log-probabilities [N, K] (or [M, N, K] for M mixture terms), labels int [N].  Per-example functions return [N],
so that paired tests can resample examples; a score is their mean.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from scipy.special import log_softmax, logsumexp

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def mixture_log_probs(terms: Array) -> Array:
    """Log of the mean of M terms' probabilities, [M, N, K] to [N, K], by logsumexp.

    >>> import numpy as np
    >>> terms = np.log([[[0.9, 0.1]], [[0.5, 0.5]]])
    >>> np.exp(mixture_log_probs(terms)).round(3).tolist()
    [[0.7, 0.3]]
    """
    terms = np.asarray(terms, np.float64)
    if terms.ndim != 3:
        raise ValueError(f"mixture terms must be [M, N, K], not of shape {terms.shape}")
    mean = logsumexp(terms, axis=0) - np.log(len(terms))
    return log_softmax(mean, axis=-1)  # removes the float32 rounding of stored predictions


def _check(log_probs: Array, labels: Array) -> tuple[Array, Array]:
    log_probs, labels = np.asarray(log_probs, np.float64), np.asarray(labels)
    if log_probs.ndim != 2 or labels.shape != log_probs.shape[:1]:
        raise ValueError(f"expected log-probabilities [N, K] and labels [N], got {log_probs.shape} and {labels.shape}")
    return log_probs, labels.astype(np.int64)


def correct(log_probs: Array, labels: Array) -> Array:
    """1 where the most probable class is the label, else 0; [N]."""
    log_probs, labels = _check(log_probs, labels)
    return (log_probs.argmax(1) == labels).astype(np.float64)


def negative_log_likelihood(log_probs: Array, labels: Array) -> Array:
    """-log p(label) in nats; [N].

    >>> import numpy as np
    >>> negative_log_likelihood(np.log([[0.8, 0.2]]), np.array([0])).round(4).tolist()
    [0.2231]
    """
    log_probs, labels = _check(log_probs, labels)
    return -log_probs[np.arange(len(labels)), labels]


def brier(log_probs: Array, labels: Array) -> Array:
    """sum_k (p_k - 1[y = k])^2, between 0 and 2; [N].

    >>> import numpy as np
    >>> brier(np.log([[0.8, 0.2]]), np.array([0])).round(4).tolist()
    [0.08]
    """
    log_probs, labels = _check(log_probs, labels)
    probs = np.exp(log_probs)
    probs[np.arange(len(labels)), labels] -= 1
    return np.square(probs).sum(1)


def kl_divergence(log_p: Array, log_q: Array) -> Array:
    """KL(p || q) in nats between two predictions [N, K]; [N].  Zero exactly where they agree."""
    log_p, log_q = np.asarray(log_p, np.float64), np.asarray(log_q, np.float64)
    return (np.exp(log_p) * (log_p - log_q)).sum(1)
