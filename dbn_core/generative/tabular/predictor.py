"""Forests as a module that a suite can ask for rows.

>>> import torch
>>> from dbn_core.generative.aggregate import parse_rule
>>> from dbn_core.generative.tabular.data import load_table
>>> from dbn_core.generative.tabular.forest import ForestDiffusion, ForestOptions
>>> train, test = load_table("iris").split(seed=0)
>>> model = ForestDiffusion.fit(train, ForestOptions(trees=3, levels=3, duplicates=1), seed=0)
>>> predictor = ForestPredictor(model, parse_rule("median"))
>>> predictor(torch.zeros(4, 5, 1, 1)).shape, sorted(predictor.pointwise(test))
(torch.Size([4, 5, 1, 1]), ['mse', 'rms'])
"""

from __future__ import annotations

import torch
from torch import nn

from dbn_core.generative.aggregate import Rule
from dbn_core.generative.tabular.data import Array, Table
from dbn_core.generative.tabular.forest import ForestDiffusion


class ForestPredictor(nn.Module):
    """As many rows [B, D, 1, 1] as it is given, whatever these hold; draws are seeded by the global generator."""

    def __init__(self, model: ForestDiffusion, rule: Rule) -> None:
        super().__init__()
        self.model, self.rule = model, rule

    def forward(self, examples: torch.Tensor) -> torch.Tensor:
        """New rows of the table."""
        seed = int(torch.randint(2**31, (1,)))
        rows = self.model.sample(len(examples), self.rule, seed=seed).values
        return torch.from_numpy(rows).to(examples)[:, :, None, None]

    def pointwise(self, table: Table) -> dict[str, Array]:
        """Squared error and size of the predicted noise on a table, by level; nothing of a rule that predicts none."""
        if self.rule.pools != "states":
            return {}
        found = self.model.pointwise(table, self.rule, seed=0)
        return {"mse": found.mse, "rms": found.rms}
