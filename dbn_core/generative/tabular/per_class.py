"""Label-conditional generation: a diffusion for each class, of the other columns.

As in ForestDiffusion (arXiv 2309.09968): labels are drawn from their shares in the training rows, and columns are
scaled by the ranges of all of them.

>>> from dbn_core.generative.aggregate import parse_rule
>>> from dbn_core.generative.tabular.data import load_table
>>> from dbn_core.generative.tabular.forest import ForestDiffusion, ForestOptions
>>> table, options = load_table("iris"), ForestOptions(trees=2, levels=3, duplicates=2)
>>> model = PerClass.fit(ForestDiffusion, table, options, seed=0)
>>> model.sample(10, parse_rule("arithmetic"), seed=1).values.shape
(10, 5)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dbn_core.errors import SpecError
from dbn_core.generative.aggregate import Rule
from dbn_core.generative.tabular.coding import Coding
from dbn_core.generative.tabular.data import Array, DataTable
from dbn_core.rng import seed_for


@dataclass(frozen=True)
class PerClass:
    """A diffusion for each class.

    Attributes:
        train: the table that it was fitted on.
        models: by class; None for a class without rows.
    """

    train: DataTable
    models: tuple[Any, ...]

    @classmethod
    def fit(cls, kind: Any, train: DataTable, options: Any, *, seed: int) -> PerClass:
        """Fit a model of a kind, such as ``ForestDiffusion``, on the rows of each class.

        Raises:
            SpecError: the target is a number.
        """
        parts = [
            None
            if rows is None
            else kind.fit(rows, options, seed=seed_for(purpose="class", seed=seed, label=k), coding=c)
            for k, (rows, c) in enumerate(_classes(train))
        ]
        return cls(train, tuple(parts))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Tensors of all models, by ``k/name``; see :meth:`from_state`."""
        return {
            f"{k}/{name}": tensor
            for k, model in enumerate(self.models)
            if model is not None
            for name, tensor in model.state_dict().items()
        }

    @classmethod
    def from_state(cls, kind: Any, train: DataTable, options: Any, state: Mapping[str, torch.Tensor]) -> PerClass:
        """The inverse of :meth:`state_dict`."""
        parts = []
        for k, (rows, coding) in enumerate(_classes(train)):
            own = {name.partition("/")[2]: tensor for name, tensor in state.items() if name.startswith(f"{k}/")}
            parts.append(None if rows is None else kind.from_state(rows, options, own, coding))
        return cls(train, tuple(parts))

    def first(self, trees: int) -> PerClass:
        """With the first trees of each forest."""
        return replace(self, models=tuple(model and model.first(trees) for model in self.models))

    def sample(self, count: int, rule: Rule, *, seed: int) -> DataTable:
        """New rows, of classes in proportion to the training rows."""
        labels = self.train.target.astype(int)
        draws = np.random.default_rng(seed_for(purpose="tabular/labels", seed=seed))
        drawn = draws.choice(labels, count)
        values = np.empty((count, self.train.values.shape[1]))
        for k in np.unique(drawn):
            own = drawn == k
            features = self.models[k].sample(
                int(own.sum()), rule, seed=seed_for(purpose="class", seed=seed, label=int(k))
            )
            values[own] = np.column_stack([features.values, np.full(own.sum(), k)])
        return self.train.with_values(values)

    def noise_error(self, table: DataTable, rule: Rule, *, seed: int) -> dict[str, Array]:
        """As :meth:`~dbn_core.generative.tabular.process.TableDiffusion.noise_error`, mean over the rows' own models.

        It is that of the columns without the class, so it cannot be compared with the error of one model of all.
        """
        found: dict[str, list[tuple[int, Array]]] = {}
        for model, (rows, _) in zip(self.models, _classes(table), strict=True):
            if rows is not None and model is not None:
                for name, values in model.noise_error(rows, rule, seed=seed).items():
                    found.setdefault(name, []).append((len(rows), values**2 if name == "rms" else values))
        means = {name: np.average([v for _, v in all_], 0, [n for n, _ in all_]) for name, all_ in found.items()}
        return {name: np.sqrt(mean) if name == "rms" else mean for name, mean in means.items()}


def _classes(table: DataTable) -> list[tuple[DataTable | None, Coding | None]]:
    """The rows of each class without the class, and their coding by the ranges of the whole table."""
    if not table.classifies:
        raise SpecError(
            f"per_class needs a table whose target is a class, and that of '{table.name}' is a number: "
            "leave per_class out."
        )
    whole = DataTable(table.name, table.columns[:-1], table.values[:, :-1])
    coding, found = Coding.of(whole), []
    for k in range(table.columns[-1].categories):
        own = table.target == k
        rows = whole.with_values(whole.values[own]) if own.any() else None
        found.append((rows, None if rows is None else replace(coding, train=rows)))
    return found
