"""Files of predictions and labels: .npz, .npy, .csv, .parquet, and .txt for labels.  Nothing is unpickled."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from dbn_core.errors import DataError, did_you_mean
from dbn_core.metrics.scores import Array

LABEL_NAMES = ("labels", "test_labels")
_TEST_NAMES = ("test", "predictions")
_OTHERS = (*LABEL_NAMES, "validation", "validation_labels")
_MEMBER, _LABEL = "member", "label"
CLASSES = "classes"  # the entry with the names of a table's columns, where they are not numbers


def read_arrays(path: Path, key: str | None = None) -> dict[str, Array]:
    """``predictions`` of a file, and ``labels``, ``validation`` and ``validation_labels`` where it holds them.

    A table has a column for each class and a row for each example.  A column ``member`` divides it into M blocks of the
    same N examples; a column ``label`` holds the labels; named columns are returned as ``classes``.

    Raises:
        DataError: the file is missing, unreadable, empty, of an unknown kind, or ambiguous.
    """
    if path.suffix == ".npz":
        return _numpy(path, lambda names: _choose(path, names, key))
    if key is not None:
        raise DataError(f"'{path}' is no .npz file, so it has no array '{key}': leave out --key.")
    if path.suffix == ".npy":
        return {"predictions": _numpy(path)[""]}
    return _from_table(path, _table(path, "predictions", ".npz, .npy, .csv or .parquet"))


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of an .npz by name.

    Raises:
        DataError: the file is missing, unreadable, or of another kind.
    """
    if path.suffix != ".npz":
        raise DataError(f"'{path}' is no .npz file: save the arrays with numpy.savez.")
    return _numpy(path)


def read_labels(path: Path, names: Sequence[str] = LABEL_NAMES) -> Array:
    """Labels, int64 [N].

    Args:
        names: of the array in an .npz, in order of preference; a single array may have any name.

    Raises:
        DataError: the file is missing, unreadable, or does not hold one whole number for each example.
    """
    if path.suffix in (".npz", ".npy"):

        def choose(held: Sequence[str]) -> dict[str, str]:
            chosen = next((name for name in (*names, *held[: len(held) == 1]) if name in held), None)
            if chosen is None:
                listed = ", ".join(sorted(held)) or "nothing"
                raise DataError(f"'{path}' holds {listed}: call the array of labels '{names[0]}'.")
            return {"": chosen}

        return class_numbers(path, _numpy(path, choose)[""])
    if path.suffix == ".txt":
        _exists(path)
        try:
            return class_numbers(path, np.array(path.read_text(encoding="utf-8").split(), np.float64))
        except ValueError as error:
            raise DataError(f"'{path}' is not a list of labels ({error}): write one number a line.") from None
    frame = _table(path, "labels", ".npy, .npz, .csv, .parquet or .txt")
    if _LABEL not in frame and frame.shape[1] != 1:
        raise DataError(f"'{path}' has {frame.shape[1]} columns: call the one with the labels '{_LABEL}'.")
    return class_numbers(path, frame[_LABEL if _LABEL in frame else frame.columns[0]].to_numpy())


