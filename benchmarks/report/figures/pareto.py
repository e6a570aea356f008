"""The Pareto front: what no other point beats in cost and in quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def front(costs: Sequence[float], losses: Sequence[float]) -> np.ndarray:
    """Say which points are on the front, [N] of bool, where less is better in both.

    A point dominates another where it is nowhere worse and somewhere better, so that equal points stand or fall
    together.  A point with a NaN is not on the front, and dominates none.
    """
    cost, loss = np.asarray(costs, dtype=float), np.asarray(losses, dtype=float)
    better = (cost < cost[:, None]) | (loss < loss[:, None])
    dominated = (cost <= cost[:, None]) & (loss <= loss[:, None]) & better
    return np.asarray(~(np.isnan(cost) | np.isnan(loss) | dominated.any(axis=1)))
