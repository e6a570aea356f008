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


def deep_ensemble_equivalent(
    value: float, sizes: Sequence[int], curve: Sequence[float] | Array, extrapolate: bool = False
) -> float:
    """DEE of an NLL on a deep-ensemble curve.

    Args:
        value: the method's NLL.
        sizes: ensemble sizes of the curve, increasing, starting at 1.
        curve: NLL of each size; made monotone first, linear in between.  Where it is flat, the smallest size counts.
        extrapolate: continue the first and the last segment instead of censoring.

    Returns:
        A size; ``-inf`` stands for "worse than one network" and ``inf`` for "better than the largest ensemble".

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
        return _line(value, sizes_[:2], nll[:2]) if extrapolate else -np.inf
    if value < nll[-1]:
        return _line(value, sizes_[-2:], nll[-2:]) if extrapolate else np.inf
    index = int(np.argmax(nll <= value))  # first size at least as good
    if index == 0:
        return float(sizes_[0])
    return _line(value, sizes_[index - 1 : index + 1], nll[index - 1 : index + 1])


def _line(value: float, sizes: Array, nll: Array) -> float:
    drop = nll[0] - nll[1]
    if drop <= 0:  # a flat end has no slope to follow
        return -np.inf if value > nll[0] else np.inf
    return float(sizes[0] + (nll[0] - value) / drop * (sizes[1] - sizes[0]))