def class_numbers(path: Path, labels: Array) -> Array:
    """Labels as int64 [N]; raises :class:`DataError` if they are one-hot, fractional, or not numbers."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DataError(
            f"'{path}' holds labels of shape {list(labels.shape)}: give class numbers, not one-hot rows (argmax(1))."
        )
    labels = labels.reshape(-1) if labels.ndim == 2 else labels
    if labels.ndim != 1 or labels.dtype.kind not in "fiub":
        raise DataError(
            f"'{path}' holds labels of shape {list(labels.shape)} and type {labels.dtype}: give one class number for "
            "each example."
        )
    if not len(labels):
        raise DataError(f"'{path}' holds no labels: give one for each example.")
    if labels.dtype.kind == "f" and not np.all(np.isfinite(labels) & (labels == np.round(labels))):
        raise DataError(f"'{path}' has labels that are not whole numbers: give class numbers from 0.")
    return labels.astype(np.int64)


def _exists(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"File '{path}' does not exist: check the path.")


def _numpy(path: Path, choose: Callable[[Sequence[str]], dict[str, str]] | None = None) -> dict[str, Array]:
    """The arrays of an .npz by name; that of an .npy under the empty name.

    Args:
        choose: maps the names in an .npz to the arrays to read, {returned name: name in the file}; None: all.
    """
    _exists(path)
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if not hasattr(loaded, "files"):
                return {"": loaded}
            names = choose(loaded.files) if choose else {name: name for name in loaded.files}
            return {name: loaded[source] for name, source in names.items()}
    except DataError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib each raise errors of their own for damaged bytes
        if "allow_pickle" in str(error):
            raise DataError(
                f"'{path}' holds no plain numbers, perhaps pickled objects, which are not loaded: save numbers."
            ) from None
        raise DataError(f"'{path}' is no readable {path.suffix} file ({_reason(error)}): save it again.") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _choose(path: Path, arrays: Sequence[str], key: str | None) -> dict[str, str]:
    """Which arrays of an .npz hold the predictions and labels, by the names that :func:`read_arrays` returns."""
    if key is not None and key not in arrays:
        raise DataError(f"'{path}' has no array '{key}'{did_you_mean(key, arrays)}.")
    if key is None:
        unnamed = [name for name in arrays if name not in _OTHERS]
        known = [name for name in _TEST_NAMES if name in arrays]
        if not known and len(unnamed) != 1:
            listed = ", ".join(sorted(arrays)) or "nothing"
            raise DataError(f"'{path}' holds {listed}: say with --key which array has the predictions.")
        key = (known or unnamed)[0]
    found = {"predictions": key}
    for source in reversed(_OTHERS):  # "labels" wins over "test_labels"
        if source in arrays and source != key:
            found["labels" if source in LABEL_NAMES else source] = source
    return found


def _table(path: Path, what: str, known: str) -> pd.DataFrame:
    if path.suffix not in (".csv", ".parquet"):
        raise DataError(f"'{path}' is of no known kind: {what} come as {known}.")
    _exists(path)
    try:
        header = _header(path) if path.suffix == ".csv" else []  # pandas renames columns of the same name
        frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except Exception as error:  # pandas and pyarrow each raise errors of their own for damaged bytes
        raise DataError(f"'{path}' is no readable {path.suffix} file ({_reason(error)}): save it again.") from None
    frame.columns = [str(column).strip() for column in frame.columns]
    if not frame.size:
        raise DataError(f"'{path}' has no rows: write one for each example.")
    names = list(frame.columns)
    if repeated := [name for name, count in Counter(header or names).items() if name and count > 1]:
        raise DataError(f"'{path}' has two columns called '{repeated[0]}': give each class a column of its own.")
    if any(name.startswith("Unnamed: ") for name in names):
        raise DataError(f"'{path}' has a column without a name: save it without the index (index=False).")
    if any(_is_number(name) and not name.isdigit() for name in names):
        raise DataError(f"'{path}' has no header line: name the columns, for example by class.")
    return frame


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [name.strip() for name in next((row for row in csv.reader(file) if row), [])]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _from_table(path: Path, frame: pd.DataFrame) -> dict[str, Array]:
    classes = [str(column) for column in frame if column not in (_MEMBER, _LABEL)]
    named = [column for column in classes if not column.isdigit()]
    if named and len(named) < len(classes):
        raise DataError(
            f"'{path}' has the column '{named[0]}' next to numbered classes: leave it out, or name all classes."
        )
    if {*classes} == {str(number) for number in range(len(classes))}:
        classes.sort(key=int)
    if text := [column for column, kind in frame[classes].dtypes.items() if kind.kind not in "fiu"]:
        raise DataError(f"'{path}' has the column '{text[0]}', which holds no numbers: keep the columns of classes.")
    blocks = [part for _, part in frame.groupby(_MEMBER, sort=False)] if _MEMBER in frame else [frame]
    if len({len(block) for block in blocks}) > 1:
        raise DataError(f"'{path}' has members with different numbers of rows: give each member the same examples.")
    if sum(map(len, blocks)) < len(frame):
        raise DataError(f"'{path}' has rows without a member: fill in the column '{_MEMBER}'.")
    members = [block[classes].to_numpy() for block in blocks]
    found = {"predictions": np.stack(members) if len(members) > 1 else members[0]}
    if named:
        found[CLASSES] = np.array(classes)
    if _LABEL in frame:
        if frame[_LABEL].isna().any():
            raise DataError(f"'{path}' has rows without a label: fill in the column '{_LABEL}'.")
        labels = [block[_LABEL].to_numpy() for block in blocks]
        if any(not np.array_equal(labels[0], other) for other in labels):
            raise DataError(f"'{path}' has members whose labels differ: give each the same examples in the same order.")
        found["labels"] = labels[0]
    return found
