"""Scored cells, and how two methods are compared: paired, on the repetitions that both have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.results.scoring import Scores
from benchmarks.statistics import Interval, PairedBootstrap
from benchmarks.suite.plan import Cell, Plan
from dbn_core.metrics.scores import Array
from dbn_core.seeds import seed_for

Key = tuple[str, int]  # what a summary row is of: (spec, size)
Contrast = tuple[tuple[str, int], tuple[str, int]]  # two of (label, size) to be compared


@dataclass(kw_only=True)
class CellResult(Scores):
    """Scores of one cell on the test split."""

    cell: Cell


def method_name(label: str, size: int) -> str:
    """Return `DE-3` for a deep ensemble and `DBN (fixed) of size 3` for anything else; so does `comparisons.csv`."""
    return f"{label}-{size}" if label == "DE" else f"{label} of size {size}"


def by_method(results: Sequence[CellResult]) -> dict[Key, list[CellResult]]:
    """Results by method and size, each with its repetitions in the order given."""
    groups: dict[Key, list[CellResult]] = {}
    for result in results:
        groups.setdefault((result.cell.spec, result.cell.size), []).append(result)
    return groups


class Pairing:
    """Compares methods on the repetitions that they share, with the same bootstrap draws for every comparison."""

    def __init__(self, plan: Plan, groups: Mapping[Key, list[CellResult]]) -> None:
        self._plan, self._groups = plan, groups
        self._bootstraps: dict[int, PairedBootstrap] = {}

    def shared(self, score: str, keys: Sequence[Key]) -> tuple[int, ...]:
        """Repetitions in which each of ``keys`` has the score."""
        having = ({r.cell.repetition for r in self._groups[key] if score in r.examples} for key in keys)
        return tuple(sorted(set.intersection(*having))) if keys else ()

    def scores(self, key: Key, score: str, repetitions: Sequence[int]) -> Array:
        """Per-example scores of a method, [R, N]."""
        found = {r.cell.repetition: r.examples[score] for r in self._groups[key] if r.cell.repetition in repetitions}
        return np.stack([found[repetition] for repetition in repetitions])

    def bootstrap(self, repetitions: int) -> PairedBootstrap:
        """The draws for so many repetitions; they depend on nothing but the suite."""
        if repetitions not in self._bootstraps:
            suite = self._plan.suite
            rng = np.random.default_rng(seed_for(suite=suite.name, seed=suite.seed, purpose="bootstrap"))
            examples = self._plan.data.counts["test"]
            self._bootstraps[repetitions] = PairedBootstrap(repetitions, examples, suite.bootstrap, rng)
        return self._bootstraps[repetitions]

    def difference(self, score: str, mine: Key, theirs: Key) -> tuple[Interval, float] | None:
        """Mean of mine - theirs with its interval and p-value; None when no repetition has both."""
        if not (repetitions := self.shared(score, [mine, theirs])):
            return None
        mine_, theirs_ = (self.scores(key, score, repetitions) for key in (mine, theirs))
        return self.bootstrap(len(repetitions)).difference(mine_, theirs_)
