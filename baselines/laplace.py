"""Last-layer Laplace: one member with a Gaussian over the weights of its last layer, without further training.

Daxberger et al., 2021, arXiv 2106.14806; Kristiadi et al., 2020, arXiv 2002.10118.  The formulas are those of
:mod:`dbn_core.nets.laplace`.  One pass over the training images gives the Gaussian, validation the prior's precision.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from dbn_core.errors import SpecError
from dbn_core.methods import method
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.methods.context import FitContext, PredictContext
    from dbn_core.train.recipe import Recipe

_GRID = [10 ** (exponent / 4) for exponent in range(-12, 17)]  # of the prior's precision


@register("laplace")
class Laplace(Method):
    """One member with a Kronecker-factored Gaussian over its last layer's weights (control)."""

    same_network = "source"
    title = "Last-layer Laplace"
    needs_last_layer = True
    reference = "Daxberger et al., NeurIPS 2021, arXiv 2106.14806"
    networks = "runs 1; trains none"
    records = MappingProxyType({"precision": "precision of the prior over the last layer's weights"})

    class Config(method.Config):
        """The two links differ by what all logits have in common, which only ``probit`` sees."""

        link: Literal["pairwise", "probit"] = Field(
            "pairwise", description="from Gaussian logits to probabilities; probit is nearly a temperature"
        )
        precision: float | None = Field(
            None, gt=0, description="of the prior; default: the best of a grid on validation"
        )

    def check_size(self, size: int) -> None:
        """Only size 1 exists."""
        if size != 1:
            raise SpecError(f"laplace: the size is 1, not {size}.")

    def parts(self, size: int) -> list[Part]:
        """The Gaussian over the source's last layer."""
        return [Part("posterior", members=(0,))]

    def members(self, size: int) -> tuple[int, ...]:
        """The source."""
        return (0,)

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """One pass forward over the training images, about a third of an epoch."""
        return TrainingCost(1, recipe.batch_size, share=1 / 3)

    def fit(self, part: Part, context: FitContext) -> dict[str, torch.Tensor]:
        """The factors of the Gaussian, and the precision of its prior with the lowest validation NLL."""
        import torch

        from dbn_core.methods.evaluation import predict_split
        from dbn_core.nets.laplace import kronecker_factors, linked_log_probs, with_one

        features, head = context.members[0].last_layer()
        weight = head.weight.detach().cpu().double()
        bias = 0.0 if head.bias is None else head.bias.detach().cpu().double()

        def read(split: str) -> tuple[torch.Tensor, torch.Tensor]:
            images = getattr(context.data, split)
            phi = predict_split(lambda x: with_one(features(x)), images, context.device).double()
            return phi, phi[:, :-1] @ weight.T + bias

        factors = kronecker_factors(*read("train"))
        phi, mean = read("validation")
        square, labels = (phi @ factors["U_a"]).square(), context.data.validation.labels.cpu()

        def validation_nll(precision: float) -> float:
            v = square @ (1 / (torch.outer(factors["a"], factors["g"]) + precision))
            log_probs = linked_log_probs(mean, v, factors["U_g"], self.config.link)
            return -float(log_probs.gather(1, labels[:, None]).mean())

        precision = self.config.precision or min(_GRID, key=validation_nll)
        context.record(precision=precision)
        return {**factors, "precision": torch.tensor(precision, dtype=torch.float64)}

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The source with the stored Gaussian."""
        from dbn_core.nets.laplace import LastLayerLaplace

        stored = dict(context.parts["posterior"])
        return LastLayerLaplace(context.members[0], stored, float(stored["precision"]), self.config.link)
