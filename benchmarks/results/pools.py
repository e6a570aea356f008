"""How scores vary with the members of a pool that repetitions share, measured on the deep ensemble.  No torch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.statistics import Shared
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Plan
from dbn_core.errors import ArtefactError
from dbn_core.metrics.scores import Array
from dbn_core.tasks.base import Scores, Task


@dataclass(frozen=True)
class MemberEffects:
    """The variance of scores between members of a pool, estimated from P members.

    Attributes:
        covariance: [2, 2], of a member's own score and the score of the deep ensemble of the P - 1 others; of means
            over the population of examples, not only over the test split.
        members: P.
    """

    covariance: Array
    members: int


def member_effects(alone: Array, others: Array) -> MemberEffects:
    """Estimate from per-example scores [P, N] of each member alone, and of the ensemble of the others (a jackknife).

    Members and examples are crossed.  The interaction, which the examples' part of
    :class:`~benchmarks.statistics.Means` contains already, is subtracted: ``(MS_members - MS_residual) / N``.
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
    """The covariance of K methods' means between repetitions, through the members that they share.

    To first order (Hoeffding, 1948), a method of k members varies with each member by 1 / k of the member's effect on a
    deep ensemble of k.  That holds for deep ensembles.  How much other methods vary with the members that taught them
    is unknown: both extremes are computed, no dependence and that of the ensemble, and the wider one counts.

    Args:
        members: [K][R], the members of each method in each repetition.
        known: [K], whether a method is a deep ensemble.
        effects: those of the pool's members.
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

    For the ensemble of n it is -n times the score of the n others.  In between it is linear in 1 / size, as the
    ensemble's score is to that order (:func:`dbn_core.metrics.dee.fit_weights`).
    """
    alone = np.array([1.0, 0.0])
    if n < 2:
        return alone
    limit = np.array([-1.0, -n * n]) / (n - 1)
    return limit + (alone - limit) / size


def pool_effects(plan: Plan, store: Store) -> dict[str, MemberEffects]:
    """Effects of the pool's members, by score; empty if each repetition has its own pool.

    Each member of the largest stored deep ensemble is scored alone, and so is the ensemble without it.
    """
    if plan.suite.pool.sharing != "shared":
        return {}
    cells = (cell for cell in plan.cells if cell.is_reference and cell.method.nested and cell.size > 1)
    for cell in sorted(cells, key=lambda cell: -cell.size):
        if store.has("predictions", cell.predictions):
            try:
                arrays = store.arrays("predictions", cell.predictions)
            except ArtefactError:  # a lost artefact is reported with its cell; use another repetition
                continue
            alone, others = (
                [_scored(plan.suite.task, arrays, members) for members in each] for each in leave_one_out(cell.size)
            )
            return effects(alone, others)
    return {}


def leave_one_out(size: int) -> tuple[list[list[int]], list[list[int]]]:
    """The members of a pool one by one, and for each all others."""
    members = range(size)
    return [[member] for member in members], [[other for other in members if other != member] for member in members]


def effects(alone: Sequence[Scores], others: Sequence[Scores]) -> dict[str, MemberEffects]:
    """Effects by score, from the scores of each member alone and of the ensemble of all others."""
    return {
        name: member_effects(*(np.stack([scores.values(name) for scores in each]) for each in (alone, others)))
        for name in [*alone[0].examples, *alone[0].split]
    }


def _scored(task: Task, arrays: Mapping[str, Array], members: Sequence[int]) -> Scores:
    terms = {name: arrays[name][members] for name in ("test", "validation") if name in arrays}
    return task.score({**arrays, **terms})
