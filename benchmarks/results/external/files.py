"""Read files of predictions and labels: .npz, .npy, .csv, .parquet, and .txt for labels.  Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from dbn_core.errors import DataError, did_you_mean
from dbn_core.metrics.scores import Array

# Names of the arrays in an .npz; the first one that it has counts.
_PREDICTIONS, _LABELS = ("test", "predictions"), ("labels", "test_labels")
_OTHERS = (*_LABELS, "validation", "validation_labels")


def read_predictions(path: Path, key: str | None = None) -> dict[str, Array]:
    """The arrays ``test``, ``test_labels``, ``validation`` and ``validation_labels``, as far as a file holds them.

    A table has a row for each example and a column for each class; numbered columns are put in order, and the names of
    others are returned as ``classes``.  Its column ``label`` holds the labels, and ``member`` divides it into M blocks
    of the same N examples.

    Args:
        key: the array of an .npz that holds the predictions, where its name does not tell.

    Raises:
        DataError: the file is missing, unreadable, of an unknown kind, or ambiguous.
    """
    if path.suffix == ".npz":
        return _chosen(path, read_npz(path), key)
    if key is not None:
        raise DataError(f"'{path}' is no .npz file, so it has no array '{key}': leave out --key.")
    return {"test": _load(path)} if path.suffix == ".npy" else _from_table(path, _table(path))


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of an .npz by name.

    Raises:
        DataError: the file is missing, unreadable, or of another kind.
    """
    if path.suffix != ".npz":
        raise DataError(f"'{path}' is no .npz file: save the arrays with numpy.savez.")
    with _reading(path), np.load(path, allow_pickle=False) as file:
        return dict(file)


def read_labels(path: Path, split: str = "test") -> Array:
    """Labels of a split, int64 [N].

    An .npz may call them ``labels`` or, for example, ``test_labels``; a single array may have any name, as may the
    single column of a table, which otherwise is called ``label``.

    Raises:
        DataError: the file is missing, unreadable, or does not hold a class number for each example.
    """
    if path.suffix == ".npz":
        held = read_npz(path)
        name = next((name for name in (f"{split}_labels", *_LABELS, *list(held)[: len(held) == 1]) if name in held), "")
        if not name:
            raise DataError(f"'{path}' holds {', '.join(held) or 'nothing'}: call the array of labels 'labels'.")
        return class_numbers(path, held[name])
    if path.suffix == ".npy":
        return class_numbers(path, _load(path))
    if path.suffix == ".txt":
        with _reading(path):
            return class_numbers(path, np.loadtxt(path, ndmin=1))
    frame = _table(path)
    if "label" not in frame and frame.shape[1] != 1:
        raise DataError(f"'{path}' has {frame.shape[1]} columns: call the one with the labels 'label'.")
    return class_numbers(path, frame["label" if "label" in frame else frame.columns[0]].to_numpy())


def class_numbers(path: Path, labels: Array) -> Array:
    """Labels as int64 [N]; raises :class:`DataError` if they are one-hot, or not whole numbers."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DataError(
            f"'{path}' holds labels of shape {list(labels.shape)}: give class numbers, not one-hot rows (argmax(1))."
        )
    if labels.dtype.kind in "UO":
        raise DataError(f"'{path}' holds labels that are text: give the class number, from 0 in the columns' order.")
    if labels.dtype.kind not in "fiub" or not labels.size or not np.array_equal(labels, np.round(labels)):
        raise DataError(f"'{path}' holds labels that are no whole numbers: give a class number for each example.")
    return labels.reshape(-1).astype(np.int64)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn any error of a reader into a sentence that names the file."""
    if not path.is_file():
        raise DataError(f"File '{path}' does not exist: check the path.")
    try:
        yield
    except Exception as error:  # NumPy, zipfile, pandas and pyarrow raise errors of their own for damaged bytes
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"'{path}' is no readable {path.suffix} file ({reason}): save plain numbers again.") from None


def _load(path: Path) -> Array:
    with _reading(path):
        array: Array = np.load(path, allow_pickle=False)
        return array


