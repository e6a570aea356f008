"""Predictions that were made elsewhere: probabilities, log-probabilities or logits of members, as log-probabilities.

Imports no torch.  A file that cannot be used raises a :class:`DataError` of one sentence with the remedy.  Arrays are
processed in blocks and in place: a file and its scores need three times the size of its float32 numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import log_softmax, logsumexp

from benchmarks.results.external.readers import CLASSES, LABEL_NAMES, class_numbers, read_arrays, read_labels, read_npz
from benchmarks.suite.plan import Plan
from dbn_core.errors import DataError, SpecError
from dbn_core.metrics.scores import Array

KINDS = ("probabilities", "log-probabilities", "logits")
# Rounded to three decimals, or in half precision, the probabilities of an example still sum to 1 within this.
_SUM = 1e-2
_BELOW_ZERO = -1e-6  # what rounding leaves of a probability of zero
_BLOCK = 1 << 19  # numbers worked on at once


@dataclass(frozen=True)
class Predictions:
    """Predictions on one split.

    Attributes:
        log_probs: [M, N, K], normalised and finite; float32, or float64 where the file has that or whole numbers.
        labels: int64 [N].
        values: which of ``KINDS`` the file holds.
        floored: how many probabilities were exactly zero and are raised to ``floor``.
        floored_labels: how many of them are those of the label, so that the NLL depends on the floor.
        floor: the smallest positive number of the file's own precision.
        source: name of the file.
        split: ``test`` or ``validation``.
        classes: names of the classes, where the file is a table with named columns.
    """

    log_probs: Array
    labels: Array
    values: str
    floored: int
    floored_labels: int
    floor: float
    source: str
    split: str
    classes: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What the file holds, and what scores depend on, in sentences."""
        members, examples, classes = self.log_probs.shape
        many = f"{members} members, " if members > 1 else ""
        lines = [f"{self.source}: {self.values}, {many}{examples} {self.split} examples, {classes} classes."]
        if self.floored:
            lines.append(
                f"{self.source}: {self.floored} {self.split} probabilities of exactly 0 count as {self.floor:.3g}, the "
                f"smallest positive number of the file's precision; {self.floored_labels} of them are those of a label"
                + (", and the NLL depends on that." if self.floored_labels else ".")
            )
        return lines


def load_predictions(
    path: Path | str,
    labels: Path | str | None = None,
    validation: Path | str | None = None,
    validation_labels: Path | str | None = None,
    key: str | None = None,
    values: str = "auto",
) -> tuple[Predictions, Predictions | None]:
    """Predictions on test, and on validation where there are some.

    Args:
        path: .npz, .npy, .csv or .parquet; an .npz may hold the other three as ``labels``, ``validation`` and
            ``validation_labels``, a table its labels in the column ``label``.
        labels, validation, validation_labels: files that take precedence over what ``path`` holds.
        key: the array of an .npz that has the predictions, where there are several.
        values: one of ``KINDS``, or ``auto``.

    Raises:
        DataError: a file is missing, unreadable, or does not fit the others.
        SpecError: an unknown kind of values.
    """
    if values not in ("auto", *KINDS):
        raise SpecError(f"Unknown kind of values '{values}': choose auto, {', '.join(KINDS)}.")
    file, held = Path(path), read_arrays(Path(path), key)
    test = _predictions(file, held, "predictions", _labels(file, held, "labels", labels), values)
    if validation is not None:
        there = Path(validation)
        found = read_arrays(there, key)
        name, truth = "predictions", _labels(there, found, "labels", validation_labels)
    elif "validation" in held:
        there, found = file, held
        name, truth = "validation", _labels(file, held, "validation_labels", validation_labels)
    elif validation_labels is not None:
        raise DataError(f"There are labels '{validation_labels}' but no validation predictions: add --validation.")
    else:
        return test, None
    # Validation holds the same kind of values as test.
    return test, _alike(test, _predictions(there, found, name, truth, test.values, "validation "))


