"""Equivalents of a method on a curve of references, with intervals: tests of :mod:`benchmarks.statistics`, inverted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.statistics import ROUNDING, Interval, Means
from dbn_core.metrics.dee import deep_ensemble_equivalent, fit_weights, fitted_equivalent
from dbn_core.metrics.scores import Array

# Where a method is compared with the curve: points between two sizes; 1 / M of the fit, down to M = 0.05; shares of a
# gain.
_BETWEEN = 48
_INVERSE = np.concatenate([np.linspace(0, 1.5, 301), np.geomspace(1.5, 20, 60)[1:]])
_SHARES = np.linspace(-4, 5, 901)


def equivalent(gaps: Means, sizes: Sequence[int]) -> Interval:
    """Deep-ensemble equivalent with its interval: the ensemble sizes that do not differ significantly from the method.

    The test of the difference to the interpolated curve is inverted (Fieller, 1954), so the interval includes the
    uncertainty of the curve and agrees with the tests against single ensembles.

    Args:
        gaps: NLL of the method minus that of each deep ensemble, [S, R, N].
        sizes: of the deep ensembles, increasing.
    """
    value = deep_ensemble_equivalent(0.0, sizes, -gaps.mean)
    if not gaps.enough:
        return Interval(value, np.nan, np.nan)
    knots = np.arange(len(sizes))
    at = np.linspace(0, knots[-1], _BETWEEN * knots[-1] + 1)
    if np.isfinite(value):  # so that a narrow interval is found
        at = np.unique(np.append(at, np.interp(value, sizes, knots)))
    weights = np.maximum(0, 1 - np.abs(at[:, None] - knots))
    points = np.interp(at, knots, np.asarray(sizes, np.float64))
    low, high = _accepted(points, gaps.rejection(weights))
    # The curve beyond its ends is unknown.
    low, high = (-np.inf if low == sizes[0] else low), (np.inf if high == sizes[-1] else high)
    return Interval(value, *_around(value, low, high))


def fitted(gaps: Means, sizes: Sequence[int]) -> Interval:
    """The equivalent on the curve NLL = a + b / M fitted to all sizes; ``inf`` below its asymptote a.

    The interval assumes that form.  NaN with fewer than three sizes, and where NLL does not fall.
    """
    if len(sizes) < 3:
        return Interval(np.nan, np.nan, np.nan)
    value = fitted_equivalent(0.0, sizes, -gaps.mean)
    if np.isnan(value) or not gaps.enough:
        return Interval(value, np.nan, np.nan)
    at_infinity, slope = fit_weights(sizes)
    at = np.unique(np.append(_INVERSE, 1 / value))
    low, high = _accepted(at, gaps.rejection(at_infinity + at[:, None] * slope))
    inverse = [np.inf if end == 0 else 0.0 if end == at[-1] else 1 / end for end in (high, low)]
    return Interval(value, *_around(value, inverse[0], inverse[1]))


def kept_share(gaps: Means) -> Interval:
    """The share of a second reference's gain over a first that a method reaches: 0 as the first, 1 as the second.

    The test of a share is inverted (Fieller, 1954); if the gain itself is uncertain, an end of the interval is
    infinite.

    Args:
        gaps: scores of the method minus those of each of the two references, [2, R, N].
    """
    gain = gaps.mean[0] - gaps.mean[1]
    if abs(gain) <= ROUNDING * np.abs(gaps.mean).max():  # no gain except rounding
        return Interval(np.nan, np.nan, np.nan)
    value = float(gaps.mean[0] / gain)
    if not gaps.enough:
        return Interval(value, np.nan, np.nan)
    at = np.unique(np.append(_SHARES, value))
    low, high = _accepted(at, gaps.rejection(np.stack([1 - at, at], 1)))
    return Interval(value, *_around(value, -np.inf if low == at[0] else low, np.inf if high == at[-1] else high))


def _accepted(points: Array, rejection: Array) -> tuple[float, float]:
    """First and last point that is not rejected, the crossings interpolated; NaN if all are rejected."""
    inside = np.flatnonzero(rejection <= 1)
    if not len(inside):
        return np.nan, np.nan

    def end(kept: int, lost: int) -> float:
        if not 0 <= lost < len(points) or not np.isfinite(rejection[lost]):
            return float(points[kept])
        share = (1 - rejection[kept]) / (rejection[lost] - rejection[kept])
        return float(points[kept] + share * (points[lost] - points[kept]))

    first, last = int(inside[0]), int(inside[-1])
    return end(first, first - 1), end(last, last + 1)


def _around(value: float, low: float, high: float) -> tuple[float, float]:
    """The interval extended to its estimate; the estimate alone if no point was accepted."""
    return float(np.fmin(value, low)), float(np.fmax(value, high))
