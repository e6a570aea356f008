"""Networks trained from labels alone by a student's recipe: what its length and images bring without teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import register
from dbn_core.methods.student import StudentOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext, Workspace


@register("ensemble-of-singles")
class EnsembleOfSingles(Method):
    """M networks from labels alone, each by a student's recipe; size 1 is one such network (control).

    Each is trained by ``CE((1 - lam) y + lam y_partner, softmax(z))`` on images that are augmented in every epoch anew,
    also where the suite's students see stored views.
    """

    same_network = "none"
    title = "DE (students' recipe)"
    reference = "Lakshminarayanan et al., 2017, arXiv 1612.01474, by the recipe of a student"
    networks = "runs M; trains M"
    nested = True

    class Config(StudentOptions):
        """The options of ``ed`` that need no teacher."""

        width: float = Field(1.0, gt=0, description="multiplier of the networks' channels")

    def parts(self, size: int) -> list[Part]:
        """A network for each term; those of a smaller size come first."""
        return [Part(f"network-{index}") for index in range(1, size + 1)]

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Cross-entropy on the mixed labels."""
        from torch.nn import functional as F

        network = self._network(context)

        def step(batch: Batch) -> torch.Tensor:
            return F.cross_entropy(network(batch.images), batch.mixed_labels(context.classes))

        context.train(network, step, context.student_recipe(**self.config.changes()))
        return network

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The networks side by side."""
        from dbn_core.methods.predictors import Mixture

        return Mixture(context.load(self._network(context), part.name) for part in self.parts(size))

    def _network(self, context: Workspace) -> nn.Module:
        return context.new_network(spec=context.spec.scaled(self.config.width))
