"""Diffusion of tables by random forests whose trees are the ensemble.  arXiv 2309.09968 and 2601.11444, section 4.

A forest of M trees predicts the noise at each level.  ``forest`` averages its trees and is the reference;
``forest-rule`` uses any other rule of :mod:`~dbn_core.generative.aggregate`.  Forests do not depend on the rule, so
both methods share one fit.  With ``per_class`` each class has forests of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dbn_core.errors import SpecError
from dbn_core.generative.aggregate import RuleSpec, parse_rule
from dbn_core.methods import method
from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.measure.cost import Cost
    from dbn_core.methods.context import FitContext, PredictContext


class ForestConfig(method.Config):
    """The papers' settings."""

    trees: int = Field(100, ge=1, le=10_000, description="fitted trees; the first M are an ensemble of M")
    depth: int = Field(7, ge=1, le=100, description="largest depth of a tree")
    levels: int = Field(50, ge=2, le=10_000, description="noise levels; a row takes one prediction for each")
    duplicates: int = Field(100, ge=1, le=100_000, description="noised copies of each row at each level")
    per_class: bool = Field(False, description="a model for each class, whose rows are drawn in proportion")


class TableMethod(Method):
    """Common part of the methods: fitting a diffusion of the table, or one for each class."""

    task = "tabular"
    OWN: ClassVar = {"rule", "per_class"}  # options that do not belong to the diffusion

    @abstractmethod
    def _kind(self) -> tuple[Any, Any]:
        """The class of the diffusion, and its options."""

    def _fitted(self, context: FitContext, purpose: str) -> dict[str, torch.Tensor]:
        from dbn_core.generative.tabular.per_class import PerClass
        from dbn_core.generative.tasks.tabular import table_of

        (kind, options), seed = self._kind(), int(context.generator(purpose).initial_seed())
        train = table_of(context.data, "train")
        if self.config.per_class:
            return PerClass.fit(kind, train, options, seed=seed).state_dict()
        return kind.fit(train, options, seed=seed).state_dict()

    def _model(self, context: PredictContext, part: str) -> Any:
        from dbn_core.generative.tabular.per_class import PerClass
        from dbn_core.generative.tasks.tabular import table_of

        (kind, options), train, state = self._kind(), table_of(context.data, "train"), context.parts[part]
        if self.config.per_class:
            return PerClass.from_state(kind, train, options, state)
        return kind.from_state(train, options, state)


def nodes(state: Any) -> int:
    """Nodes of all trees of a fitted diffusion, or of those of all classes."""
    return sum(len(tensor) for name, tensor in state.items() if name.endswith("feature"))


class _Forest(TableMethod):
    """Common part of the methods of forests: rows under a rule."""

    reference = "Jolicoeur-Martineau et al., 2024, arXiv 2309.09968; 2026, arXiv 2601.11444"
    networks = "runs M trees at each step; trains them"

    @property
    def rule(self) -> str:
        """The rule that combines the predictions of the trees."""
        return getattr(self.config, "rule", "arithmetic")

    def check_size(self, size: int) -> None:
        """As many trees as were fitted, at most."""
        super().check_size(size)
        if size > self.config.trees:
            raise SpecError(f"{self.name}: the size is {size}: choose at most {self.config.trees}, the fitted trees.")

    def parts(self, size: int) -> list[Part]:
        """One fit for all rules and sizes."""
        return [Part("forest", settings=self.config.key(exclude={"rule"}), owner=Forest)]

    def fit(self, part: Part, context: FitContext) -> dict[str, torch.Tensor]:
        """Forests of all levels, as flat arrays."""
        return self._fitted(context, "forests")

    def _kind(self) -> tuple[Any, Any]:
        from dbn_core.generative.tabular.forest import ForestDiffusion, ForestOptions

        return ForestDiffusion, ForestOptions(**self.config.key(exclude=self.OWN))

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """Rows of the table, by the first ``size`` trees."""
        from dbn_core.generative.tabular.process import TablePredictor

        return TablePredictor(self._model(context, "forest").first(size), parse_rule(self.rule))

    def cost(self, size: int, context: PredictContext, counted: Cost) -> Cost:
        """A node of a tree counts as a parameter, a comparison as a multiply-add."""
        from dbn_core.measure.cost import Cost

        config = self.config
        # Members a step: a rule that draws follows one tree.
        asked = 1 if parse_rule(self.rule).draws != "never" else size
        return counted + Cost(
            nodes(context.parts["forest"]) * size // config.trees, asked * config.levels * config.depth
        )


@register("forest")
class Forest(_Forest):
    """Forest diffusion: random forests of M trees, their predictions averaged."""

    title = "Forest"
    competes = False

    class Config(ForestConfig):
        """See :class:`ForestConfig`."""


@register("forest-rule")
class ForestRule(_Forest):
    """Forest diffusion with another rule over the trees: dominant, median, mixture of experts and others."""

    title = "Forest"

    class Config(ForestConfig):
        """See :class:`ForestConfig`; with the rule."""

        rule: RuleSpec = Field("dominant", description="arithmetic, median, dominant, geometric[margin=1.0], moe ...")
