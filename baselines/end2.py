"""END2: one student learns a Dirichlet over the predictions of M teachers, through proxy targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import register
from dbn_core.methods.student import StartOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext


@register("end2")
class EnsembleDistributionDistillation(Method):
    """Ensemble distribution distillation with proxy Dirichlet targets (END²)."""

    same_network = "none"
    title = "END²"
    reference = "Ryabinin et al., 2021, arXiv 2105.06987; configuration of arXiv 2404.15814"
    networks = "runs 1; trains 1"

    class Config(StartOptions):
        """The DBN paper's settings."""

        tau: float = Field(2.0, gt=0, description="temperature of concentrations and of teachers")
        weight: float = Field(1.0, gt=0, description="factor of the loss; tau^2 gives it the gradients of ED's")
        lr_scale: float = Field(0.5, gt=0, description="learning rate relative to the members'")
        prediction: Literal["softmax", "dirichlet"] = Field(
            "softmax", description="softmax of the logits, as in the released code, or the Dirichlet's mean"
        )

    def parts(self, size: int) -> list[Part]:
        """One student of all teachers; how it predicts does not change how it is trained."""
        config, members = self.config, tuple(range(size))
        settings, images = config.key(exclude={"prediction"}), config.augmentation()
        return [Part("student", members, (), settings, teacher_mixup=config.mixup, teacher_augmentation=images)]

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Train the student on the proxy Dirichlet of the teachers."""
        from dbn_core.distillation import end2_loss

        student = self.config.begin(context.new_network(), context)

        def step(batch: Batch) -> torch.Tensor:
            return self.config.weight * end2_loss(student(batch.images), context.teach(batch), self.config.tau)

        self.config.train(student, step, context)
        return student

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The student, read as a softmax or as the mean of its Dirichlet."""
        from dbn_core.methods.predictors import DirichletMean, Mixture

        student = context.load(context.new_network(), "student")
        return Mixture([student]) if self.config.prediction == "softmax" else DirichletMean(student, self.config.tau)
