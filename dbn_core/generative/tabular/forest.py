"""Forest-VP: a diffusion of tables whose denoiser is one random forest a noise level (arXiv 2309.09968).

The forest of level t predicts the noise from x_t.  Its trees are the members of an ensemble, and a rule of
:mod:`~dbn_core.generative.aggregate` combines their predictions at every step (arXiv 2601.11444).  Forests do not
depend on the rule: one fit serves all rules, and the first K trees are an ensemble of K.

>>> from dbn_core.generative.aggregate import parse_rule
>>> from dbn_core.generative.tabular.data import load_table
>>> from dbn_core.generative.tabular.process import TablePredictor
>>> table = load_table("iris")
>>> model = ForestDiffusion.fit(table, ForestOptions(trees=4, levels=5, duplicates=2), seed=0)
>>> fakes = {name: model.sample(30, parse_rule(name), seed=1) for name in ("arithmetic", "dominant")}
>>> fakes["dominant"].values.shape
(30, 5)
>>> predictor = TablePredictor(model.first(2), parse_rule("median"))
>>> predictor(torch.zeros(4, 5, 1, 1)).shape, predictor.noise_error(table)["mse"].shape
(torch.Size([4, 5, 1, 1]), (5,))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from dbn_core.generative.tabular.coding import Coding
from dbn_core.generative.tabular.data import DataTable
from dbn_core.generative.tabular.process import NoiseLevels, TableDiffusion
from dbn_core.generative.tabular.trees import Trees, pack_trees, unpack_trees


@dataclass(frozen=True)
class ForestOptions(NoiseLevels):
    """Settings of Forest-VP; the defaults are the paper's.

    Attributes:
        trees: M, members of the ensemble.
        depth: largest depth of a tree.
    """

    trees: int = 100
    depth: int = 7


@dataclass(frozen=True)
class ForestDiffusion(TableDiffusion):
    """A fitted Forest-VP.

    Attributes:
        forests: the forest of each level, from the lowest.
    """

    options: ForestOptions
    forests: tuple[Trees, ...]

    @classmethod
    def fit(
        cls, train: DataTable, options: ForestOptions, *, seed: int, coding: Coding | None = None
    ) -> ForestDiffusion:
        """Fit the forests of all levels; ``coding`` is by the ranges of ``train`` unless it is given."""
        from sklearn.ensemble import RandomForestRegressor

        coding = coding or Coding.of(train)
        clean, forests = coding.encode(train), []
        for level in range(options.levels):
            noised, noise, draws = options.noised(clean, level, seed)
            forest = RandomForestRegressor(
                options.trees, max_depth=options.depth, random_state=int(draws.integers(2**31))
            )
            forests.append(Trees.of(forest.fit(noised, noise if coding.width > 1 else noise[:, 0])))
        return cls(options, coding, tuple(forests))

    @property
    def members(self) -> int:
        """The trees."""
        return self.options.trees

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The trees of all levels, as tensors; see :meth:`from_state`."""
        return pack_trees(self.forests)

    @classmethod
    def from_state(
        cls,
        train: DataTable,
        options: ForestOptions,
        state: Mapping[str, torch.Tensor],
        coding: Coding | None = None,
    ) -> ForestDiffusion:
        """The inverse of :meth:`state_dict`, for the table and options of the fit."""
        return cls(options, coding or Coding.of(train), unpack_trees(state))

    def first(self, trees: int) -> ForestDiffusion:
        """The first trees of each forest: the same as a fit with so many trees."""
        forests = tuple(replace(forest, roots=forest.roots[:trees]) for forest in self.forests)
        return replace(self, options=replace(self.options, trees=trees), forests=forests)

    def noise(self, level: int, x: torch.Tensor, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Predictions of each tree of the level's forest; see :meth:`TableDiffusion.noise`."""
        trees = None if chosen is None else chosen.numpy()
        return torch.from_numpy(self.forests[level].predict(x.numpy(), trees))