def load_accepted(plan: Plan, path: Path, repetition: int) -> tuple[dict[str, Array], str]:
    """An .npz for a suite of any task, as :meth:`~dbn_core.tasks.base.Task.accept` takes it, and a sentence about it.

    Raises:
        DataError: the file cannot be read, or is not of the data of this repetition.
        SpecError: the task takes no predictions that were made elsewhere.
    """
    arrays, suite = read_npz(path), plan.suite
    data = suite.data.for_repetition(repetition, suite.seed).load()
    try:
        accepted = suite.task.accept(arrays, data)
    except DataError as error:
        raise DataError(f"'{path}': {error}") from None
    held = ", ".join(
        f"{name} {list(array.shape)}" if array.ndim else f"{name} {array:g}" for name, array in arrays.items()
    )
    return {name: tensor.numpy() for name, tensor in accepted.items()}, f"{path.name}: {held}."


def arrays_of(test: Predictions, validation: Predictions | None) -> dict[str, Array]:
    """As the harness stores predictions: ``test``, ``test_labels``, and the same for ``validation``."""
    arrays = {"test": test.log_probs, "test_labels": test.labels}
    if validation is not None:
        arrays |= {"validation": validation.log_probs, "validation_labels": validation.labels}
    return arrays


def check_classes(predictions: Predictions, classes: Sequence[str]) -> None:
    """Check that named columns are not the classes of a suite in another order.

    Raises:
        DataError: they are.
    """
    named = predictions.classes
    if sorted(named) == sorted(classes) and named != tuple(classes):
        raise DataError(
            f"'{predictions.source}' has the suite's classes in another order: order its columns {', '.join(classes)}."
        )


def recognise(block: Array) -> str:
    """Which of ``KINDS`` an array [M, N, K] holds.

    Rows within [0, 1] that sum to 1 are probabilities; rows at or below 0 whose exponentials sum to 1 are
    log-probabilities; anything else with a negative number is logits.

    Raises:
        DataError: nothing is negative, and rows do not sum to 1; the message is the end of a sentence.
    """
    if min(part.min() for _, part in _parts(block)) >= _BELOW_ZERO:
        sums = np.concatenate([part.sum(-1, dtype=np.float64) for _, part in _parts(block)])
        if np.all(np.abs(sums - 1) <= _SUM):
            return "probabilities"
        raise DataError(
            f"holds no negative value, but rows that sum to {sums.min():.4g} to {sums.max():.4g}: divide probabilities "
            "by their sum, or say --values logits"
        )
    if all(np.all(np.abs(logsumexp(part.astype(np.float64), axis=-1)) <= _SUM) for _, part in _parts(block)):
        return "log-probabilities"
    return "logits"


