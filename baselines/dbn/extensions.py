"""Options beyond the DBN paper: distillation by branches (B-DENSE)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from pydantic import Field, model_validator

from baselines.dbn.options import PaperOptions


class DBNConfig(PaperOptions):
    """All options of DBN: with the defaults of those added here it is the paper's method."""

    # B-DENSE (arXiv 2602.15971), where distill=branches: see dbn_core.bridge.branches.
    branches: int | None = Field(None, ge=1, description="K, states that teach one student step; default: all")
    branch_growth: float = Field(0.0, allow_inf_nan=False, description="a of the weights exp(a (k/K - 1))")
    branch_weights: str | None = Field(None, description="the weights themselves, such as 1:2:4")
    branch_distance: Literal["l2", "l1", "kl"] | None = Field(
        None, description="of a branch from its target; default: that of loss"
    )
    branch_compare: Literal["states", "endpoints"] = Field(
        "states", description="endpoints: squared distances of states times 1/A_k^2"
    )
    branch_targets: Literal["teacher", "members"] = Field(
        "teacher", description="states of the teacher, or ensembles of 2, 3, ... members"
    )
    branch_steps: int = Field(1, ge=1, description="S, steps of the student, taught on its own path")
    branch_progressive: bool = Field(False, description="in rounds from T to T/K, ..., S steps")

    @property
    def student_steps(self) -> int:
        """Steps of the distilled student."""
        return self.branch_steps if self.distill == "branches" else 1

    def branch_rounds(self) -> list[tuple[int, int, int]]:
        """(steps of the teacher, steps of its student, branches of each of these) for each round of B-DENSE."""
        students, count = self.branch_steps, self.branches
        if self.branch_targets == "members":
            return [(self.steps, 1, count or self.members_per_bridge - 1)]
        if not self.branch_progressive:
            return [(self.steps, students, count or self.steps // students)]
        assert count is not None
        steps = [self.steps]
        while steps[-1] > students:
            steps.append(steps[-1] // count)
        return [(teacher, student, count) for teacher, student in pairwise(steps)]

    @model_validator(mode="after")
    def _branches_fit(self) -> DBNConfig:
        if self.distill != "branches":
            for name, field in type(self).model_fields.items():
                if name.startswith("branch") and getattr(self, name) != field.default:
                    raise ValueError(f"{name} needs distill=branches: leave {name} out, or set distill=branches")
            return self
        students, count = self.branch_steps, self.branches
        if self.branch_targets == "members":
            if students > 1 or self.branch_progressive or self.branch_compare == "endpoints":
                raise ValueError(
                    "branch_targets=members has no states of a path: leave out branch_steps, branch_progressive and "
                    "branch_compare"
                )
            if (count or 1) >= self.members_per_bridge:
                raise ValueError(
                    f"branches={count} ensembles of 2, 3, ... members need members_per_bridge of {(count or 1) + 1} or "
                    f"more, not {self.members_per_bridge}: lower branches, or raise members_per_bridge"
                )
        elif self.steps % (students * (count or 1)):
            raise ValueError(
                f"steps={self.steps} is no multiple of branches x branch_steps = {count or 1} x {students}: "
                "every branch needs a state of the teacher's path"
            )
        elif self.branch_progressive and not _is_power(self.steps // students, count or 1):
            raise ValueError(
                f"branch_progressive goes from steps={self.steps} to {students} by factors of branches={count}: "
                "make steps = branch_steps x branches^rounds, with 2 branches or more"
            )
        given, heads = self.branch_weight_list, self.branch_rounds()[0][2]
        if given is not None and len(given) != heads:
            raise ValueError(f"branch_weights={self.branch_weights} has {len(given)} weights for {heads} branches")
        return self

    @property
    def branch_weight_list(self) -> list[float] | None:
        """Explicit weights of the branches, with sum 1; None: those of ``branch_growth``."""
        if self.branch_weights is None:
            return None
        if self.branch_growth:
            raise ValueError("branch_growth and branch_weights say the same: give one of them")
        try:
            weights = [float(weight) for weight in self.branch_weights.split(":")]
        except ValueError:
            weights = []
        total = sum(weights)
        if not (weights and min(weights) >= 0 and 0 < total < math.inf):
            raise ValueError(f"branch_weights={self.branch_weights}: write numbers of 0 or more, such as 1:2:4")
        return [weight / total for weight in weights]


def _is_power(number: int, base: int) -> bool:
    """Whether it is base, base^2, ..., for a base of 2 or more."""
    while base > 1 and number > base and number % base == 0:
        number //= base
    return base > 1 and number == base
