"""Ensembles of score networks: at every step of a sampler, one score of M.  arXiv 2601.11444.

    s(x, t) = rule(s_1(x, t), ..., s_M(x, t))

``score-ensemble`` is the mean, whose denoising loss is at most the members' mean loss (Jensen); it is the reference of
generative suites.  ``aggregate`` uses any other rule of :mod:`~dbn_core.generative.aggregate`, or other steps.  Its
``noise`` disturbs the scores on purpose, to see how samples get worse as the pointwise loss grows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dbn_core.generative.aggregate import RuleSpec
from dbn_core.methods import method
from dbn_core.methods.method import Method
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    from torch import nn

    from dbn_core.methods.context import PredictContext

_PAPER = "2026, When Are Two Scores Better Than One?, arXiv 2601.11444"
Sampler = Literal["ddim", "ddpm", "euler-maruyama", "heun"]


class SamplingConfig(method.Config):
    """How samples are drawn."""

    steps: int = Field(16, ge=1, le=10_000, description="of the sampler, from noise to data")
    sampler: Sampler = Field("ddim", description="ddim and heun follow the probability-flow ODE, the others the SDE")


class RuleConfig(SamplingConfig):
    """How samples are drawn, and how M scores are combined."""

    rule: RuleSpec = Field("arithmetic", description="arithmetic, median, dominant, geometric[margin=1.0], moe ...")


class _Pool(Method):
    """Common part of both methods: the members of the pool under a rule."""

    task = "generation"
    reference = _PAPER
    networks = "runs M at each step; trains none"

    def members(self, size: int) -> tuple[int, ...]:
        """All of them."""
        return tuple(range(size))

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """A sampler of the members' common score."""
        import torch

        from dbn_core.generative.diffusion.members import Disturbed, SamplingPredictor

        config: Any = self.config
        members = [context.members[position] for position in range(size)]
        if eta := getattr(config, "noise", 0.0):
            shape, draws = (context.data.channels, *context.data.image_size), context.generator("noise")
            members = [Disturbed(member, eta, torch.randn(shape, generator=draws)) for member in members]
        return SamplingPredictor(members, config.steps, config.sampler, getattr(config, "rule", "arithmetic"))


@register("score-ensemble")
class ScoreEnsemble(_Pool):
    """M score networks, their scores averaged at every step (SE-M)."""

    title = "SE"
    competes = False

    class Config(SamplingConfig):
        """See :class:`SamplingConfig`."""


@register("aggregate")
class Aggregate(_Pool):
    """M score networks under any rule: median, dominant, alternating, mixture of experts and others."""

    title = "Aggregate"
    version = 2  # the likelihood of `moe` is the mixture's, and what pools ends has no loss of a score

    class Config(RuleConfig):
        """See :class:`RuleConfig`; with noise."""

        noise: float = Field(0.0, ge=0, description="size of a fixed error of each score, relative to the score")
