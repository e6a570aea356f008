"""Intervals and paired comparisons.  Pure NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from dbn_core.metrics.dee import deep_ensemble_equivalent, monotone_curve
from dbn_core.metrics.scores import Array

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval; the ends are NaN where one repetition allows none."""

    value: float
    low: float
    high: float


def mean_interval(values: Array) -> Interval:
    """Mean over repetitions with Student's t interval: how far another draw of trainings would lie."""
    values = np.asarray(values, np.float64)
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Interval(mean, np.nan, np.nan)
    half = float(student_t.ppf(0.5 + LEVEL / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half)


class PairedBootstrap:
    """Resamples repetitions and test examples together, the same draws for every method.

    Per-example scores are [R, N]: R repetitions, N test examples in one order.  Both are resampled with replacement,
    because a claim must hold for other trainings and for other examples.

    Args:
        repetitions, examples: R and N.
        draws: bootstrap replicates.
        rng: source of the draws.
    """

    def __init__(self, repetitions: int, examples: int, draws: int, rng: np.random.Generator) -> None:
        self.draws = draws
        self._repetition = rng.multinomial(repetitions, np.full(repetitions, 1 / repetitions), size=draws) / repetitions
        self._example = rng.multinomial(examples, np.full(examples, 1 / examples), size=draws).T / examples

    def means(self, scores: Array) -> Array:
        """Replicates of the mean of ``scores`` [R, N]; [draws]."""
        return np.einsum("br,rb->b", self._repetition, scores @ self._example)

    @staticmethod
    def interval(value: float, replicates: Array) -> Interval:
        """Percentile interval; order statistics, so that infinite (censored) replicates stay what they are."""
        tail = (1 - LEVEL) / 2
        low = np.quantile(replicates, tail, method="inverted_cdf")
        high = np.quantile(replicates, 1 - tail, method="inverted_cdf")
        return Interval(value, float(low), float(high))

    def difference(self, scores: Array, reference: Array) -> tuple[Interval, float]:
        """Mean of ``scores - reference``, its interval and a two-sided bootstrap p-value."""
        gap = scores - reference
        replicates = self.means(gap)
        # One is added to both counts: a bootstrap of finite size never proves a p-value of zero.
        below, above = (
            (np.sum(replicates <= 0) + 1) / (self.draws + 1),
            (np.sum(replicates >= 0) + 1) / (self.draws + 1),
        )
        return self.interval(float(gap.mean()), replicates), float(min(1.0, 2 * min(below, above)))


class DeeCurve:
    """The DE curve of a suite with its bootstrap replicates: turns NLLs into DEEs with intervals.

    Args:
        scores: per-example NLL [R, N] of the deep ensemble of each size.
        bootstrap: the same draws serve curve and methods, so what they share cancels.
    """

    def __init__(self, scores: dict[int, Array], bootstrap: PairedBootstrap) -> None:
        self.sizes = sorted(scores)
        self.bootstrap = bootstrap
        self.nll = np.array([scores[size].mean() for size in self.sizes])
        self._replicates = monotone_curve(np.stack([bootstrap.means(scores[size]) for size in self.sizes], 1))

    def equivalent(self, scores: Array) -> Interval:
        """DEE of a method's per-example NLL [R, N]: the mean curve's value, and the replicates' interval."""
        value = deep_ensemble_equivalent(float(scores.mean()), self.sizes, self.nll)
        means = self.bootstrap.means(scores)
        replicates = np.array(
            [deep_ensemble_equivalent(m, self.sizes, c) for m, c in zip(means, self._replicates, strict=True)]
        )
        return self.bootstrap.interval(value, replicates)
