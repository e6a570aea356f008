"""Tables as data: those of scikit-learn, and those of CSV files."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from dbn_core.data.dataset import Dataset, Split, stratified_split
from dbn_core.data.sources import BundledSource, Fraction
from dbn_core.errors import DataError
from dbn_core.rng import generator

if TYPE_CHECKING:
    from dbn_core.generative.tabular.data import DataTable


class _Rows(BundledSource):
    """Rows of a table, [D, 1, 1] in its units; the label is the class, or 0 where the target is a number.

    Validation is one row of train, since nothing is selected on it.
    """

    test_fraction: Fraction = 0.2
    split: Literal["fixed", "repetition"] = "repetition"

    @abstractmethod
    def _table(self) -> DataTable:
        """All rows."""

    def load(self) -> Dataset:
        """Split the table, stratified by class where it has classes."""
        if self.resplits:
            return self.for_repetition(0).load()
        import torch

        table = self._table()
        rows = torch.from_numpy(table.values).float()[:, :, None, None]
        labels = (
            torch.from_numpy(table.target).long() if table.classifies else torch.zeros(len(rows), dtype=torch.int64)
        )
        draws = generator(purpose="table/split", table=table.name, seed=self.split_seed)
        test, train = stratified_split(labels, self.test_fraction, draws)
        last = table.columns[-1]
        return Dataset(
            name=table.name,
            title=f"{table.name} ({len(table)} rows of {len(table.columns)})",
            train=Split(rows[train], labels[train]),
            validation=Split(rows[train[:1]], labels[train[:1]]),
            test=Split(rows[test], labels[test]),
            classes=tuple(str(code) for code in range(last.categories or 1)),
            mean=(0.0,) * len(table.columns),
            std=(1.0,) * len(table.columns),
            flip=False,
            test_ids=test,
            columns=table.columns,
        )


class TableSource(_Rows):
    """A table of scikit-learn.

    Attributes:
        name: of the table.
    """

    summary: ClassVar[str] = "tables that come with scikit-learn: iris, wine, diabetes, breast-cancer"

    source: Literal["table"] = "table"
    name: Annotated[str, Field(pattern=r"^(iris|wine|diabetes|breast-cancer)$")] = "iris"

    def _table(self) -> DataTable:
        from dbn_core.generative.tabular.data import load_table

        return load_table(self.name)


class CsvSource(_Rows):
    """A table in a CSV file, one row a line.  Columns of text are categories; no value may be missing.

    Attributes:
        file: where it is; ``~`` is the home folder.
        target: name of the column that learners predict.
        target_kind: ``class`` makes each of its values a category.
        separator: between columns.
        columns: their names, if the file has no line of them.
        obtain: where to get the file, in a sentence that is shown if it is missing.
    """

    summary: ClassVar[str] = "a table in a CSV file"

    source: Literal["csv"] = "csv"
    file: Path | None = None
    target: str = ""
    target_kind: Literal["class", "number"] = "class"
    separator: str = Field(",", min_length=1)
    columns: tuple[str, ...] = ()
    obtain: str | None = None

    def _path(self) -> Path:
        if self.file is None:
            raise DataError("The data source 'csv' needs a table: set `file` of [data] to it.")
        path = self.file.expanduser().resolve()
        if not path.is_file():
            raise DataError(f"There is no file {path}: set `file` of [data] to the table. {self.obtain or ''}".strip())
        return path

    def identity(self) -> dict[str, Any]:
        """Options, and path, size and modification time of the file."""
        path = self._path()
        stat = path.stat()
        options = self.model_dump(mode="json", exclude={"obtain"})
        return {**options, "version": self.version, "file": [str(path), stat.st_size, stat.st_mtime_ns]}

    def _table(self) -> DataTable:
        from dbn_core.generative.tabular.files import read_csv

        return read_csv(self._path(), self.target, self.target_kind, self.separator, self.columns)
