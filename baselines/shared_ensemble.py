"""Deep ensemble with shared early blocks: several fresh upper halves on the frozen lower half of one network."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pydantic import Field

from dbn_core.methods import method
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext, Workspace
    from dbn_core.nets.heads import BridgeHead
    from dbn_core.nets.spec import NetworkOptions
    from dbn_core.train.recipe import Recipe


@register("shared")
class SharedEnsemble(Method):
    """Deep ensemble whose members share their early blocks: no teacher, only labels (control)."""

    same_network = "source"
    needs_split = True
    title = "DE (shared blocks)"
    reference = "Lee et al., 2015, arXiv 1511.06314 (TreeNets), with a frozen trunk"
    networks = "runs 1 with M upper parts; trains M - 1 of them"
    nested = True

    class Config(method.Config):
        """Where the branches begin and how they are trained."""

        split_at: str = Field("block1", description="last shared block")
        width: float = Field(1.0, gt=0, description="multiplier of the branches' channels")
        lr_scale: float = Field(1.0, gt=0, description="learning rate relative to the members'")
        epochs: int | None = Field(None, ge=1, description="training length; default: the suite's student budget")

    def parts(self, size: int) -> list[Part]:
        """A branch for each member but the source."""
        return [Part(f"branch-{branch}", members=(0,)) for branch in range(1, size)]

    def feature_nodes(self, network: NetworkOptions) -> tuple[str, ...]:
        """The last shared block."""
        return (self.config.split_at,)

    def members(self, size: int) -> tuple[int, ...]:
        """The source, whose early blocks are shared."""
        return (0,)

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """A branch has no teacher."""
        return dataclasses.replace(super().training_cost(part, recipe, student_epochs), teachers=0)

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Cross-entropy of a fresh branch on the source's features."""
        import torch
        from torch.nn import functional as F

        features, _ = context.members[0].split(self.config.split_at)
        branch = context.initialise(self._branch(context))

        def step(batch: Batch) -> torch.Tensor:
            with torch.no_grad():
                h = features(batch.images)
            return F.cross_entropy(branch(h), batch.mixed_labels(context.classes))

        recipe = context.student_recipe(epochs=self.config.epochs, lr_scale=self.config.lr_scale)
        context.train(branch, step, recipe, predict=lambda current, images: current(features(images)))
        return branch

    def _branch(self, context: Workspace) -> BridgeHead:
        from dbn_core.nets.heads import BridgeHead

        return BridgeHead(context.spec, context.classes, self.config.split_at, self.config.width)

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The source and its branches on the shared features."""
        from dbn_core.methods.predictors import FeatureMixture

        branches = [context.load(self._branch(context), f"branch-{branch}") for branch in range(1, size)]
        return FeatureMixture(context.members[0], self.config.split_at, branches)
