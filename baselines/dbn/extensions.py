"""Options beyond the DBN paper: distillation by branches (B-DENSE).

Removed because no suite used them: students of several steps, rounds of distillation, other distances of states.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from baselines.dbn.options import PaperOptions
from dbn_core.options import parse_weights


class DBNConfig(PaperOptions):
    """All options of DBN: with the defaults of those added here it is the paper's method."""

    # B-DENSE (arXiv 2602.15971), where distill=branches: see dbn_core.bridge.branches.
    branches: int | None = Field(None, ge=1, description="K, states that teach the student; default: all")
    branch_growth: float = Field(0.0, allow_inf_nan=False, description="a of the weights exp(a (k/K - 1))")
    branch_weights: str | None = Field(None, description="the weights themselves, such as 1:2:4")
    branch_targets: Literal["teacher", "members"] = Field(
        "teacher", description="states of the teacher, or ensembles of 2, 3, ... members"
    )

    @property
    def branch_count(self) -> int:
        """K."""
        return self.branches or (self.steps if self.branch_targets == "teacher" else self.members_per_bridge - 1)

    @model_validator(mode="after")
    def _branches_fit(self) -> DBNConfig:
        if self.distill != "branches":
            for name, field in type(self).model_fields.items():
                if name.startswith("branch") and getattr(self, name) != field.default:
                    raise ValueError(f"{name} needs distill=branches: leave {name} out, or set distill=branches")
            return self
        count = self.branch_count
        if self.branch_targets == "members" and count >= self.members_per_bridge:
            raise ValueError(
                f"branches={count} ensembles of 2, 3, ... members need members_per_bridge of {count + 1} or more, not "
                f"{self.members_per_bridge}: lower branches, or raise members_per_bridge"
            )
        if self.branch_targets == "teacher" and self.steps % count:
            raise ValueError(
                f"steps={self.steps} is no multiple of branches={count}: every branch learns a state of the path"
            )
        given = self.branch_weight_list
        if given is not None and len(given) != count:
            raise ValueError(f"branch_weights={self.branch_weights} has {len(given)} weights for {count} branches")
        return self

    @property
    def branch_weight_list(self) -> list[float] | None:
        """Explicit weights of the branches, with sum 1; None: those of ``branch_growth``."""
        if self.branch_weights is None:
            return None
        if self.branch_growth:
            raise ValueError("branch_growth and branch_weights say the same: give one of them")
        return parse_weights("branch_weights", self.branch_weights)
