"""Deep-ensemble equivalent: the size of the deep ensemble that has the same NLL (Ashukha et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import isotonic_regression

from dbn_core.metrics.scores import Array


def monotone_curve(nll: Array) -> Array:
    """The nearest non-increasing sequence (least squares) along the last axis of an NLL curve."""
    nll = np.asarray(nll, np.float64)
    if nll.ndim == 1:
        return np.asarray(isotonic_regression(nll, increasing=False).x)
    return np.apply_along_axis(monotone_curve, -1, nll)


def deep_ensemble_equivalent(value: float, sizes: Sequence[int], curve: Sequence[float] | Array) -> float:
    """DEE of an NLL on a deep-ensemble curve.

    Args:
        value: the method's NLL.
        sizes: ensemble sizes of the curve, increasing, starting at 1.
        curve: NLL of each size; made monotone, linear in between.  If it is flat, the smallest size counts.

    Returns:
        A size; ``-inf``: worse than one network, ``inf``: better than the largest ensemble.

    >>> deep_ensemble_equivalent(0.25, [1, 2, 3], [0.4, 0.3, 0.2])
    2.5
    >>> deep_ensemble_equivalent(0.5, [1, 2, 3], [0.4, 0.3, 0.2])
    -inf
    """
    sizes_, nll = np.asarray(sizes, np.float64), monotone_curve(np.asarray(curve, np.float64))
    if len(sizes_) != len(nll) or len(nll) < 2 or np.any(np.diff(sizes_) <= 0):
        raise ValueError("a DEE curve needs at least two increasing sizes with one NLL each")
    if np.isnan(value):
        return np.nan
    if value > nll[0]:
        return -np.inf
    if value < nll[-1]:
        return np.inf
    index = int(np.argmax(nll <= value))  # first size at least as good
    if index == 0:
        return float(sizes_[0])
    drop = nll[index - 1] - nll[index]
    return float(sizes_[index - 1] + (nll[index - 1] - value) / drop * (sizes_[index] - sizes_[index - 1]))


def fit_weights(sizes: Sequence[int] | Array) -> Array:
    """Weights [2, S] with which NLLs of S sizes give a and b of ``NLL = a + b / M``.

    The mean NLL of an ensemble is ``a + b / M + O(1 / M^2)`` (Lobacheva et al., 2020, arXiv 2007.08483).  Least
    squares are weighted by M^2, since the remainder is large for small ensembles.  Held-out sizes support neither a
    third term nor a free exponent while curves are as noisy as ours (docs/statistics.md).

    >>> (fit_weights([1, 2, 4]) @ [0.5, 0.4, 0.35]).round(9).tolist()
    [0.3, 0.2]
    """
    m = np.asarray(sizes, np.float64)
    # Least squares of M NLL on (M, 1) have these weights.
    return np.linalg.pinv(np.stack([m, np.ones_like(m)], 1)) * m


def fitted_equivalent(value: float, sizes: Sequence[int], curve: Sequence[float] | Array) -> float:
    """The size at which the fitted curve has an NLL: ``inf`` at its asymptote and below, NaN if it does not fall.

    >>> round(fitted_equivalent(0.32, [1, 2, 4], [0.5, 0.4, 0.35]), 9)
    10.0
    """
    a, b = fit_weights(sizes) @ np.asarray(curve, np.float64)
    if np.isnan(value) or not b > 0:
        return np.nan
    return float(b / (value - a)) if value > a else np.inf
