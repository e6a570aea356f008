"""MC BatchNorm: one member with BatchNorm statistics of M random mini-batches of training images.

Teye, Azizpour and Smith, 2018, arXiv 1802.06455.  Each layer sees maps that the layers before it have normalised by
the same mini-batch.  The statistics are drawn once and stored, so a prediction does not depend on its batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


@register("mc-batchnorm")
class MonteCarloBatchNorm(Method):
    """One member with the BatchNorm statistics of M mini-batches; the size counts mini-batches (control)."""

    same_network = "source"
    title = "MC BatchNorm"
    reference = "Teye et al., ICML 2018, arXiv 1802.06455"
    networks = "runs M; trains none"
    nested = True
    needs_batchnorm = True

    class Config(method.Config):
        """Mini-batches are augmented as in training: statistics of plain images cost accuracy."""

        samples: int = Field(8, ge=1, description="mini-batches whose statistics are stored; the largest size")
        batch_size: int = Field(64, ge=2, description="images in each")

    def check_size(self, size: int) -> None:
        """As many as are stored."""
        if not 1 <= size <= self.config.samples:
            raise SpecError(f"mc-batchnorm: the size is 1 to samples={self.config.samples}, not {size}.")

    def parts(self, size: int) -> list[Part]:
        """The statistics, which serve all sizes."""
        return [Part("statistics", members=(0,))]

    def members(self, size: int) -> tuple[int, ...]:
        """The source alone."""
        return (0,)

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """A few mini-batches."""
        return TrainingCost(0, recipe.batch_size)

    def fit(self, part: Part, context: FitContext) -> dict[str, torch.Tensor]:
        """Means and variances of every BatchNorm layer, [M, C] each, by the layer's name."""
        import torch

        from dbn_core.data.augment import batches
        from dbn_core.data.batch import make_batch
        from dbn_core.train.statistics import batch_statistics

        config, train, draws = self.config, context.data.train, context.generator("batches")
        recipe = context.recipe.replace(mixup=0.0, cutmix=0.0)
        mirrored = context.data.flip if recipe.flip is None else recipe.flip
        count, found = min(config.batch_size, len(train)), []
        for _ in range(config.samples):
            chosen = next(batches(train, count, draws, drop_last=True))
            images = make_batch(train, chosen, recipe, mirrored, draws, context.device).images
            found.append(batch_statistics(context.members[0], images))
        return {name: torch.stack([statistics[name] for statistics in found]) for name in found[0]}

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """M networks that share all weights."""
        from dbn_core.methods.predictors import Mixture

        stored = context.parts["statistics"]
        return Mixture(
            _with(context.members[0], {name: values[index] for name, values in stored.items()}) for index in range(size)
        )


def _with(network: nn.Module, statistics: dict[str, Any]) -> nn.Module:
    """The network with other statistics and the very same parameters."""
    import copy

    shared: Any = {id(parameter): parameter for parameter in network.parameters()}
    other = copy.deepcopy(network, shared)
    other.load_state_dict(statistics, strict=False)
    return other
