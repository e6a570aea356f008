"""Costs of training in the summary: what is known of a part of the repetitions, and what of none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.results.costs import cost_columns


class Known:
    """A store that knows what some trainings took."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds

    def known(self, kind: str, key: str) -> dict[str, Any]:
        """As :meth:`benchmarks.store.artefacts.Store.known`."""
        if kind == "cost":
            return {"params": 10, "macs": 20}
        if key not in self.seconds:
            return {}
        return {"train_seconds": self.seconds[key], "student_passes": 100, "teacher_passes": 0}


def columns(repetitions: int, **seconds: float) -> dict[str, Any]:
    cells = [
        SimpleNamespace(
            method=SimpleNamespace(name="mine"),
            **{"is_reference": True, "size": 1, "cost": "cost", "views": ()},
            **{"parts": (f"first_{index}", f"second_{index}"), "members": (f"member_{index}",)},
        )
        for index in range(repetitions)
    ]
    plan, group = SimpleNamespace(cells=cells), [SimpleNamespace(cell=cell) for cell in cells]
    return cost_columns(plan, group, Known(**seconds))  # type: ignore[arg-type]


def test_training_is_the_mean_of_the_repetitions_of_which_it_is_known() -> None:
    members = {f"member_{index}": 1000.0 for index in range(3)}
    found = columns(3, first_0=10, second_0=5, first_1=2, first_2=30, second_2=15, **members)
    assert found["train_seconds"] == pytest.approx((15 + 45) / 2)
    assert found["train_seconds_with_members"] == pytest.approx(1030)
    assert found["student_passes"] == 200


def test_a_part_of_which_nothing_is_known_leaves_the_training_unknown() -> None:
    found = columns(2, first_0=10, first_1=2, member_0=1, member_1=1)
    assert np.isnan(found["train_seconds"])
    assert np.isnan(found["train_seconds_with_members"])
