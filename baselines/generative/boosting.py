"""Diffusion of tables by gradient-boosted trees, as ForestDiffusion itself does with XGBoost.  arXiv 2309.09968.

A booster predicts the noise of one coded column at one level.  Its trees correct each other, so no rule combines them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from baselines.generative.forest import TableMethod, nodes
from dbn_core.errors import SpecError
from dbn_core.generative.aggregate import parse_rule
from dbn_core.methods import method
from dbn_core.methods.method import Part
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.measure.cost import Cost
    from dbn_core.methods.context import FitContext, PredictContext


@register("boosted-trees")
class BoostedTrees(TableMethod):
    """Forest diffusion with gradient-boosted trees in the place of forests."""

    title = "Boosted trees"
    reference = "Jolicoeur-Martineau et al., 2024, arXiv 2309.09968"
    networks = "runs 1 at each step; trains it"

    class Config(method.Config):
        """ForestDiffusion's settings, but for the leaves, which are scikit-learn's."""

        trees: int = Field(100, ge=1, le=10_000, description="of each level and coded column")
        depth: int = Field(7, ge=1, le=100, description="largest depth of a tree")
        leaves: int = Field(31, ge=2, le=10_000, description="largest number of a tree's leaves")
        learning_rate: float = Field(0.3, gt=0, le=1, description="factor of each tree")
        levels: int = Field(50, ge=2, le=10_000, description="noise levels; a row takes one prediction for each")
        duplicates: int = Field(100, ge=1, le=100_000, description="noised copies of each row at each level")
        per_class: bool = Field(False, description="a model for each class, whose rows are drawn in proportion")

    def check_size(self, size: int) -> None:
        """One: its trees are no ensemble."""
        if size != 1:
            raise SpecError(f"boosted-trees: its trees are no ensemble: set the size to 1, not {size}.")

    def parts(self, size: int) -> list[Part]:
        """The boosters."""
        return [Part("boosters")]

    def fit(self, part: Part, context: FitContext) -> dict[str, torch.Tensor]:
        """Boosters of all levels and columns, as flat arrays."""
        return self._fitted(context, "boosters")

    def _kind(self) -> tuple[Any, Any]:
        from dbn_core.generative.tabular.boosting import BoostedDiffusion, BoostingOptions

        return BoostedDiffusion, BoostingOptions(**self.config.key(exclude=self.OWN))

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """Rows of the table."""
        from dbn_core.generative.tabular.process import TablePredictor

        return TablePredictor(self._model(context, "boosters"), parse_rule("arithmetic"))

    def cost(self, size: int, context: PredictContext, counted: Cost) -> Cost:
        """A node of a tree counts as a parameter, a comparison as a multiply-add."""
        from dbn_core.measure.cost import Cost

        config, state = self.config, context.parts["boosters"]
        boosters = sum(len(tensor) for name, tensor in state.items() if name.endswith("nodes"))
        columns = boosters // config.levels // (context.data.num_classes if config.per_class else 1)
        return counted + Cost(nodes(state), config.trees * config.levels * columns * config.depth)