def _chosen(path: Path, held: dict[str, Array], key: str | None) -> dict[str, Array]:
    """The arrays of an .npz by the names that :func:`read_predictions` returns."""
    if key is None:
        others = [name for name in held if name not in _OTHERS]
        key = next((name for name in _PREDICTIONS if name in held), others[0] if len(others) == 1 else None)
    elif key not in held:
        raise DataError(f"'{path}' has no array '{key}'{did_you_mean(key, held)}.")
    if key is None:
        raise DataError(
            f"'{path}' holds {', '.join(sorted(held)) or 'nothing'}: say with --key which array has the predictions."
        )
    found = {"test": held[key]} | {name: held[name] for name in _OTHERS[2:] if name in held}
    labels = next((held[name] for name in _LABELS if name in held), None)
    return found if labels is None else found | {"test_labels": labels}


def _table(path: Path) -> pd.DataFrame:
    if path.suffix not in (".csv", ".parquet"):
        raise DataError(f"'{path}' is of no known kind: give .npz, .npy, .csv or .parquet, or .txt for labels.")
    with _reading(path):
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    frame.columns = [str(column).strip() for column in frame.columns]
    if not frame.size:
        raise DataError(f"'{path}' has no rows: write one for each example.")
    if frame.columns[0] == "Unnamed: 0" and _counts_rows(frame.iloc[:, 0]):
        frame = frame.iloc[:, 1:]
    if any(name.startswith("Unnamed: ") for name in frame.columns):
        raise DataError(f"'{path}' has a column without a name: save it without the index (index=False).")
    if twice := [name for name in frame.columns if list(frame.columns).count(name) > 1]:
        raise DataError(f"'{path}' has two columns called '{twice[0]}': give each column a name of its own.")
    if "member" in frame and frame["member"].isna().any():
        raise DataError(f"'{path}' has rows without a member: name the member of each row.")
    if any(_is_fraction(name) for name in frame.columns):
        raise DataError(f"'{path}' has no header line: name the columns, for example by class.")
    return frame


def _counts_rows(column: pd.Series) -> bool:
    """Whether a column is the index that pandas (from 0) or R (from 1) writes."""
    return any(np.array_equal(column, np.arange(start, start + len(column))) for start in (0, 1))


def _is_fraction(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return not name.isdigit()


def _from_table(path: Path, frame: pd.DataFrame) -> dict[str, Array]:
    classes = [str(column) for column in frame if column not in ("member", "label")]
    named = [column for column in classes if not column.isdigit()]
    if not named:
        classes.sort(key=int)
    elif len(named) < len(classes):
        raise DataError(f"'{path}' has the column '{named[0]}' next to numbered classes: keep the columns of classes.")
    if text := [column for column in classes if frame[column].dtype.kind not in "fiu"]:
        raise DataError(f"'{path}' has the column '{text[0]}', which holds no numbers: keep the columns of classes.")
    whole = [column for column in classes if frame[column].dtype.kind in "iu" and frame[column].max() > 1]
    if 0 < len(whole) < len(classes) and len(frame) > 9:  # in few rows logits may be whole by chance
        raise DataError(
            f"'{path}' has the column '{whole[0]}' of whole numbers: keep the columns of classes, and call that of "
            "labels 'label'."
        )
    blocks = [block for _, block in frame.groupby("member", sort=False, dropna=False)] if "member" in frame else [frame]
    if len({len(block) for block in blocks}) > 1:
        raise DataError(f"'{path}' has members with different numbers of rows: give each member the same examples.")
    stacked = np.stack([block[classes].to_numpy() for block in blocks])
    found = {"test": stacked if "member" in frame else stacked[0]}
    if named:
        found["classes"] = np.array(classes)
    if "label" in frame:
        labels = [block["label"].to_numpy() for block in blocks]
        if not all(np.array_equal(labels[0], other) for other in labels[1:]):
            raise DataError(f"'{path}' has members whose labels differ: give each the same examples in the same order.")
        found["test_labels"] = labels[0]
    return found
