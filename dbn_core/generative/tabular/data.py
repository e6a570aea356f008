"""Tables with kinds of columns, and four that scikit-learn brings along: no download.

>>> from dbn_core.generative.tabular.data import load_table
>>> iris = load_table("iris")
>>> len(iris), iris.columns[-1].name, iris.columns[-1].kind
(150, 'class', 'categorical')
>>> train, test = iris.split(seed=0)
>>> len(train), len(test)
(120, 30)
>>> import numpy as np
>>> np.bincount(test.target.astype(int)).tolist()
[10, 10, 10]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from dbn_core.errors import DataError, SpecError, did_you_mean

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Kind = Literal["numeric", "integer", "categorical"]


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Attributes:
        name: shown in messages.
        kind: ``numeric`` and ``integer`` have an order, ``categorical`` holds codes 0..K-1.
        categories: K, the number of categories; 0 where the kind is another.
    """

    name: str
    kind: Kind
    categories: int = 0


@dataclass(frozen=True)
class Table:
    """Rows without missing values; the last column is the target.

    Attributes:
        name: shown in messages.
        columns: D descriptions.
        values: float64 [N, D].

    Raises:
        DataError: for another shape, a missing or infinite value, a fraction in an integer column, or an unknown code.
    """

    name: str
    columns: tuple[Column, ...]
    values: Array

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.columns):
            raise DataError(
                f"Table '{self.name}' has values of shape {self.values.shape}: give a row for each example, and in"
                f" it a number for each of the {len(self.columns)} columns."
            )
        for column, values in zip(self.columns, self.values.T, strict=True):
            if wrong := _complaint(column, values):
                raise DataError(f"Table '{self.name}', column '{column.name}': {wrong}")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def target(self) -> Array:
        """The last column, float64 [N]."""
        return self.values[:, -1]

    @property
    def classifies(self) -> bool:
        """Whether the target is a class; a number to regress on otherwise."""
        return self.columns[-1].kind == "categorical"

    def with_values(self, values: Array) -> Table:
        """Other rows of the same columns."""
        return Table(self.name, self.columns, np.asarray(values, np.float64))

    def split(self, seed: int, test_fraction: float = 0.2) -> tuple[Table, Table]:
        """Train and test tables, drawn by the seed; each class in proportion where the target is one.

        Raises:
            SpecError: when the fraction is out of [0, 1].
        """
        import torch

        from dbn_core.data.dataset import stratified_split
        from dbn_core.seeds import generator

        strata = self.target.astype(np.int64) if self.classifies else np.zeros(len(self), np.int64)
        draws = generator(purpose="tabular/split", table=self.name, seed=seed)
        test, train = stratified_split(torch.from_numpy(strata), test_fraction, draws)
        return self.with_values(self.values[train.numpy()]), self.with_values(self.values[test.numpy()])


def _complaint(column: Column, values: Array) -> str:
    """What is wrong with a column's values and how to mend it; empty where nothing is."""
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        return f"row {row} is missing or infinite: drop such rows or fill them in."
    if column.kind != "numeric" and (values != values.round()).any():
        return "fractions in a column of whole numbers: call it 'numeric'."
    if column.kind == "categorical" and len(values) and not (values.min() >= 0 and values.max() < column.categories):
        return f"codes must be 0..{column.categories - 1}: number its categories from 0."
    return ""


def make_table(name: str, names: list[str], values: Array, categorical: dict[str, int]) -> Table:
    """A table whose columns of whole numbers are integer, unless they are named as categorical with their number."""

    def kind(column: str, numbers: Array) -> Column:
        if column in categorical:
            return Column(column, "categorical", categorical[column])
        return Column(column, "integer" if (numbers == numbers.round()).all() else "numeric")

    values = np.asarray(values, np.float64)
    return Table(name, tuple(kind(c, v) for c, v in zip(names, values.T, strict=True)), values)


def _bundled(name: str, bunch: Any) -> Table:
    """A classification set of scikit-learn."""
    values = np.column_stack([bunch.data, bunch.target])
    return make_table(name, [*map(str, bunch.feature_names), "class"], values, {"class": len(bunch.target_names)})


def _iris() -> Table:
    from sklearn.datasets import load_iris

    return _bundled("iris", load_iris())


def _wine() -> Table:
    from sklearn.datasets import load_wine

    return _bundled("wine", load_wine())


def _breast_cancer() -> Table:
    from sklearn.datasets import load_breast_cancer

    return _bundled("breast-cancer", load_breast_cancer())


def _diabetes() -> Table:
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    names = [*map(str, bunch.feature_names), "progression"]
    values = np.column_stack([bunch.data, bunch.target])
    values[:, names.index("sex")] -= 1  # coded 1 and 2
    return make_table("diabetes", names, values, {"sex": 2})


# Iris 150 x 5, wine 178 x 14 (cultivars; not Wine Quality), diabetes 442 x 11 (regression), breast cancer 569 x 31.
TABLES: dict[str, Callable[[], Table]] = {
    "iris": _iris,
    "wine": _wine,
    "diabetes": _diabetes,
    "breast-cancer": _breast_cancer,
}


def load_table(name: str) -> Table:
    """One of :data:`TABLES`.

    Raises:
        SpecError: for a name that is not there.
    """
    if name not in TABLES:
        raise SpecError(f"There is no table '{name}'{did_you_mean(name, TABLES)}.")
    return TABLES[name]()
