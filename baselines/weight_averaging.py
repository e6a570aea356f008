"""SWA and SWAG: the mean of the weights that SGD visits at a constant rate, and draws from a Gaussian around it.

SWA: Izmailov et al., 2018, arXiv 1803.05407.  SWAG: Maddox et al., 2019, arXiv 1902.02476; the formulas are those of
:class:`dbn_core.train.weights.WeightGaussian`.  Both go on from the source.  BatchNorm statistics of every network are
computed anew on augmented training images.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dbn_core.errors import SpecError
from dbn_core.methods import method
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext
    from dbn_core.train.recipe import Recipe


class WalkOptions(method.Config):
    """The walk from the source on."""

    epochs: int = Field(12, ge=1, description="length of the walk")
    per_epoch: int = Field(1, ge=1, description="weights that are collected in an epoch")
    lr_scale: float = Field(0.1, gt=0, description="constant rate relative to the members'")


@register("swa")
class StochasticWeightAveraging(Method):
    """One network with the mean of the weights that SGD visits at a constant rate, from the source on (SWA)."""

    same_network = "source"
    title = "SWA"
    reference = "Izmailov et al., UAI 2018, arXiv 1803.05407"
    networks = "runs 1; trains 1, for the walk's epochs"

    class Config(WalkOptions):
        """A prediction costs one network."""

    @property
    def _draws(self) -> tuple[int, int, float]:
        """Networks that are stored, rank and scale of the Gaussian that they come from."""
        return 1, 1, 0.0

    def check_size(self, size: int) -> None:
        """As many as are stored."""
        if not 1 <= size <= self._draws[0]:
            raise SpecError(f"{self.name}: the size is 1 to {self._draws[0]}, not {size}.")

    def parts(self, size: int) -> list[Part]:
        """All networks, which serve every size."""
        return [Part("networks", members=(0,))]

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """The walk; nobody teaches."""
        return TrainingCost(self.config.epochs, recipe.batch_size)

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Train at a constant rate, collect weights, and draw."""
        from torch import nn
        from torch.nn import functional as F

        from dbn_core.train.statistics import refresh_statistics
        from dbn_core.train.weights import WeightGaussian, set_weights

        config, (count, rank, scale) = self.config, self._draws
        network = copy.deepcopy(context.members[0]).requires_grad_(True)
        recipe = context.student_recipe(
            epochs=config.epochs, lr_scale=config.lr_scale, warmup_epochs=0.0, schedule="constant", keep="last"
        ).replace(ema_decay=None)
        every = max(1, len(context.images) // recipe.batch_size // config.per_epoch)
        walk = WeightGaussian(network, rank, every)

        def step(batch: Batch) -> torch.Tensor:
            walk.tick()
            return F.cross_entropy(walk(batch.images), batch.mixed_labels(context.classes))

        context.train(walk, step, recipe, predict=lambda current, images: current(images))
        walk.tick()
        draws, statistics, drawn = context.generator("draws"), context.generator("statistics"), nn.ModuleList()
        for _ in range(count):
            sample: Any = copy.deepcopy(network)
            set_weights(sample, walk.sample(draws, scale))
            refresh_statistics(sample, context.images, context.recipe, context.data.flip, statistics, context.device)
            drawn.append(sample.eval())
        return drawn

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The first ones that were drawn."""
        from torch import nn

        from dbn_core.methods.predictors import Mixture

        networks = nn.ModuleList(context.bare_network() for _ in range(self._draws[0]))
        return Mixture(list(context.load(networks, "networks"))[:size])


@register("swag")
class StochasticWeightAveragingGaussian(StochasticWeightAveraging):
    """Networks drawn from a Gaussian of the weights that SGD visits at a constant rate, from the source on (SWAG)."""

    title = "SWAG"
    reference = "Maddox et al., NeurIPS 2019, arXiv 1902.02476"
    networks = "runs M; trains 1, for the walk's epochs"
    nested = True

    class Config(WalkOptions):
        """A prediction costs a network for each term."""

        samples: int = Field(8, ge=1, description="networks that are drawn and stored; the largest size")
        rank: int = Field(10, ge=2, description="R, deviations that are kept")
        scale: float = Field(0.5, ge=0, description="of the covariance")

    @property
    def _draws(self) -> tuple[int, int, float]:
        return self.config.samples, self.config.rank, self.config.scale
