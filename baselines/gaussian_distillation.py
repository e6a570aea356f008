"""Gaussian distillation: one student learns the mean and a few linear directions in which its teachers differ.

After "ensemble distribution distillation" by deep latent factors, arXiv 2510.19290: teachers are draws of
``f(x) = mu(x) + Phi(x)^T z``, fitted by expectation and maximisation, see :mod:`dbn_core.nets.logit_factors`.  A
prediction is the mean softmax of draws of z: a flow with a linear generator, without a sampler, at the cost of one
network.  Ours takes running sums over batches in the place of the paper's separate E-steps and of its start by MMD.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import register
from dbn_core.methods.student import StudentOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext, Workspace
    from dbn_core.nets.logit_factors import LogitFactors


@register("gaussian")
class GaussianDistillation(Method):
    """One student of the teachers' mean logits and of the directions in which they differ (linear Gaussian)."""

    same_network = "none"
    title = "Gaussian distillation"
    reference = "Deep latent factor distillation, NeurIPS 2025, arXiv 2510.19290"
    networks = "runs 1; trains 1"

    class Config(StudentOptions):
        """The options of a student, and of its Gaussian."""

        factors: int = Field(2, ge=1, description="q, directions; M teachers span M - 1")
        draws: int = Field(32, ge=1, description="logits that are drawn for a prediction, its terms")

    def parts(self, size: int) -> list[Part]:
        """One student of all teachers."""
        config = self.config
        return [
            Part(
                "student",
                tuple(range(size)),
                settings=config.key(exclude={"draws"}),
                teacher_mixup=config.mixup,
                teacher_augmentation=config.augmentation(),
            )
        ]

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Alternate between the teachers' positions and the student, batch by batch."""
        model = self._model(context, len(part.members), len(context.images))
        context.initialise(model)

        def step(batch: Batch) -> torch.Tensor:
            teachers = context.teach(batch)
            loss: torch.Tensor = model.loss(batch.images, teachers - teachers.mean(-1, keepdim=True))
            return loss

        def predict(current: Any, images: torch.Tensor) -> torch.Tensor:
            return self._predictor(current, context)(images).logsumexp(0)

        context.train(model, step, context.student_recipe(**self.config.changes()), predict=predict)
        return model

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The student once, then all draws."""
        model = self._model(context, size, 1)
        return self._predictor(context.load(model, "student"), context)

    def _model(self, context: Workspace, teachers: int, examples: int) -> LogitFactors:
        from dbn_core.nets.logit_factors import LogitFactors

        factors = self.config.factors
        network = context.bare_network(classes=(1 + factors) * context.classes)
        return LogitFactors(network, factors, teachers, examples)

    def _predictor(self, model: LogitFactors, context: Workspace) -> nn.Module:
        import torch

        from dbn_core.nets.logit_factors import FactorLogits

        z = torch.randn(self.config.draws, self.config.factors, generator=context.generator("z"))
        return FactorLogits(model, z.to(context.device))
