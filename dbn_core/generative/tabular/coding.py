"""Conversion between a table and numbers in [-1, 1], so that noise has the same size in every column.

>>> import numpy as np
>>> from dbn_core.generative.tabular.coding import Coding
>>> from dbn_core.generative.tabular.data import make_table
>>> table = make_table("t", ["length", "class"], np.array([[1.5, 0], [2.0, 1], [2.5, 2]]), {"class": 3})
>>> coding = Coding.of(table)
>>> coding.encode(table).tolist()
[[-1.0, -1.0, -1.0], [0.0, 1.0, -1.0], [1.0, -1.0, 1.0]]
>>> coding.decode(np.array([[9.0, -0.1, 0.2]])).values.tolist()
[[2.5, 2.0]]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dbn_core.generative.tabular.data import Array, DataTable


@dataclass(frozen=True)
class Coding:
    """Min-max scaling to [-1, 1] by the training ranges; K categories become K-1 dummies of -1 and 1 (first dropped).

    Attributes:
        train: the table that the ranges are taken from.
        low, high: ranges of its D columns, float64 [D].
    """

    train: DataTable
    low: Array
    high: Array

    @classmethod
    def of(cls, train: DataTable) -> Coding:
        """Coding by the ranges of a training table."""
        return cls(train, train.values.min(0), train.values.max(0))

    @property
    def width(self) -> int:
        """Number of coded columns."""
        return sum(c.categories - 1 if c.kind == "categorical" else 1 for c in self.train.columns)

    def encode(self, table: DataTable) -> Array:
        """Rows [N, D] as numbers [N, ``width``], float64; a column that is constant in training is -1."""
        parts = []
        for column, values, low, high in zip(self.train.columns, table.values.T, self.low, self.high, strict=True):
            if column.kind == "categorical":
                parts.append(2.0 * (values[:, None] == np.arange(1, column.categories)) - 1)
            else:
                parts.append(2 * (values[:, None] - low) / _span(low, high) - 1)
        return np.concatenate(parts, axis=1)

    def decode(self, coded: Array) -> DataTable:
        """The inverse of :meth:`encode` for any numbers [N, ``width``].

        The largest dummy decides the category; if all are below 0, it is the dropped one.  Numbers are clipped to the
        training range, and rounded in integer columns.
        """
        columns, start = [], 0
        for column, low, high in zip(self.train.columns, self.low, self.high, strict=True):
            if column.kind == "categorical":
                dummies = coded[:, start : (start := start + column.categories - 1)]
                with_dropped = np.column_stack([np.zeros(len(coded)), dummies])
                columns.append(with_dropped.argmax(1).astype(np.float64))
            else:
                values = np.clip((coded[:, start] + 1) / 2 * _span(low, high) + low, low, high)
                columns.append(values.round() if column.kind == "integer" else values)
                start += 1
        return self.train.with_values(np.column_stack(columns))


def _span(low: float, high: float) -> float:
    """Width of a range, 1 for a constant."""
    return high - low if high > low else 1.0
