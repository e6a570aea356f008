"""Score networks trained otherwise than the pool's: members that differ more, or know less.  arXiv 2601.11444.

With a last layer of zeros all members start as the same function.  ``output_init`` starts them apart: it is the paper's
lambda, the variance of that layer's initial weights relative to the usual one.  ``epochs`` trains them shorter or
longer.
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


@register("score-networks")
class ScoreNetworks(Method):
    """M score networks of its own, with another initialisation or length of training, under any rule."""

    task = "generation"
    title = "Score networks"
    reference = "2026, When Are Two Scores Better Than One?, arXiv 2601.11444"
    networks = "runs M at each step; trains M"

    class Config(RuleConfig):
        """How samples are drawn, and how members are trained."""

        output_init: float = Field(0.0, ge=0, le=100, description="relative variance of the last layer's first weights")
        epochs: int | None = Field(None, ge=1, description="default: the members' own")

    def parts(self, size: int) -> list[Part]:
        """The members; those of a smaller size are the first."""
        settings = self.config.key(include={"output_init", "epochs"})
        return [Part(f"member-{m + 1}", settings=settings) for m in range(size)]

    def _network(self, context: Workspace) -> Member:
        return context.new_network(spec=context.spec.model_copy(update={"output_init": self.config.output_init}))

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """That of a member, for its epochs."""
        return TrainingCost(self.config.epochs or recipe.epochs, recipe.batch_size)

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Denoising score matching by the members' recipe."""
        network, draws = self._network(context), context.generator("train")
        recipe = context.recipe.replace(epochs=self.config.epochs or context.recipe.epochs)
        context.train(network, context.task.member_step(network, recipe, draws), recipe, step_generator=draws)
        return network

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """A sampler of the members' common score."""
        from dbn_core.generative.diffusion.members import SamplingPredictor

        members = [context.load(context.bare_network(), part.name) for part in self.parts(size)]
        return SamplingPredictor(members, self.config.steps, self.config.sampler, self.config.rule)
