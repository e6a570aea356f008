"""Check predictions that were made elsewhere, and turn them into what the harness stores.  Imports no torch.

Probabilities, log-probabilities or logits become log-probabilities, in blocks and in place: a file and its scores need
three times the size of its float32 numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from benchmarks.results.external.files import class_numbers, read_labels, read_npz, read_predictions
from benchmarks.suite.plan import Plan
from dbn_core.errors import DataError, SpecError
from dbn_core.metrics.scores import Array, by_example, chance_accuracies, log_softmax, mixture_log_probs

KINDS = ("probabilities", "log-probabilities", "logits")
# Rounded to three decimals, or in half precision, the probabilities of an example still sum to 1 within this.
_SUM = 1e-2
_BELOW_ZERO = -1e-6  # what rounding leaves of a probability of zero


@dataclass(frozen=True)
class FilePredictions:
    """Predictions on test, and on validation if there are some.

    Attributes:
        arrays: as the task stores them; of classification ``test`` [M, N, K], normalised log-probabilities, and
            ``test_labels``, int64 [N], and the same two of ``validation``.
        source: name of the file.
        notes: what the file holds, in sentences.
    """

    arrays: dict[str, Array]
    source: str
    notes: list[str]


def predictions_of_file(
    path: Path,
    labels: Path | None = None,
    validation: Path | None = None,
    validation_labels: Path | None = None,
    key: str | None = None,
    values: str = "auto",
    classes: Sequence[str] = (),
) -> FilePredictions:
    """Predictions of classes.

    Args:
        path: .npz, .npy, .csv or .parquet (:func:`benchmarks.results.external.files.read_predictions`).
        labels, validation, validation_labels: files that take precedence over what ``path`` holds.
        key: the array of an .npz that has the predictions, where there are several.
        values: one of ``KINDS``, or ``auto``: each split may hold another kind.
        classes: names of the classes, in order, where a suite knows them.

    Raises:
        DataError: a file is missing, unreadable, or does not fit the others.
        SpecError: an unknown kind of values.
    """
    if values not in ("auto", *KINDS):
        raise SpecError(f"Unknown kind of values '{values}': choose auto, {', '.join(KINDS)}.")
    held = read_predictions(path, key)
    about = check_columns(path, held.get("classes", ()), classes)
    if validation is not None:
        other = read_predictions(validation, key)
        about += check_columns(validation, other.get("classes", ()), classes or held.get("classes", ()))
        held = {name: array for name, array in held.items() if not name.startswith("validation")}
        held |= {name.replace("test", "validation"): other[name] for name in ("test", "test_labels") if name in other}
    elif validation_labels is not None and "validation" not in held:
        raise DataError(f"There are labels '{validation_labels}' but no validation predictions: add --validation.")
    files = {"test": (path, labels), "validation": (validation or path, validation_labels)}
    files = {split: pair for split, pair in files.items() if split in held}
    arrays: dict[str, Array] = {f"{split}_labels": _labels(file, held, split, y) for split, (file, y) in files.items()}
    _check_swapped(path, held, arrays)
    notes = []
    for split, (file, given) in files.items():
        truth, given_block = arrays[f"{split}_labels"], held.pop(split)
        stacked = _by_member(given_block, len(truth))
        arrays[split], kind, doubt = _log_probs(file, stacked, split, values)
        about += doubt
        members, examples, columns = arrays[split].shape
        _check_labels(file, arrays[split], given or file, truth, split)
        many = f"{members} members, " if members > 1 else ""
        many += "one after the other, " if stacked.ndim > given_block.ndim else ""
        notes.append(f"{file.name}: {kind}, {many}{examples} {split} examples, {columns} classes.")
    _check_validation(path, arrays)
    return FilePredictions(arrays, path.name, notes + about)


def load_accepted(plan: Plan, path: Path, repetition: int) -> FilePredictions:
    """An .npz for a suite of any task, as :meth:`~dbn_core.tasks.base.Task.accept` takes it.

    Raises:
        DataError: the file cannot be read, or is not of the data of this repetition.
        SpecError: the task takes no predictions that were made elsewhere.
    """
    arrays, suite = read_npz(path), plan.suite
    try:
        accepted = suite.task.accept(arrays, suite.data.for_repetition(repetition, suite.seed).load())
    except DataError as error:
        raise DataError(f"'{path}': {error}") from None
    held = ", ".join(
        f"{name} {list(array.shape)}" if array.ndim else f"{name} {array:g}" for name, array in arrays.items()
    )
    return FilePredictions(
        {name: tensor.numpy() for name, tensor in accepted.items()}, path.name, [f"{path.name}: {held}."]
    )


def check_columns(file: Path, columns: Collection[Any], classes: Collection[Any]) -> list[str]:
    """Check that named columns are the classes in their order; a note where they have other names.

    Neither case matters nor what stands before or after all names, as in ``p_cat`` for ``Cat``.

    Raises:
        DataError: the columns are in another order, or there are others next to them.
    """
    if not len(columns) or not len(classes):
        return []
    found, known = ([str(name).casefold() for name in names] for names in (columns, classes))
    for column in found:
        before, first, after = column.partition(known[0])
        expected = [f"{before}{name}{after}" for name in known]
        if first and set(expected) <= set(found):
            if extra := [str(name) for name in columns if str(name).casefold() not in expected]:
                raise DataError(f"'{file}' has the column '{extra[0]}' next to those of the classes: leave it out.")
            if found != expected:
                raise DataError(
                    f"'{file}' has the classes in another order: order its columns as {', '.join(map(str, classes))}."
                )
            return []
    return [
        f"{file.name}: its columns ({', '.join(map(str, columns))}) are not named as the classes are "
        f"({', '.join(map(str, classes))}): they are taken in their order."
    ]


def at_chance_splits(arrays: Mapping[str, Array]) -> list[str]:
    """A sentence for each split on which predictions, as in :class:`FilePredictions`, do no better than guessing."""
    found = []
    for split in (split for split in ("test", "validation") if split in arrays):
        _, examples, classes = arrays[split].shape
        accuracy = float(np.mean(mixture_log_probs(arrays[split]).argmax(-1) == arrays[f"{split}_labels"]))
        low, high = chance_accuracies(examples, classes)
        if accuracy < high:
            found.append(
                f"The {split} accuracy of {100 * accuracy:.2f} % is {'far below' if accuracy < low else 'at'} chance "
                f"with {classes} classes: check the order of the examples and of the classes, and that stacked rows "
                "hold one member after the other."
            )
    return found


def _log_probs(file: Path, block: Array, split: str, values: str) -> tuple[Array, str, list[str]]:
    """Log-probabilities [M, N, K], the kind that they were, and a note where ``values`` may be wrong.

    Without a negative number values are probabilities; where the exponentials of all rows sum to 1 they are
    log-probabilities, else logits.  A probability of zero stays one (:data:`dbn_core.metrics.scores.FLOOR`).
    """
    block = block[None] if block.ndim == 2 else block
    if block.dtype.kind not in "fiu" or block.ndim != 3 or not block.size or block.shape[-1] < 2:
        raise DataError(
            f"'{file}' holds {split} predictions of shape {list(block.shape)} and type {block.dtype}: give numbers "
            "[examples, classes] or [members, examples, classes], with a column for each class."
        )
    if not block.max() < np.inf:
        raise DataError(f"'{file}' has {split} predictions that are NaN or infinite: predict them again.")
    block = np.require(block, np.float32 if block.dtype in (np.float16, np.float32) else np.float64, "W")
    least = float(block.min())
    kind = "probabilities" if values == "auto" and least >= _BELOW_ZERO else values
    if kind != "logits":
        worst = max(float(np.abs(by_example(lambda rows: _sums(rows, kind), member) - 1).max()) for member in block)
        if kind == "auto":
            kind = "log-probabilities" if worst <= _SUM else "logits"
        elif worst > _SUM or (kind == "probabilities" and least < _BELOW_ZERO):
            other = "say --values logits if they are logits" if values == "auto" else "leave out --values"
            raise DataError(
                f"'{file}' has {split} rows whose probabilities sum to 1 ± {worst:.3g}, the smallest {least:.3g}: "
                f"divide probabilities by their sum, or {other}."
            )

    doubt = []
    if kind == "logits" and least >= _BELOW_ZERO:
        sums = np.stack([by_example(lambda rows: _sums(rows, "probabilities"), member) for member in block])
        if np.ptp(sums) <= _SUM * sums.mean():
            doubt.append(
                f"{file.name}: every {split} row sums to {sums.mean():.4g}, as probabilities and percentages do, but "
                "--values says logits: if they are probabilities, leave it out and divide each row by its sum."
            )

    def normalised(rows: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            numbers = np.clip(rows, 0, None).astype(np.float64) if kind == "probabilities" else rows.astype(np.float64)
            return log_softmax(np.log(numbers) if kind == "probabilities" else numbers).astype(rows.dtype)

    for member in block:
        member[:] = by_example(normalised, member)
    if np.isnan(block.max()):
        raise DataError(f"'{file}' has {split} examples in which every class has probability 0: predict them again.")
    return block, kind, doubt


def _by_member(block: Array, examples: int) -> Array:
    """Rows [M * N, K], all examples of one member after the other as in torch-uncertainty, as [M, N, K]."""
    members, rest = divmod(len(block), examples) if block.ndim == 2 and examples else (1, 0)
    return block.reshape(members, examples, -1) if members > 1 and not rest else block


def _sums(rows: Array, kind: str) -> Array:
    """What the probabilities of each row [n, K] sum to."""
    if kind == "probabilities":
        return np.asarray(rows.sum(-1, dtype=np.float64))
    with np.errstate(over="ignore"):
        return np.exp(logsumexp(rows.astype(np.float64), axis=-1))


def _check_swapped(file: Path, held: Mapping[str, Array], labels: Mapping[str, Array]) -> None:
    if "validation" not in held or min(held[split].ndim for split in ("test", "validation")) < 2:
        return
    predicted = [held[split].shape[-2] for split in ("test", "validation")]
    labelled = [len(labels[f"{split}_labels"]) for split in ("test", "validation")]
    if predicted == labelled[::-1] != labelled:
        raise DataError(
            f"'{file}': there are {predicted[0]} test predictions with {labelled[0]} test labels, and {predicted[1]} "
            f"validation predictions with {labelled[1]} validation labels: are the two splits swapped?"
        )


def _labels(file: Path, held: dict[str, Array], split: str, given: Path | None) -> Array:
    if given is not None:
        return read_labels(given, split)
    if f"{split}_labels" in held:
        return class_numbers(file, held[f"{split}_labels"])
    option, name = ("--labels", "labels") if split == "test" else ("--validation-labels", "validation_labels")
    others = {".npz": f", or call the array '{name}'", ".npy": ""}.get(file.suffix, ", or call the column 'label'")
    raise DataError(f"'{file}' holds no {split} labels: name their file with {option}{others}.")


def _check_labels(file: Path, block: Array, source: Path, labels: Array, split: str) -> None:
    _, examples, classes = block.shape
    if len(labels) != examples:
        where = "" if source == file else f" in '{source}'"
        raise DataError(
            f"'{file}' has {examples} {split} examples with {len(labels)} labels{where}: give a label for each "
            "example, and predictions with the axes [members, examples, classes]."
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"'{source}' has {split} labels from {labels.min()} to {labels.max()}, but '{file}' has {classes} columns "
            "of classes: give a column for each class, and number labels from 0 in the order of the columns."
        )


def _check_validation(file: Path, arrays: dict[str, Array]) -> None:
    if "validation" not in arrays:
        return
    test, validation = arrays["test"], arrays["validation"]
    if test.shape[::2] != validation.shape[::2]:
        raise DataError(
            f"'{file}' has test predictions of shape {list(test.shape)}, and those on validation have "
            f"{list(validation.shape)}: predict both splits with the same members and classes."
        )
    if np.array_equal(test, validation) and np.array_equal(arrays["test_labels"], arrays["validation_labels"]):
        raise DataError(
            f"'{file}' has the test predictions as validation predictions: predict a separate split, since a "
            "temperature must not be fitted on test."
        )
