"""MC dropout of a score network: the mean of M copies, each with a dropout mask that is fixed for a trajectory.

Gal and Ghahramani (2016, arXiv 1506.02142), for scores as in arXiv 2601.11444.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from baselines.generative.score_ensemble import RuleConfig
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    from torch import nn

    from dbn_core.generative.diffusion.members import Member
    from dbn_core.methods.context import FitContext, PredictContext, Workspace
    from dbn_core.train.recipe import Recipe


@register("mc-dropout-score")
class DropoutScores(Method):
    """One score network trained with dropout; M copies with fixed dropout masks are the ensemble."""

    task = "generation"
    title = "MC dropout"
    reference = "Gal and Ghahramani, 2016, arXiv 1506.02142"
    networks = "runs M at each step; trains 1"

    class Config(RuleConfig):
        """How samples are drawn, and how much is dropped."""

        dropout: float = Field(0.1, gt=0, lt=1, description="rate inside the blocks")

    def parts(self, size: int) -> list[Part]:
        """One network for all sizes and rules."""
        return [Part("network", settings=self.config.key(include={"dropout"}))]

    def _network(self, context: Workspace) -> Member:
        return context.new_network(spec=context.spec.model_copy(update={"dropout": self.config.dropout}))

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """That of a member."""
        return TrainingCost(recipe.epochs, recipe.batch_size)

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Denoising score matching by the members' recipe."""
        network, draws = self._network(context), context.generator("train")
        step = context.task.member_step(network, context.recipe, draws)
        context.train(network, step, context.recipe, step_generator=draws)
        return network

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """A sampler of the copies' common score; their masks are drawn once."""
        from dbn_core.generative.diffusion.members import SamplingPredictor
        from dbn_core.generative.diffusion.networks import fixed_dropout

        network, draws = context.load(self._network(context), "network"), context.generator("masks")
        copies = [fixed_dropout(network, draws) for _ in range(size)]
        return SamplingPredictor(copies, self.config.steps, self.config.sampler, self.config.rule)
