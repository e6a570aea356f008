"""Predictions of any task that were made elsewhere: read from an .npz, and turned into what the harness stores."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results.external.readers import read_npz
from benchmarks.suite.plan import Plan
from dbn_core.errors import DataError
from dbn_core.metrics.scores import Array


def load_accepted(plan: Plan, path: Path, repetition: int) -> tuple[dict[str, Array], str]:
    """Arrays as the suite's task stores them (:meth:`dbn_core.tasks.base.Task.accept`), and a sentence about the file.

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
