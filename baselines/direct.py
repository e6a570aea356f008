"""Direct regression: the score network of DBN trained to reach the ensemble's logits in one step, without diffusion."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from baselines.dbn import DBNConfig, DiffusionBridgeNetwork
from dbn_core.methods.registry import register


@register("direct")
class DirectRegression(DiffusionBridgeNetwork):
    """The score network of DBN by regression in one step: no diffusion, no distillation (control)."""

    title = "Direct"
    reference = "control of arXiv 2404.15814"

    class Config(DBNConfig):
        """The options of DBN with one step; ``loss`` is mse on logits or kl on predictions."""

        steps: Literal[1] = Field(1, description="one step is what makes it direct")
        distill: Literal[False] = Field(False, description="there is nothing to distil")
