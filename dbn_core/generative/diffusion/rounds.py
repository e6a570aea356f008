"""How often steps can be halved, or divided by K.  Imports no torch.

>>> rounds(start=16, stop=2)
[8, 4, 2]
>>> rounds(start=9, stop=1, substeps=3)
[3, 1]
>>> try:
...     rounds(start=6, stop=1)
... except SpecError as error:
...     print(error)
2 does not divide a teacher's 3 steps: choose a number of branches that does, 2 or more.
>>> rounds(start=4, stop=2)
[2]
"""

from __future__ import annotations

from dbn_core.errors import SpecError


def rounds(start: int, stop: int, substeps: int = 2) -> list[int]:
    """Steps of the students of all rounds: start / K, start / K^2, ... down to stop.

    Raises:
        SpecError: K does not divide the steps of a round, or the rounds miss ``stop``.
    """
    steps, found = start, []
    while steps > stop:
        _check_division(steps, substeps)
        steps //= substeps
        found.append(steps)
    if steps != stop or not found:
        raise SpecError(
            f"Rounds of {substeps} from {start} steps do not end at {stop}: start from {stop} times a power of "
            f"{substeps}."
        )
    return found


def _check_division(steps: int, substeps: int) -> None:
    if substeps < 2 or steps % substeps:
        raise SpecError(
            f"{substeps} does not divide a teacher's {steps} steps: choose a number of branches that does, 2 or more."
        )
