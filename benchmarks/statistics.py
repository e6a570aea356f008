"""Intervals and tests of means over repetitions and test examples.  Pure NumPy and SciPy; see docs/statistics.md.

A score is a mean over R repetitions and N test examples.  The variance of its mean is ``s^2 / R + C``: the variance
between the repetitions' means, and the mean covariance of two repetitions, which averaging does not reduce.
Repetitions share their test examples (crossed random effects: Searle, Casella and McCulloch, 1992, ch. 4; Owen, 2007),
and also members where they share one pool (:mod:`benchmarks.results.pools`).

Half an interval is ``sum_k v_k t_k / sqrt(sum_k v_k)`` with the variance ``v_k`` of each part and Student's quantile
``t_k`` at its own degrees of freedom: Cochran's solution of the Behrens-Fisher problem (Cochran and Cox, 1950, sec.
4.14; Cochran, 1964).  Satterthwaite's single degrees of freedom, estimated from R = 2 or 3 repetitions, cover down to
88 and 92 % where the examples add a little; Cochran's cover 94 to 98 % and 95 to 97 %.

For a difference without any spread Student's t would claim certainty: its p-value is that of the exact sign test over
the repetitions.  For differences of accuracy on one repetition the exact sign test over examples (McNemar, 1947) is
made as well.  A difference that is not finite has no test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, betaincinv, stdtrit

from dbn_core.metrics.scores import Array

LEVEL = 0.95
ROUNDING = 1e-12  # relative to a mean; smaller differences are rounding errors


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval; the ends are NaN where one repetition allows none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Tested(Interval):
    """A difference, its interval and the p-value of the same test of zero."""

    p_value: float


def independent(values: Array) -> Tested:
    """Mean of independent values with Student's t interval and test of zero."""
    return Means(np.asarray(values, np.float64)[None, :, None]).test()


def paired(differences: Array) -> Tested:
    """As :func:`independent`, for differences [N] between two methods on the same examples.

    Where all of them are -1, 0 or 1, as for accuracy, the exact sign test is made as well, and the larger p-value and
    the wider interval count: with few examples, Student's t is overconfident.
    """
    tested = independent(differences)
    better, worse = int(np.sum(differences == 1)), int(np.sum(differences == -1))
    if not better + worse or better + worse + np.sum(differences == 0) < len(differences):
        return tested
    # Clopper and Pearson's interval of the share of examples, among those that differ, on which the first is better.
    tail, unequal = (1 - LEVEL) / 2, better + worse
    low = betaincinv(better, worse + 1, tail) if better else 0.0
    high = betaincinv(better + 1, worse, 1 - tail) if worse else 1.0
    ends = (2 * np.array([low, high]) - 1) * unequal / len(differences)
    p_value = min(1.0, 2 * float(bdtr(min(better, worse), unequal, 0.5)))
    return Tested(
        tested.value,
        max(-1.0, float(np.fmin(tested.low, ends[0]))),
        min(1.0, float(np.fmax(tested.high, ends[1]))),
        float(np.fmax(tested.p_value, p_value)),
    )


@dataclass(frozen=True)
class Shared:
    """The covariance of means through members of a pool that repetitions share.

    Attributes:
        variances: [V, K, K], covariances of K means in V cases; the widest interval counts.
        members: how many members they were estimated from.
    """

    variances: Array
    members: int

    def of(self, weights: Array) -> Shared:
        """The covariance of linear combinations ``weights`` [L, K] of the means."""
        return Shared(weights @ self.variances @ weights.T, self.members)


