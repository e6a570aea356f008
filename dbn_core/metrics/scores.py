"""Proper scores and accuracy.

A probability of exactly zero, as in majority votes and over-confident softmaxes, counts as :data:`FLOOR` where a score
or a temperature would otherwise be infinite.

Shapes: log-probabilities [N, K] (or [M, N, K] for M mixture terms), labels int [N].  Per-example functions return [N],
so that paired tests can resample examples; a score is their mean.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from scipy.special import logsumexp

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

FLOOR = 2.0**-149  # the smallest positive number of single precision, in which predictions are stored
LOG_FLOOR = float(np.log(FLOOR))
_BLOCK = 1 << 19  # numbers processed at once: they fit into the last cache, and the overhead of a call is small


def by_example(function: Callable[..., Array], *arrays: Array) -> Array:
    """``function(*arrays)`` of arrays [N, ...] whose result [N, ...] for one example depends on that example alone.

    Many examples are processed in blocks on all cores: the same bits, without intermediate results of full size.
    """
    count = len(arrays[0])
    step = max(1, _BLOCK // max(1, arrays[0][:1].size))
    if count <= step:
        return function(*arrays)
    first = function(*(array[:step] for array in arrays))
    result = np.empty((count, *first.shape[1:]), first.dtype)
    result[:step] = first

    def fill(start: int) -> None:
        result[start : start + step] = function(*(array[start : start + step] for array in arrays))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(step, count, step)))
    return result


def log_softmax(logits: Array) -> Array:
    """Log-probabilities of float64 logits [N, K]; the same bits as :func:`scipy.special.log_softmax`."""
    shifted = logits - _shift(logits.max(1))[:, None]
    with np.errstate(divide="ignore"):
        shifted -= np.log(np.exp(shifted).sum(1, keepdims=True))
    return shifted


def _shift(most: Array) -> Array:
    """The number to subtract before exponentials: the largest one, or 0 if it is infinite."""
    return np.where(np.isfinite(most), most, 0.0)


def mixture_log_probs(terms: Array) -> Array:
    """Log of the mean of M terms' probabilities, [M, N, K] to [N, K], by logsumexp; finite, see :func:`floored`.

    Raises ``ValueError`` for terms of another shape.

    >>> import numpy as np
    >>> terms = np.log([[[0.9, 0.1]], [[0.5, 0.5]]])
    >>> np.exp(mixture_log_probs(terms)).round(3).tolist()
    [[0.7, 0.3]]
    """
    terms = np.asarray(terms)
    if terms.ndim != 3:
        raise ValueError(f"mixture terms must be [M, N, K], not of shape {terms.shape}")
    return by_example(_mixed, terms.transpose(1, 0, 2))


def _mixed(terms: Array) -> Array:
    """As :func:`mixture_log_probs`, of terms [N, M, K]."""
    terms = np.asarray(terms.transpose(1, 0, 2), np.float64)
    mean = _logsumexp(terms) - np.log(len(terms))
    return floored(log_softmax(mean))  # the softmax removes the float32 rounding of stored predictions


def floored(log_probs: Array) -> Array:
    """Log-probabilities with :data:`LOG_FLOOR` for minus infinity; the same array if there is none."""
    if not log_probs.size or not np.isneginf(log_probs.min()):
        return log_probs
    return np.where(np.isneginf(log_probs), LOG_FLOOR, log_probs)


def _logsumexp(terms: Array) -> Array:
    """Log of the sum of M exponentials, [M, N, K] to [N, K]; the same bits as :func:`scipy.special.logsumexp`.

    The largest terms are counted, and ``log1p`` of the others' sum is taken (Blanchard, Higham and Higham, 2021).
    """
    most = terms.max(0)
    if not np.isfinite(most).all():
        return logsumexp(terms, axis=0)
    others, share, largest = np.zeros_like(most), np.empty_like(most), 0
    for term in terms:
        np.subtract(term, most, out=share)
        at_most = share == 0
        largest += int(np.count_nonzero(at_most))
        np.exp(share, out=share)
        share -= at_most
        others += share
    if largest == most.size:
        return np.log1p(others, out=others) + most
    ties = (terms == most).sum(0, dtype=np.float64)
    return np.log1p(others / ties) + np.log(ties) + most


def _check(log_probs: Array, labels: Array) -> tuple[Array, Array]:
    log_probs, labels = np.asarray(log_probs, np.float64), np.asarray(labels)
    if log_probs.ndim != 2 or labels.shape != log_probs.shape[:1]:
        raise ValueError(f"expected log-probabilities [N, K] and labels [N], got {log_probs.shape} and {labels.shape}")
    return log_probs, labels.astype(np.int64)


def correct(log_probs: Array, labels: Array) -> Array:
    """1 where the most probable class is the label, else 0; [N]."""
    log_probs, labels = _check(log_probs, labels)
    return (log_probs.argmax(1) == labels).astype(np.float64)


def chance_accuracies(examples: int, classes: int) -> tuple[float, float]:
    """Accuracies three standard errors below and above that of guessing.

    >>> [round(accuracy, 3) for accuracy in chance_accuracies(10_000, 10)]
    [0.091, 0.109]
    """
    chance = 1 / classes
    error = math.sqrt(chance * (1 - chance) / examples)
    return chance - 3 * error, chance + 3 * error


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
    return by_example(_brier, log_probs, labels)


def _brier(log_probs: Array, labels: Array) -> Array:
    probs = np.exp(log_probs)
    probs[np.arange(len(labels)), labels] -= 1
    return np.square(probs, out=probs).sum(1)


def kl_divergence(log_p: Array, log_q: Array) -> Array:
    """KL(p || q) in nats between two predictions [N, K]; [N].  Exactly zero where they agree; p = 0 adds nothing."""
    log_p, log_q = np.asarray(log_p, np.float64), np.asarray(log_q, np.float64)

    def divergence(p: Array, q: Array) -> Array:
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            terms = np.exp(p) * (p - q)
        return np.where(np.isneginf(p), 0.0, terms).sum(1)

    return by_example(divergence, log_p, log_q)
