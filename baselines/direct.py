"""Direct regression: the score network of DBN trained to reach the ensemble's logits in one step, without diffusion."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from baselines.dbn import DBNConfig, DiffusionBridgeNetwork
from dbn_core.methods.method import Part
from dbn_core.methods.registry import register
from dbn_core.methods.student import ImageOptions

if TYPE_CHECKING:
    from torch import nn

    from dbn_core.methods.context import FitContext


@register("direct")
class DirectRegression(DiffusionBridgeNetwork):
    """The score network of DBN by regression in one step: no diffusion, no distillation (control)."""

    title = "Direct"
    reference = "control of arXiv 2404.15814"

    class Config(DBNConfig, ImageOptions):
        """The options of DBN with one step; ``loss`` is mse on logits or kl on predictions."""

        steps: Literal[1] = Field(1, description="one step is what makes it direct")
        distill: Literal[False] = Field(False, description="there is nothing to distil")

    def parts(self, size: int) -> list[Part]:
        """As of DBN, on images of its own."""
        images = self.config.augmentation()
        return [dataclasses.replace(part, teacher_augmentation=images) for part in super().parts(size)]

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """As of DBN; its recipe starts from the members' with the images of the options."""
        recipe = context.recipe.replace(**self.config.augmentation())
        return super().fit(part, dataclasses.replace(context, recipe=recipe))