class Means:
    """Means of K scores over R repetitions and N test examples, and the three parts of their errors.

    Args:
        scores: [K, R, N], the same examples in each repetition; N = 1 for numbers of whole repetitions, which share no
            examples.
        shared: the effect of members that repetitions share, if any.
    """

    def __init__(self, scores: Array, shared: Shared | None = None) -> None:
        k, r, n = scores.shape
        self.enough = r > 1
        # The p-value of the exact sign test if all repetitions agree.
        self._agreed = 2.0 ** (1 - r)
        self._parts = np.full((3, 1, k, k), np.nan)
        self._df = np.array([max(r - 1, 1), max(n - 1, 1), 1])
        with np.errstate(invalid="ignore"):  # scores that are not finite give NaN
            self._estimate(scores, shared)

    def _estimate(self, scores: Array, shared: Shared | None) -> None:
        k, r, n = scores.shape
        rows, columns = scores.mean(2), scores.mean(1)
        self.mean: Array = rows.mean(1)
        if not self.enough:
            return
        between = (rows - self.mean[:, None]) @ (rows - self.mean[:, None]).T / (r - 1)
        examples = np.zeros((k, k))
        if n > 1:
            # The mean of two repetitions' covariance over examples; (MS_examples - MS_residual) / R of the ANOVA.
            own = (scores - rows[:, :, None]).reshape(k, -1)
            total = (columns - self.mean[:, None]) * r
            examples = (total @ total.T - own @ own.T) / ((n - 1) * r * (r - 1) * n)
        members = np.zeros((1, k, k))
        if shared is not None:
            members, self._df[2] = shared.variances, shared.members - 1
        cases = len(members)
        self._parts = np.stack([np.broadcast_to(part, (cases, k, k)) for part in (between / r, examples, members)])

    def variances(self, weights: Array) -> Array:
        """The parts' variances of combinations ``weights`` [L, K], [L, 3]: repetitions, examples, members."""
        found = np.einsum("lk,pvkm,lm->lpv", weights, self._parts, weights)
        return np.maximum(found, 0).max(2)  # estimates that are differences may be negative

    def half_widths(self, variances: Array, alpha: float = 1 - LEVEL) -> Array:
        """Half the interval of level ``1 - alpha`` for variances [L, 3]; [L]."""
        total = variances.sum(-1)
        quantiles = -stdtrit(self._df, alpha / 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total == 0, 0.0, (variances * quantiles).sum(-1) / np.sqrt(total))

    def interval(self) -> Interval:
        """The interval of the first mean."""
        value, half = float(self.mean[0]), np.nan
        if self.enough:
            half = float(self.half_widths(self.variances(np.eye(1, len(self.mean))))[0])
        return Interval(value, value - half, value + half)

    def test(self, weights: Sequence[float] = (1.0,)) -> Tested:
        """The combination ``weights`` [K] of the means, tested against zero.

        Without any spread there is an interval only if enough repetitions agree for the sign test to find a difference.
        """
        row = np.asarray(weights, np.float64)[None]
        value = float(row[0] @ self.mean)
        if not self.enough:
            return Tested(value, np.nan, np.nan, np.nan)
        variances = self.variances(row)
        half = float(self.half_widths(variances)[0])
        if value and self._constant(np.array([value]), variances)[0]:
            half = np.nan if self._agreed > 1 - LEVEL else 0.0
            return Tested(value, value - half, value + half, self._agreed)
        return Tested(value, value - half, value + half, self._p_value(abs(value), variances))

    @staticmethod
    def _constant(values: Array, variances: Array) -> Array:
        """Whether combinations [L] have no spread except rounding."""
        return np.sqrt(variances.sum(-1)) <= ROUNDING * np.abs(values)

    def _p_value(self, value: float, variances: Array) -> float:
        """The level whose interval ends at zero; NaN where the value or its spread is not finite."""
        if not (np.isfinite(value) and np.isfinite(variances).all()):
            return np.nan

        def beyond(log_alpha: float) -> float:
            return float(self.half_widths(variances, np.exp(log_alpha))[0]) - value

        if value == 0:
            return 1.0
        lowest = np.log(1e-100)
        return float(np.exp(brentq(beyond, lowest, 0.0))) if beyond(lowest) > 0 else 0.0

    def rejection(self, weights: Array) -> Array:
        """|combination| divided by half its interval, [L]; above 1 it differs from zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            values, variances = np.abs(weights @ self.mean), self.variances(weights)
            none = values <= ROUNDING * np.abs(self.mean).max()
            if self._agreed > 1 - LEVEL:
                none |= self._constant(values, variances)
            return np.where(none, 0.0, values / self.half_widths(variances))


def holm(p_values: Array) -> Array:
    """Holm's (1979) step-down correction of one family of p-values; NaN stays NaN."""
    p_values = np.asarray(p_values, np.float64)
    corrected = np.full(len(p_values), np.nan)
    order = [i for i in np.argsort(p_values, kind="stable") if not np.isnan(p_values[i])]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1) if order else steps
    return corrected
