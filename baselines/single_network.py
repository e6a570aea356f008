"""One member of the pool alone: the first, which is the unit of every cost ratio, or another one as a null control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbn_core.errors import SpecError
from dbn_core.methods.method import Method
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    from torch import nn

    from dbn_core.methods.context import PredictContext


@register("single")
class SingleNetwork(Method):
    """One pool member alone (DE-1)."""

    same_network = "none"
    title = "Single"
    reference = "He et al., 2016, arXiv 1512.03385"
    networks = "runs 1; trains none"
    competes = False

    def check_size(self, size: int) -> None:
        """Only size 1 exists."""
        if size != 1:
            raise SpecError(f"single: the size is 1, not {size}; use method 'de' for more members.")

    def members(self, size: int) -> tuple[int, ...]:
        """The source member."""
        return (0,)

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The member."""
        from dbn_core.methods.predictors import Mixture

        return Mixture([context.members[0]])


@register("null")
class Null(Method):
    """The last of M members alone: what a suite's tests must call equal to one network (control)."""

    same_network = "none"
    title = "Null (another member)"
    reference = "a negative control of this project; the papers have none"
    networks = "runs 1; trains none"

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
