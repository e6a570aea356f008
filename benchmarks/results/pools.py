"""What a shared pool's members do to scores: measured on the deep ensemble, which shows them one by one.  No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.statistics import MemberEffects, member_effects
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import Plan
from dbn_core.errors import ArtefactError
from dbn_core.metrics.scores import Array
from dbn_core.tasks.base import Scores, Task


def pool_effects(plan: Plan, store: Store) -> dict[str, MemberEffects]:
    """Effects of the pool's members by score; nothing where repetitions have pools of their own.

    The largest deep ensemble whose predictions are stored is scored member by member, and without each member in turn.
    """
    if plan.suite.pool.sharing != "shared":
        return {}
    cells = (cell for cell in plan.cells if cell.is_reference and cell.method.nested and cell.size > 1)
    for cell in sorted(cells, key=lambda cell: -cell.size):
        if store.has("predictions", cell.predictions):
            try:
                return _effects(plan.suite.task, store.arrays("predictions", cell.predictions), cell.size)
            except ArtefactError:  # a lost artefact is reported with its cell; another repetition will do
                continue
    return {}


def _effects(task: Task, arrays: Mapping[str, Array], size: int) -> dict[str, MemberEffects]:
    everyone = list(range(size))
    alone = [_scored(task, arrays, [member]) for member in everyone]
    others = [_scored(task, arrays, [other for other in everyone if other != member]) for member in everyone]
    return {
        name: member_effects(*(np.stack([scores.values(name) for scores in each]) for each in (alone, others)))
        for name in [*alone[0].examples, *alone[0].split]
    }


def _scored(task: Task, arrays: Mapping[str, Array], members: Sequence[int]) -> Scores:
    terms = {name: arrays[name][members] for name in ("test", "validation") if name in arrays}
    return task.score({**arrays, **terms})
