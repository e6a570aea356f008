"""Null control: another member of the pool under a name of its own, which nothing may call better or worse than one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbn_core.errors import SpecError
from dbn_core.methods.method import Method
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    from torch import nn

    from dbn_core.methods.context import PredictContext


@register("null")
class Null(Method):
    """The last of M members alone: what a suite's tests must call equal to one network (control)."""

    same_network = "none"
    title = "Null (another member)"
    reference = "a negative control of this project; the papers have none"

    def check_size(self, size: int) -> None:
        """At size 1 it would be the source itself."""
        if size < 2:
            raise SpecError(f"null: the size is at least 2, not {size}; it is the last of so many members, alone.")

    def members(self, size: int) -> tuple[int, ...]:
        """The last one."""
        return (size - 1,)

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The member."""
        from dbn_core.methods.predictors import Mixture

        return Mixture([context.members[size - 1]])
