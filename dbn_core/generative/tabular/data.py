"""Tables with kinds of columns, and four that come with scikit-learn.

>>> iris = load_table("iris")
>>> len(iris), iris.columns[-1].name, iris.columns[-1].kind
(150, 'class', 'categorical')
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from dbn_core.errors import DataError, SpecError, did_you_mean

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Kind = Literal["numeric", "integer", "categorical"]


@dataclass(frozen=True)
class Column:
    """Description of a column.

    Attributes:
        name: for messages.
        kind: ``numeric`` and ``integer`` are ordered, ``categorical`` holds codes 0..K-1.
        categories: K, the number of categories; 0 for the other kinds.
    """

    name: str
    kind: Kind
    categories: int = 0


@dataclass(frozen=True)
class DataTable:
    """Rows without missing values; the last column is the target.

    Attributes:
        name: for messages.
        columns: D descriptions.
        values: float64 [N, D].

    Raises:
        DataError: a missing or infinite value, a fraction in an integer column, or an unknown code.
    """

    name: str
    columns: tuple[Column, ...]
    values: Array

    def __post_init__(self) -> None:
        for column, values in zip(self.columns, self.values.T, strict=True):
            if wrong := _problem(column, values):
                raise DataError(f"Table '{self.name}', column '{column.name}': {wrong}")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def target(self) -> Array:
        """The last column, float64 [N]."""
        return self.values[:, -1]

    @property
    def classifies(self) -> bool:
        """Whether the target is a class; otherwise it is a number."""
        return self.columns[-1].kind == "categorical"

    def with_values(self, values: Array) -> DataTable:
        """Other rows of the same columns."""
        return DataTable(self.name, self.columns, np.asarray(values, np.float64))


def _problem(column: Column, values: Array) -> str:
    """What is wrong with the values of a column, and the remedy; empty if nothing is."""
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        return f"row {row} is missing or infinite: drop such rows or fill them in."
    if column.kind != "numeric" and (values != values.round()).any():
        return "it has fractions, but its kind is for whole numbers: declare it 'numeric'."
    if column.kind == "categorical" and len(values) and not (values.min() >= 0 and values.max() < column.categories):
        return f"codes must be 0..{column.categories - 1}: number its categories from 0."
    return ""


def make_table(name: str, names: list[str], values: Array, categorical: dict[str, int]) -> DataTable:
    """A table; columns of whole numbers are integer unless ``categorical`` gives their number of categories."""

    def kind(column: str, numbers: Array) -> Column:
        if column in categorical:
            return Column(column, "categorical", categorical[column])
        return Column(column, "integer" if (numbers == numbers.round()).all() else "numeric")

    values = np.asarray(values, np.float64)
    return DataTable(name, tuple(kind(c, v) for c, v in zip(names, values.T, strict=True)), values)


# Iris 150 x 5, wine 178 x 14 (cultivars; not Wine Quality), diabetes 442 x 11 (regression), breast cancer 569 x 31.
TABLES = ("iris", "wine", "diabetes", "breast-cancer")


def load_table(name: str) -> DataTable:
    """One of :data:`TABLES`.

    Raises:
        SpecError: unknown name.
    """
    from sklearn import datasets

    if name not in TABLES:
        raise SpecError(f"Unknown table '{name}'{did_you_mean(name, TABLES)}.")
    options: dict[str, Any] = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name.replace('-', '_')}")(**options)
    names, values = [*map(str, bunch.feature_names)], np.column_stack([bunch.data, bunch.target])
    if name == "diabetes":
        values[:, names.index("sex")] -= 1  # coded 1 and 2
        return make_table(name, [*names, "progression"], values, {"sex": 2})
    return make_table(name, [*names, "class"], values, {"class": len(bunch.target_names)})
