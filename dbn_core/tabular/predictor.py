"""Forests as a module that a suite can ask for rows."""

from __future__ import annotations

import torch
from torch import nn

from dbn_core.aggregate import Rule
from dbn_core.tabular.data import Array, Table
from dbn_core.tabular.forest import ForestDiffusion


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
