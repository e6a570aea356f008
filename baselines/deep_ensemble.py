"""Deep ensembles: average the probabilities, or the logits, of M independently trained networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbn_core.methods.method import Method
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    from torch import nn

    from dbn_core.methods.context import PredictContext


@register("de")
class DeepEnsemble(Method):
    """Deep ensemble of M pool members (DE-M)."""

    same_network = "none"
    title = "DE"
    reference = "Lakshminarayanan et al., 2017, arXiv 1612.01474"
    networks = "runs M; trains none"
    nested = True
    competes = False

    def members(self, size: int) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(size))

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The members side by side."""
        from dbn_core.methods.predictors import Mixture

        return Mixture(context.members[position] for position in range(size))


@register("de-logits")
class LogitEnsemble(Method):
    """Deep ensemble that averages logits instead of probabilities; its calibrated scores are the ones to look at."""

    same_network = "none"
    title = "DE (logits)"
    reference = "Lakshminarayanan et al., NIPS 2017, arXiv 1612.01474, with another average"
    networks = "runs M; trains none"

    def members(self, size: int) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(size))

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The members side by side, one prediction."""
        from dbn_core.methods.predictors import MeanLogits

        return MeanLogits(context.members[position] for position in range(size))
