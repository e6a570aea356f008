"""Null control: another member of the pool under a name of its own, which nothing may call better or worse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbn_core.errors import SpecError
from dbn_core.method import Method
from dbn_core.registry import register

if TYPE_CHECKING:
    from torch import nn

    from dbn_core.context import PredictContext


@register("null")
class Null(Method):
    """A second member alone: a difference to the first would be the suite's own noise (control)."""

    title = "Null (another member)"
    reference = "a negative control of this project; the papers have none"

    def check_size(self, size: int) -> None:
        """Only size 1 exists."""
        if size != 1:
            raise SpecError(f"null: the size is 1, not {size}; it is one network that is not the source.")

    def members(self, size: int) -> tuple[int, ...]:
        """The member after the source."""
        return (1,)

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The member."""
        from dbn_core.predictors import Mixture

        return Mixture([context.members[1]])
