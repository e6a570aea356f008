"""A table from a CSV file.

>>> import tempfile
>>> from pathlib import Path
>>> path = Path(tempfile.mkdtemp()) / "fruit.csv"
>>> _ = path.write_text("mass,colour,kind\\n1.5,red,apple\\n2,green,pear\\n1,green,apple\\n")
>>> table = read_csv(path, "kind", "class")
>>> [(column.name, column.kind) for column in table.columns]
[('mass', 'numeric'), ('colour', 'categorical'), ('kind', 'categorical')]
>>> table.values[0].tolist()
[1.5, 1.0, 0.0]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from dbn_core.errors import DataError, did_you_mean
from dbn_core.generative.tabular.data import DataTable, make_table

_CATEGORIES = 100  # the most that a column of text may have: an identifier is no category


def read_csv(
    path: Path,
    target: str,
    target_kind: Literal["class", "number"],
    separator: str = ",",
    columns: Sequence[str] = (),
) -> DataTable:
    """Read a table; the target becomes its last column, texts become codes in alphabetical order.

    Args:
        path: of the file.
        target: name of a column.
        target_kind: whether its values are classes or numbers.
        separator: between columns.
        columns: names, where the first line is a row.

    Raises:
        DataError: the file cannot be read, has no such target, has missing values or texts of too many kinds, or the
            target has one class or is not of the given kind.
    """
    import pandas as pd

    name = path.stem
    try:
        frame = pd.read_csv(path, sep=separator, names=list(columns) or None, index_col=False)
    except (ValueError, UnicodeDecodeError, OSError) as error:  # pandas' own errors are ValueErrors
        raise DataError(f"{path} is no table: {str(error).strip()}. Save it as CSV with one line a row.") from error
    frame.columns = frame.columns.astype(str).str.strip()
    if target not in frame:
        raise DataError(
            f"Table '{name}' has no column '{target}'{did_you_mean(target, frame.columns)}: set `target`, and "
            "`separator` if these are not its columns."
        )
    if missing := [column for column in frame if frame[column].isna().any()]:
        row = int(np.flatnonzero(frame[missing[0]].isna())[0])
        raise DataError(f"Table '{name}', column '{missing[0]}': row {row} is missing: drop such rows or fill them in.")
    frame = frame[[*(column for column in frame if column != target), target]]
    text = [column for column in frame if not pd.api.types.is_numeric_dtype(frame[column].dtype)]
    text += [column for column in frame if pd.api.types.is_bool_dtype(frame[column].dtype)]
    if target_kind == "number" and target in text:
        raise DataError(
            f"The target '{target}' of table '{name}' is text: set target_kind = 'class', or another target."
        )
    chosen = dict.fromkeys([*text, target] if target_kind == "class" else text)
    categories: dict[str, int] = {}
    for column in map(str, chosen):
        codes, values = pd.factorize(frame[column], sort=True)
        if column in text and len(values) > _CATEGORIES and column != target:
            raise DataError(
                f"Table '{name}', column '{column}': it has {len(values)} different texts, more than {_CATEGORIES}: "
                "remove it from the file, or write numbers."
            )
        frame[column], categories[column] = codes, len(values)
    if categories.get(target) == 1:
        raise DataError(f"The target '{target}' of table '{name}' has one class: choose a column with two or more.")
    return make_table(name, list(frame.columns), frame.to_numpy(np.float64), categories)
