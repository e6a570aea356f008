"""Scored cells, and paired comparisons of methods on the repetitions that both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.results.pools import MemberEffects, shared_members
from benchmarks.statistics import Interval, Means, Shared, Tested
from benchmarks.suite.plan import Cell
from dbn_core.metrics.scores import Array
from dbn_core.tasks.base import TASKS, Scores

Key = tuple[str, int]  # (spec, size) of a summary row
Contrast = tuple[tuple[str, int], tuple[str, int]]  # two (label, size) to compare


@dataclass
class CellResult:
    """A cell, and its scores on the test split."""

    cell: Cell
    scores: Scores

    def __contains__(self, score: str) -> bool:
        """Whether the cell has the score."""
        return score in self.scores

    def values(self, score: str) -> Array:
        """Its value for each example, [N], or for the whole split, [1]."""
        return self.scores.values(score)


def identity(cell: Cell) -> dict[str, Any]:
    """The columns that say which method and size a row is of."""
    return {"method": cell.spec, "label": cell.label, "family": cell.method.name, "size": cell.size}


def method_name(label: str, size: int) -> str:
    """``DE-3`` for the reference method, ``DBN (blind, MSE) of size 3`` for others, as in ``comparisons.csv``."""
    references = {task.reference_label for task in TASKS.values()}
    return f"{label}-{size}" if label in references else f"{label} of size {size}"


def by_method(results: Sequence[CellResult]) -> dict[Key, list[CellResult]]:
    """Results by method and size, with their repetitions in the given order."""
    groups: dict[Key, list[CellResult]] = {}
    for result in results:
        groups.setdefault((result.cell.spec, result.cell.size), []).append(result)
    return groups


class Pairing:
    """Means and differences of methods, on the repetitions that they share (:mod:`benchmarks.statistics`).

    Args:
        groups: scored cells by method and size.
        effects: the effect of a shared pool's members on each score (:mod:`benchmarks.results.pools`).
    """

    def __init__(
        self, groups: Mapping[Key, list[CellResult]], effects: Mapping[str, MemberEffects] | None = None
    ) -> None:
        self._groups, self._effects = groups, effects or {}
        self._results = [result for group in groups.values() for result in group]
        self._crossed = all(result.scores.ids is None for result in self._results)

    def shared(self, score: str, keys: Sequence[Key]) -> tuple[int, ...]:
        """Repetitions in which each of ``keys`` has the score."""
        having = ({r.cell.repetition for r in self._groups[key] if score in r} for key in keys)
        return tuple(sorted(set.intersection(*having))) if keys else ()

    def scores(self, key: Key, score: str, repetitions: Sequence[int]) -> Array:
        """Scores of a method: [R, N] where the repetitions have the same test examples, else their means [R, 1]."""
        values = [result.values(score) for result in self._of(key, repetitions)]
        return np.stack(
            values if self._crossed or len(values) == 1 else [value.mean(keepdims=True) for value in values]
        )

    def mean(self, score: str, key: Key) -> Interval:
        """Mean of a method over all of its repetitions; NaN when it has none.

        A score of whole splits that a member alone does not have, so that the effect of a shared pool's members on it
        is unknown, has no interval: repetitions with the same members would have one of no width.
        """
        if not (repetitions := self.shared(score, [key])):
            return Interval(np.nan, np.nan, np.nan)
        values = self.scores(key, score, repetitions)
        if self._effects and score not in self._effects and score in self._groups[key][0].scores.split:
            return Interval(float(values.mean()), np.nan, np.nan)
        return Means(values[None], self._shared([key], score, repetitions)).interval()

    def difference(self, score: str, mine: Key, theirs: Key) -> Tested | None:
        """Mean of mine - theirs with its interval and p-value; None when no repetition has both.

        NaN, without a test, where a score of either is not finite.
        """
        if not (repetitions := self.shared(score, [mine, theirs])):
            return None
        return self.gaps(score, mine, [theirs], repetitions).test()

    def gaps(self, score: str, mine: Key, others: Sequence[Key], repetitions: Sequence[int]) -> Means:
        """Means of mine minus each of the others."""
        theirs = np.stack([self.scores(key, score, repetitions) for key in others])
        shared = self._shared([mine, *others], score, repetitions)
        minus = np.concatenate([np.ones((len(others), 1)), -np.eye(len(others))], 1)
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            differences = self.scores(mine, score, repetitions) - theirs
        return Means(differences, shared and shared.of(minus))

    def _of(self, key: Key, repetitions: Sequence[int]) -> list[CellResult]:
        found = {result.cell.repetition: result for result in self._groups[key]}
        return [found[repetition] for repetition in repetitions]

    def _shared(self, keys: Sequence[Key], score: str, repetitions: Sequence[int]) -> Shared | None:
        if score not in self._effects:
            return None
        members = [[result.cell.members for result in self._of(key, repetitions)] for key in keys]
        known = [self._groups[key][0].cell.is_reference for key in keys]
        return shared_members(members, known, self._effects[score])

    def statement(self, sharing: str, classes: bool = True) -> list[str]:
        """What intervals and p-values are and what they refer to, in sentences for the report.

        Args:
            sharing: ``shared`` if repetitions share a pool, ``independent`` if each has its own.
            classes: whether classes are predicted, so that DEE and ECE are explained.
        """
        if len({result.cell.repetition for result in self._results}) < 2:
            return ["There is one repetition: without others there is no interval and no p-value."]
        lines = [
            "Intervals are pointwise, of 95 %. For means and differences they are Student's t intervals "
            "over repetitions and test examples, which are crossed; each part of the variance has its own degrees of "
            "freedom. Methods are compared on the same examples and repetitions, so a difference can be significant "
            "although the two intervals overlap. In simulations 93 to 98 % of the intervals cover the truth in most "
            "cases (docs/statistics.md); with two repetitions they are wide."
        ]
        if not self._crossed:
            lines[0] = (
                "Intervals are pointwise, of 95 %. Each repetition splits the data anew and counts as one "
                "observation; means and differences within repetitions have Student's t intervals."
            )
            lines.append("They apply to other random splits of these data and other trainings, not to other data.")
        elif sharing == "independent":
            lines.append("They apply to other pools of members, other trainings and other test examples.")
        elif self._effects:
            lines.append(
                "They apply to other pools, other trainings and other test examples, although all repetitions share "
                "one pool: the effect of a member on deep ensembles is estimated by leaving out each in turn. How much "
                "other methods depend on their members is unknown; the wider of two intervals counts, for no "
                "dependence and for that of the deep ensemble. KL to the ensemble, mutual information and disagreement "
                "are those of this pool alone."
            )
        else:
            lines.append(
                "They apply to other draws from this pool, other trainings and other test examples, not to other "
                "pools: the effect of members cannot be estimated without a deep ensemble."
            )
        return [*lines, *(_TESTS if classes else _TESTS[:1])]


_TESTS = (
    "p-values are those of the same tests, corrected by Holm's method: in the table of differences over all methods "
    "with the same score and kind of reference (one network; the ensemble of the method's size; another method); for "
    "the marks of best and tied over all rivals of the best. The CSV file has the raw p-values too.",
    "The interval of a DEE holds the sizes of deep ensemble that the same test does not distinguish from the method "
    "(at 5 %), so it includes the uncertainty of the ensembles' own curve. A fitted DEE uses NLL = a + b / M, fitted "
    "to all measured sizes with the weight M squared; its interval assumes that form.",
    "The interval of an ECE is that of the plug-in ECE of a test split of this size. The plug-in ECE is too large, "
    "above all for small splits and good calibration; the debiased ECE subtracts an estimate of this bias (after Kumar "
    "et al., 2019) and may be below zero.",
)
