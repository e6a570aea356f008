"""Score networks that each learn a part of the data: members that complement each other.  arXiv 2601.11444, section 3.

The classes form M groups, k mod M.  Expert m learns group m alone, or with ``overlap`` all groups but that one.  The
score of the whole is then a mixture's,

    s(x, t) = sum_m r_m(x) s_m(x, t),  r_m the share of expert m in the density at x,

which no rule with equal weights gives; following one expert a trajectory (``moe``) samples the mixture exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from baselines.generative.score_ensemble import RuleConfig
from dbn_core.errors import SpecError
from dbn_core.generative.aggregate import RuleSpec
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext
    from dbn_core.train.recipe import Recipe


@register("experts")
class Experts(Method):
    """M score networks, each trained on its own share of the classes or on all others, under any rule."""

    task = "generation"
    title = "Experts"
    reference = "2026, When Are Two Scores Better Than One?, arXiv 2601.11444"
    networks = "runs M at each step, or the drawn one; trains M"
    version = 2  # the likelihood of `moe` is that of the mixture

    class Config(RuleConfig):
        """How samples are drawn, and how long an expert is trained."""

        rule: RuleSpec = "moe"
        epochs: int | None = Field(None, ge=1, description="default: the members' own")
        overlap: bool = Field(False, description="each expert learns all classes but its share, not its share alone")

    def check_size(self, size: int) -> None:
        """Two experts or more."""
        if size < 2:
            raise SpecError(f"experts: the size is {size}: choose 2 or more.")

    def parts(self, size: int) -> list[Part]:
        """One for each expert, for every rule."""
        settings = {"experts": size, **self.config.key(include={"epochs", "overlap"})}
        return [Part(f"expert-{m + 1}", settings={**settings, "expert": m}) for m in range(size)]

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """As many steps as a member takes."""
        return TrainingCost(self.config.epochs or recipe.epochs, recipe.batch_size)

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Denoising score matching on the expert's classes, in as many updates as a member has."""
        import torch

        from dbn_core.data.batch import make_batch

        assert part.settings is not None
        network, draws = context.new_network(), context.generator("train")
        recipe = context.recipe.replace(epochs=self.config.epochs or context.recipe.epochs)
        step = context.task.member_step(network, recipe, draws)
        data, flip = context.data, context.data.flip if recipe.flip is None else recipe.flip
        share = data.train.labels % part.settings["experts"] == part.settings["expert"]
        own = (~share if self.config.overlap else share).nonzero()[:, 0]
        if not len(own):
            raise SpecError(f"{context.run_name}: it has no class: set the size to at most the number of classes.")

        def from_own(batch: Batch) -> torch.Tensor:
            # As many of its own examples, with the same augmentation.
            chosen = own[torch.randint(len(own), (len(batch),), generator=draws)]
            return step(make_batch(data.train, chosen, recipe, flip, draws, context.device))

        context.train(network, from_own, recipe, step_generator=draws)
        return network

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """A sampler of the experts' common score."""
        from dbn_core.generative.diffusion.members import SamplingPredictor

        experts = [context.load(context.new_network(), part.name) for part in self.parts(size)]
        return SamplingPredictor(experts, self.config.steps, self.config.sampler, self.config.rule)