def _parts(block: Array) -> Iterator[tuple[slice, Array]]:
    """The blocks of [M, N, K]: the slice of examples and the view [n, K] of each."""
    _, count, classes = block.shape
    step = max(1, _BLOCK // classes)
    for member in block:
        for start in range(0, count, step):
            examples = slice(start, start + step)
            yield examples, member[examples]


def _predictions(
    path: Path, held: dict[str, Array], name: str, labelled: tuple[Path, Array], values: str, split: str = ""
) -> Predictions:
    block, labels = _shaped(path, held.pop(name), split), labelled[1]
    _fits(path, block, *labelled, split)
    try:
        kind = recognise(block) if values == "auto" else values
    except DataError as error:
        raise DataError(f"'{path}' {error}.") from None
    if kind == "probabilities" and (least := min(part.min() for _, part in _parts(block))) < _BELOW_ZERO:
        raise DataError(
            f"'{path}' has {split}probabilities down to {least:.4g}: say --values logits if they are logits."
        )
    precision = np.finfo(block.dtype if block.dtype.kind == "f" else np.float64)
    # Extended precision has smaller numbers than the float64 in which scores are computed.
    floor = float(precision.smallest_subnormal) or float(np.finfo(np.float64).smallest_subnormal)
    log_probs, floored, floored_labels, wrong = _writable(block), 0, 0, 0.0
    for examples, part in _parts(log_probs):
        of_part, sums_wrong = _log_probs(part.astype(np.float64), kind)
        zero = np.isneginf(of_part)
        if zero.all(-1).any():
            raise DataError(f"'{path}' has {split}examples in which every class has probability 0: predict them again.")
        wrong = max(wrong, sums_wrong)
        floored += int(zero.sum())
        floored_labels += int(zero[np.arange(len(zero)), labels[examples]].sum())
        part[:] = np.where(zero, np.log(floor), log_softmax(of_part, axis=-1))
    if not wrong <= _SUM:
        raise DataError(
            f"'{path}' has {split}rows whose probabilities sum to 1 ± {wrong:.3g}: divide each row by its sum."
        )
    return Predictions(
        log_probs=log_probs,
        labels=labels,
        values=kind,
        floored=floored,
        floored_labels=floored_labels,
        floor=floor,
        source=path.name,
        split=split.strip() or "test",
        classes=tuple(map(str, held.get(CLASSES, ()))),
    )


def _writable(block: Array) -> Array:
    """The array itself if scores can be kept in it, else a copy of sufficient precision."""
    if block.dtype == np.float16:
        return block.astype(np.float32)
    if block.dtype in (np.float32, np.float64):
        return block if block.flags.writeable else block.copy()
    return block.astype(np.float64)


def _log_probs(block: Array, kind: str) -> tuple[Array, float]:
    """Logarithms [n, K], minus infinity where a probability is zero, and by how much a sum is not 1."""
    if kind == "probabilities":
        block = np.clip(block, 0, None)
        wrong = np.abs(block.sum(-1) - 1).max()
        with np.errstate(divide="ignore"):
            return np.log(block), float(wrong)
    if kind == "log-probabilities":
        return block, float(np.abs(np.expm1(logsumexp(block, axis=-1))).max())
    return block, 0.0


def _shaped(path: Path, block: Array, split: str) -> Array:
    """The array as [M, N, K], numeric, without NaN."""
    if block.dtype.kind not in "fiu":
        raise DataError(f"'{path}' holds {split}predictions of type {block.dtype}: save them as numbers.")
    if block.ndim not in (2, 3):
        raise DataError(
            f"'{path}' holds {split}predictions of shape {list(block.shape)}: give [examples, classes], or "
            "[members, examples, classes]."
        )
    block = block[None] if block.ndim == 2 else block
    if not block.size:
        raise DataError(f"'{path}' holds no {split}predictions: its shape is {list(block.shape)}.")
    if block.shape[-1] < 2:
        raise DataError(f"'{path}' has one column of {split}predictions: give one column for each class.")
    if bad := sum(int(np.sum(np.isnan(part) | np.isposinf(part))) for _, part in _parts(block)):
        raise DataError(f"'{path}' has {bad} {split}values that are NaN or infinite: predict them again.")
    return block


def _fits(path: Path, block: Array, labels_path: Path, labels: Array, split: str) -> None:
    members, examples, classes = block.shape
    if len(labels) != examples:
        remedy = "give one label for each example"
        if len(labels) == members:
            remedy = "its axes look like [N, M, K], give [M, N, K]"
        elif len(labels) == classes:
            remedy = "its axes look like [K, N], give [N, K]"
        raise DataError(f"'{path}' has {examples} {split}examples and {len(labels)} labels: {remedy}.")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"'{labels_path}' has {split}labels from {labels.min()} to {labels.max()}, but '{path}' has {classes} "
            "columns of classes: give a column for each class, and number labels from 0 in the order of the columns."
        )


def _labels(path: Path, held: Mapping[str, Array], name: str, given: Path | str | None) -> tuple[Path, Array]:
    """The labels, and the file that they are from."""
    if given is not None:
        return Path(given), read_labels(Path(given), LABEL_NAMES if name == "labels" else (name, *LABEL_NAMES))
    if name not in held:
        option = "--labels" if name == "labels" else "--validation-labels"
        where = "call the array" if path.suffix == ".npz" else "call the column"
        called = name if path.suffix == ".npz" else "label"
        raise DataError(
            f"'{path}' holds no {name.replace('_', ' ')}: name their file with {option}, or {where} '{called}'."
        )
    return path, class_numbers(path, held[name])


def _alike(test: Predictions, validation: Predictions) -> Predictions:
    """The validation predictions, checked: of the same method as those on test, and not the same."""
    (members, _, classes), (other, _, others) = test.log_probs.shape, validation.log_probs.shape
    if (members, classes) != (other, others):
        raise DataError(
            f"'{validation.source}' has {other} members and {others} classes on validation, '{test.source}' has "
            f"{members} and {classes} on test: predict both splits with the same method."
        )
    same = np.array_equal(test.labels, validation.labels)
    if same and all(map(np.array_equal, test.log_probs, validation.log_probs)):
        raise DataError(
            f"'{validation.source}' has the test predictions as validation predictions: predict a separate split, "
            "since a temperature must not be fitted on test."
        )
    return validation
