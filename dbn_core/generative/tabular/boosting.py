"""Gradient-boosted trees as the predictor of the noise: one booster for each noise level and coded column.

ForestDiffusion (arXiv 2309.09968) boosts with XGBoost; this is scikit-learn's histogram-based booster.  Its trees
correct each other, so that they are no members of an ensemble and no rule combines them.

>>> from dbn_core.generative.aggregate import parse_rule
>>> from dbn_core.generative.tabular.data import load_table
>>> options = BoostingOptions(trees=3, levels=4, duplicates=2)
>>> model = BoostedDiffusion.fit(load_table("iris"), options, seed=0)
>>> model.sample(20, parse_rule("arithmetic"), seed=1).values.shape
(20, 5)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from dbn_core.generative.tabular.coding import Coding
from dbn_core.generative.tabular.data import DataTable
from dbn_core.generative.tabular.process import NoiseLevels, TableDiffusion
from dbn_core.generative.tabular.trees import Trees, pack_trees, unpack_trees


@dataclass(frozen=True)
class BoostingOptions(NoiseLevels):
    """Settings of the boosters; numbers of trees, depth and rate are ForestDiffusion's, leaves are scikit-learn's.

    Attributes:
        trees: of a booster.
        depth: largest depth of a tree.
        leaves: largest number of a tree's leaves.
        learning_rate: factor of each tree.
    """

    trees: int = 100
    depth: int = 7
    leaves: int = 31
    learning_rate: float = 0.3


@dataclass(frozen=True)
class BoostedDiffusion(TableDiffusion):
    """A fitted diffusion by boosters.

    Attributes:
        boosters: of each level from the lowest, and in it of each coded column; a prediction is the trees' sum.
    """

    options: BoostingOptions
    boosters: tuple[Trees, ...]

    @classmethod
    def fit(
        cls, train: DataTable, options: BoostingOptions, *, seed: int, coding: Coding | None = None
    ) -> BoostedDiffusion:
        """Fit the boosters of all levels; ``coding`` is by the ranges of ``train`` unless it is given."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        coding = coding or Coding.of(train)
        clean, boosters = coding.encode(train), []
        for level in range(options.levels):
            noised, noise, draws = options.noised(clean, level, seed)
            for column in range(coding.width):
                model = HistGradientBoostingRegressor(
                    max_iter=options.trees,
                    max_depth=options.depth,
                    max_leaf_nodes=options.leaves,
                    learning_rate=options.learning_rate,
                    early_stopping=False,
                    random_state=int(draws.integers(2**31)),
                )
                boosters.append(Trees.boosted(model.fit(noised, noise[:, column])))
        return cls(options, coding, tuple(boosters))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The trees of all boosters, as tensors; see :meth:`from_state`."""
        return pack_trees(self.boosters)

    @classmethod
    def from_state(
        cls,
        train: DataTable,
        options: BoostingOptions,
        state: Mapping[str, torch.Tensor],
        coding: Coding | None = None,
    ) -> BoostedDiffusion:
        """The inverse of :meth:`state_dict`, for the table and options of the fit."""
        return cls(options, coding or Coding.of(train), unpack_trees(state))

    def noise(self, level: int, x: torch.Tensor, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Sums of the trees: [1, N, W], or [N, W] if the one member is ``chosen``."""
        width, rows = self.coding.width, x.numpy()
        boosters = self.boosters[level * width : (level + 1) * width]
        found = torch.from_numpy(np.column_stack([booster.predict(rows).sum(0) for booster in boosters]))
        return found[None] if chosen is None else found
