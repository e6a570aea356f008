"""Intervals and tests of means over repetitions and test examples.  Pure NumPy; docs/statistics.md is the whole story.

A score is a mean over R repetitions and N test examples.  The variance of its mean is ``s^2 / R + C``: the variance
between the repetitions' means, and the mean covariance of two repetitions, since averaging does not remove what
repetitions have in common.  They share their test examples (crossed random effects: Searle, Casella and McCulloch,
1992, ch. 4; Owen, 2007), and members of the pool where there is one pool for all.

Half an interval is ``sum_k v_k t_k / sqrt(sum_k v_k)`` with the variance ``v_k`` of each part and Student's quantile
``t_k`` at its own degrees of freedom: Cochran's solution of the Behrens-Fisher problem (Cochran and Cox, 1950, sec.
4.14; Cochran, 1964).  Satterthwaite's single degrees of freedom, estimated from R = 2 or 3 repetitions, cover down to
88 and 92 % where the examples add a little; Cochran's cover 94 to 98 % and 95 to 97 %.

Where a difference has no spread at all, Student's t would claim certainty; it then has the p-value of the exact sign
test over the repetitions.  Differences of accuracy over the examples of one repetition have that of the exact sign test
over examples (McNemar, 1947) as well.  A difference that is not finite has no test.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, betaincinv, stdtrit

from dbn_core.metrics.dee import deep_ensemble_equivalent, fit_weights, fitted_equivalent
from dbn_core.metrics.scores import Array

LEVEL = 0.95
# Where the curve is compared with a method: points between two sizes, and 1 / M of the fit down to M = 0.05.
_BETWEEN = 48
_ROUNDING = 1e-12  # relative to a mean: what is smaller is an error of floating point
_INVERSE = np.concatenate([np.linspace(0, 1.5, 301), np.geomspace(1.5, 20, 60)[1:]])


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
    """As :func:`independent`, of differences [N] between two methods on the same examples.

    Where all of them are -1, 0 or 1, as those of accuracy are, the larger p-value and the wider interval of that test
    and of the exact sign test count: with few examples, Student's t takes chance for certainty.
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
    """What repetitions have in common through members of one pool.

    Attributes:
        variances: [V, K, K], covariances of K means; V cases, of which the widest counts (:func:`shared_members`).
        members: how many members they were estimated from.
    """

    variances: Array
    members: int

    def of(self, weights: Array) -> Shared:
        """That of linear combinations ``weights`` [L, K] of the means."""
        return Shared(weights @ self.variances @ weights.T, self.members)


class Means:
    """Means of K scores over R repetitions and N test examples, and the three parts of their errors.

    Args:
        scores: [K, R, N], the same examples in each repetition; N = 1 for numbers of whole repetitions, which then have
            no examples in common.
        shared: members that repetitions have in common, if any.
    """

    def __init__(self, scores: Array, shared: Shared | None = None) -> None:
        k, r, n = scores.shape
        self.enough = r > 1
        # What the exact sign test says of repetitions that all agree.
        self._agreed = 2.0 ** (1 - r)
        self._parts = np.full((3, 1, k, k), np.nan)
        self._df = np.array([max(r - 1, 1), max(n - 1, 1), 1])
        with np.errstate(invalid="ignore"):  # of scores that are not finite nothing is known
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
        return np.maximum(found, 0).max(2)  # a variance that was estimated as a difference may come out below zero

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

        Without any spread it has an interval only where so many repetitions agree that the sign test finds a
        difference.
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
        """Whether combinations [L] have no spread but that of rounding."""
        return np.sqrt(variances.sum(-1)) <= _ROUNDING * np.abs(values)

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
        """|combination| over half its interval, [L]; above 1 it differs from zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            values, variances = np.abs(weights @ self.mean), self.variances(weights)
            none = values <= _ROUNDING * np.abs(self.mean).max()
            if self._agreed > 1 - LEVEL:
                none |= self._constant(values, variances)
            return np.where(none, 0.0, values / self.half_widths(variances))


@dataclass(frozen=True)
class MemberEffects:
    """How scores move with the members of a pool, estimated from P of them.

    Attributes:
        covariance: [2, 2], variances and covariance of two effects of a member: its own score, and that of the deep
            ensemble of the P - 1 others.  Of the means over all examples that there may be, not only over these.
        members: P.
    """

    covariance: Array
    members: int


def member_effects(alone: Array, others: Array) -> MemberEffects:
    """From per-example scores [P, N] of each member alone, and of the ensemble of the others (a jackknife).

    Members and examples are crossed, so what a member does to these examples alone, which the examples' part of
    :class:`Means` holds already, is taken off: ``(MS_members - MS_residual) / N``.
    """
    scores = np.stack([alone, others])
    p, n = alone.shape
    means = scores.mean(2)
    rest = scores - means[:, :, None] - scores.mean(1, keepdims=True) + means.mean(1)[:, None, None]
    rest = rest.reshape(2, -1)
    return MemberEffects(np.cov(means, ddof=1) - rest @ rest.T / ((p - 1) * max(n - 1, 1) * n), p)


def shared_members(
    members: Sequence[Sequence[Sequence[Hashable]]], known: Sequence[bool], effects: MemberEffects
) -> Shared:
    """What K methods' means have in common between repetitions, through the members that they were made from.

    A method of k members is taken to move with each by a share 1 / k of the member's effect on a deep ensemble of k, to
    first order (Hoeffding, 1948).  For deep ensembles that is known; for other methods, which hear of a member through
    what it taught, the response lies between nothing and that of the ensemble, and the wider case counts.

    Args:
        members: [K][R] the members of each method in each repetition.
        known: whether a method is a deep ensemble, [K].
        effects: of the pool.
    """
    sizes = [max((len(used) for used in each), default=0) for each in members]
    responses = np.stack([_response(max(size, 1), effects.members - 1) for size in sizes])
    overlap = np.array([[_overlap(first, second) for second in members] for first in members])
    together = overlap * (responses @ effects.covariance @ responses.T)
    cases = product(*((1.0,) if fixed else (0.0, 1.0) for fixed in known))
    return Shared(np.array([np.outer(case, case) * together for case in cases]), effects.members)


def _overlap(first: Sequence[Sequence[Hashable]], second: Sequence[Sequence[Hashable]]) -> float:
    """The mean over pairs of repetitions of ``sum_m w_m v_m``, where w and v spread one over the members of each."""
    pairs = [(a, b) for r, a in enumerate(first) for q, b in enumerate(second) if r != q and a and b]
    return float(np.mean([len(set(a) & set(b)) / (len(a) * len(b)) for a, b in pairs])) if pairs else 0.0


def _response(size: int, n: int) -> Array:
    """A member's effect on the deep ensemble of a size, as a combination of the two of :class:`MemberEffects`.

    On the ensemble of n it is -n times the score of the n others; in between it is linear in 1 / size, since the
    ensemble's score is, to that order (:func:`dbn_core.metrics.dee.fit_weights`).
    """
    alone = np.array([1.0, 0.0])
    if n < 2:
        return alone
    limit = np.array([-1.0, -n * n]) / (n - 1)
    return limit + (alone - limit) / size


def holm(p_values: Array) -> Array:
    """Holm's (1979) step-down correction of one family of p-values; NaN where there is none."""
    p_values = np.asarray(p_values, np.float64)
    corrected = np.full(len(p_values), np.nan)
    order = [i for i in np.argsort(p_values, kind="stable") if not np.isnan(p_values[i])]
    steps = p_values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1) if order else steps
    return corrected


