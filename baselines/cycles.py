"""Networks from the cycles of one training: snapshot ensembles, fast geometric ensembling, cyclical SG-MCMC.

A cycle is a training by a rate that falls from its peak to zero, and starts where the last cycle ended.  The network at
its end is saved.

* ``rise=0``: snapshots (Huang et al., 2017, arXiv 1704.00109), rate ``peak / 2 (cos(pi t) + 1)`` at position t.
* ``rise=0.5``: the rate first rises linearly, as in FGE (Garipov et al., 2018, arXiv 1802.10026).
* ``temperature``: Langevin noise in the last part of each cycle, as in cSGLD (Zhang et al., 2020, arXiv 1902.03932):
  ``theta <- theta - l (grad L + wd theta) + sqrt(2 l T / N) xi``, without momentum.  The published code has T = 1 / N.
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


@register("cycles")
class Cycles(Method):
    """Networks saved at the ends of a training's cycles, the newest first (snapshots, FGE, cSGLD)."""

    same_network = "source"
    title = "Snapshots"
    reference = "Huang et al., ICLR 2017, arXiv 1704.00109"
    networks = "runs M; trains 1, for all cycles"
    nested = True

    class Config(method.Config):
        """What is trained is cycles x cycle_epochs; a prediction costs a network for each term."""

        cycles: int = Field(8, ge=1, description="networks that are saved; the largest size")
        cycle_epochs: int = Field(2, ge=1, description="length of a cycle")
        rise: float = Field(
            0.0, ge=0, lt=1, description="share of a cycle in which the rate rises: 0 snapshots, 0.5 FGE"
        )
        lr_scale: float = Field(0.5, gt=0, description="peak rate relative to the members'")
        temperature: float = Field(0.0, ge=0, description="T of Langevin noise; 0: none")
        noise_share: float = Field(0.1, gt=0, le=1, description="last part of a cycle, in which there is noise")

    def check_size(self, size: int) -> None:
        """As many as are saved."""
        if not 1 <= size <= self.config.cycles:
            raise SpecError(f"cycles: the size is 1 to cycles={self.config.cycles}, not {size}.")

    def parts(self, size: int) -> list[Part]:
        """All networks, which serve every size."""
        return [Part("networks", members=(0,))]

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """All cycles; nobody teaches."""
        return TrainingCost(self.config.cycles * self.config.cycle_epochs, recipe.batch_size)

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """One training for each cycle, on the same network."""
        from torch import nn
        from torch.nn import functional as F

        from dbn_core.train.loop import learning_rate
        from dbn_core.train.weights import Langevin

        config = self.config
        network = copy.deepcopy(context.members[0]).requires_grad_(True)
        noise: Any = {"momentum": 0.0, "nesterov": False} if config.temperature else {}
        recipe = context.student_recipe(
            epochs=config.cycle_epochs,
            warmup_epochs=config.rise * config.cycle_epochs,
            lr_scale=config.lr_scale,
            schedule="cosine",
            keep="last",
            **noise,
        ).replace(ema_decay=None)
        per_epoch = max(1, len(context.images) // recipe.batch_size)
        total, saved = per_epoch * recipe.epochs, nn.ModuleList()
        for cycle in range(config.cycles):
            module = Langevin(network)

            def step(batch: Batch, module: Langevin = module) -> torch.Tensor:
                done = int(module.steps)
                if done >= (1 - config.noise_share) * total:
                    rate = learning_rate(done, total, round(recipe.warmup_epochs * per_epoch), recipe)
                    module.shake(rate, config.temperature, len(context.images))
                module.steps += 1
                return F.cross_entropy(module(batch.images), batch.mixed_labels(context.classes))

            context.train(
                module, step, recipe, purpose=f"cycle-{cycle}", predict=lambda current, images: current(images)
            )
            saved.insert(0, copy.deepcopy(network))
        return saved

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The last ones that were saved."""
        from torch import nn

        from dbn_core.methods.predictors import Mixture

        networks = nn.ModuleList(context.bare_network() for _ in range(self.config.cycles))
        return Mixture(list(context.load(networks, "networks"))[:size])
