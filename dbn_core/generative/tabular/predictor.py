"""A fitted forest model as a torch module.

>>> import torch
>>> from dbn_core.generative.aggregate import parse_rule
>>> from dbn_core.generative.tabular.data import load_table
>>> from dbn_core.generative.tabular.forest import ForestDiffusion, ForestOptions
>>> table = load_table("iris")
>>> model = ForestDiffusion.fit(table, ForestOptions(trees=3, levels=3, duplicates=1), seed=0)
>>> predictor = ForestPredictor(model, parse_rule("median"))
>>> predictor(torch.zeros(4, 5, 1, 1)).shape, sorted(predictor.noise_error(table))
(torch.Size([4, 5, 1, 1]), ['mse', 'rms'])
"""

from __future__ import annotations

import torch
from torch import nn

from dbn_core.generative.aggregate import Rule
from dbn_core.generative.tabular.data import Array, DataTable
from dbn_core.generative.tabular.forest import ForestDiffusion


class ForestPredictor(nn.Module):
    """New rows of the table, as many as the input [B, D, 1, 1] has; torch's global generator seeds the draws."""

    def __init__(self, model: ForestDiffusion, rule: Rule) -> None:
        super().__init__()
        self.model, self.rule = model, rule

    def forward(self, examples: torch.Tensor) -> torch.Tensor:
        """Rows [B, D, 1, 1]; the values of ``examples`` are not used."""
        seed = int(torch.randint(2**31, (1,)))
        rows = self.model.sample(len(examples), self.rule, seed=seed).values
        return torch.from_numpy(rows).to(examples)[:, :, None, None]

    def noise_error(self, table: DataTable) -> dict[str, Array]:
        """As :meth:`ForestDiffusion.noise_error`."""
        return self.model.noise_error(table, self.rule, seed=0)
