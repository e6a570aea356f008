"""Ensemble distillation: one student learns the softened mean prediction of M teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from dbn_core import method
from dbn_core.method import Method, Part
from dbn_core.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.context import FitContext, PredictContext, Workspace
    from dbn_core.data.batch import Batch


@register("ed")
class EnsembleDistillation(Method):
    """Ensemble distillation into one network (ED)."""

    title = "ED"
    reference = "Hinton et al., 2015, arXiv 1503.02531; configuration of arXiv 2404.15814"

    class Config(method.Config):
        """The DBN paper's settings."""

        tau: float = Field(4.0, gt=0, description="distillation temperature")
        alpha: float = Field(1.0, ge=0, le=1, description="weight of the teachers; the rest goes to the labels")
        mixup: float = Field(0.0, ge=0, description="alpha of per-example mixup of the images that are taught")
        slim: float = Field(1.0, gt=0, description="the student's widths are the suite's divided by it")
        lr_scale: float = Field(1.0, gt=0, description="learning rate relative to the members'")
        batch_size: int | None = Field(None, ge=2, description="default: the members'")
        weight_decay: float | None = Field(None, ge=0, description="L2; default: the members'")
        epochs: int | None = Field(None, ge=1, description="training length; default: the suite's student budget")

    def parts(self, size: int) -> list[Part]:
        """One student of all teachers."""
        return [Part("student", members=tuple(range(size)), taught_mixup=self.config.mixup)]

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Train the student on the teachers' softened mean probabilities."""
        from dbn_core.distillation import ed_loss

        student = self._student(context)

        def step(batch: Batch) -> torch.Tensor:
            logits, labels = student(batch.images), batch.mixed_labels(context.classes)
            return ed_loss(logits, context.teach(batch), self.config.tau, self.config.alpha, labels)

        recipe = context.student_recipe(
            **self.config.model_dump(include={"epochs", "lr_scale", "mixup", "batch_size", "weight_decay"})
        )
        context.train(student, step, recipe)
        return student

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The student alone."""
        from dbn_core.predictors import Mixture

        return Mixture([context.load(self._student(context), "student")])

    def _student(self, context: Workspace) -> nn.Module:
        return context.new_network(spec=context.spec.slimmed(self.config.slim))