def equivalent(gaps: Means, sizes: Sequence[int]) -> Interval:
    """Deep-ensemble equivalent with its interval: the ensemble sizes that the test cannot tell from the method.

    The test of the difference to the interpolated curve is inverted (Fieller, 1954), so the interval carries the
    uncertainty of the curve, and agrees with the tests against single ensembles.

    Args:
        gaps: NLL of the method minus that of each deep ensemble, [S, R, N].
        sizes: of the deep ensembles, increasing.
    """
    value = deep_ensemble_equivalent(0.0, sizes, -gaps.mean)
    if not gaps.enough:
        return Interval(value, np.nan, np.nan)
    knots = np.arange(len(sizes))
    at = np.linspace(0, knots[-1], _BETWEEN * knots[-1] + 1)
    if np.isfinite(value):  # however narrow, the interval is found
        at = np.unique(np.append(at, np.interp(value, sizes, knots)))
    weights = np.maximum(0, 1 - np.abs(at[:, None] - knots))
    points = np.interp(at, knots, np.asarray(sizes, np.float64))
    low, high = _accepted(points, gaps.rejection(weights))
    # What the curve does beyond its ends is not known.
    low, high = (-np.inf if low == sizes[0] else low), (np.inf if high == sizes[-1] else high)
    return Interval(value, *_around(value, low, high))


def fitted(gaps: Means, sizes: Sequence[int]) -> Interval:
    """The equivalent on the curve NLL = a + b / M fitted to all sizes; ``inf`` below its asymptote a.

    The interval takes the form of the curve as given.  NaN with fewer than three sizes, and where NLL does not fall.
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


# Shares of a gain among which the ends of an interval are looked for.
_SHARES = np.linspace(-4, 5, 901)


def kept_share(gaps: Means) -> Interval:
    """Which share of the gain of a second reference over a first one a method has: 0 as the first, 1 as the second.

    The test that so much of the gain is there is inverted (Fieller, 1954); where the gain itself is uncertain, an end
    of the interval is infinite.

    Args:
        gaps: scores of the method minus those of each of the two references, [2, R, N].
    """
    gain = gaps.mean[0] - gaps.mean[1]
    if abs(gain) <= 1e-12 * np.abs(gaps.mean).max():  # up to rounding there is none
        return Interval(np.nan, np.nan, np.nan)
    value = float(gaps.mean[0] / gain)
    if not gaps.enough:
        return Interval(value, np.nan, np.nan)
    at = np.unique(np.append(_SHARES, value))
    low, high = _accepted(at, gaps.rejection(np.stack([1 - at, at], 1)))
    return Interval(value, *_around(value, -np.inf if low == at[0] else low, np.inf if high == at[-1] else high))


def _accepted(points: Array, rejection: Array) -> tuple[float, float]:
    """First and last point that is not rejected, the crossings interpolated; NaN where all are."""
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
    """The interval, which holds its estimate; the estimate alone where no point was accepted."""
    return float(np.fmin(value, low)), float(np.fmax(value, high))
