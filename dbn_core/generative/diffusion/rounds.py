"""Rounds of progressive distillation.  Imports no torch, so that a suite's options can be checked without it."""

from __future__ import annotations

from dbn_core.errors import SpecError


def rounds(start: int, stop: int, substeps: int = 2) -> list[int]:
    """Steps of the students of all rounds: start / K, start / K^2, ... down to stop.

    >>> rounds(start=16, stop=2, substeps=2)
    [8, 4, 2]

    Raises:
        SpecError: K does not divide the steps of a round, or the rounds miss ``stop``.
    """
    steps, found = start, []
    while steps > stop:
        if substeps < 2 or steps % substeps:
            raise SpecError(
                f"{substeps} does not divide a teacher's {steps} steps: choose a number of branches that does, 2 or "
                "more."
            )
        steps //= substeps
        found.append(steps)
    if steps != stop or not found:
        raise SpecError(
            f"Rounds of {substeps} from {start} steps do not end at {stop}: start from {stop} times a power of "
            f"{substeps}."
        )
    return found
