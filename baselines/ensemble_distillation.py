"""Ensemble distillation: one student learns the softened mean prediction of M teachers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import register
from dbn_core.methods.student import StudentOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext, Workspace


@register("ed")
class EnsembleDistillation(Method):
    """Ensemble distillation into one network (ED)."""

    same_network = "none"
    title = "ED"
    reference = "Hinton et al., 2015, arXiv 1503.02531; configuration of arXiv 2404.15814"

    class Config(StudentOptions):
        """The DBN paper's settings."""

        tau: float = Field(4.0, gt=0, description="distillation temperature")
        alpha: float = Field(1.0, ge=0, le=1, description="weight of the teachers; the rest goes to the labels")
        width: float = Field(1.0, gt=0, description="multiplier of the student's channels")
        start: Literal["random", "source"] = Field(
            "random", description="weights to begin with: fresh ones, or the source's"
        )

        @model_validator(mode="after")
        def _starts_as_wide_as_the_source(self) -> EnsembleDistillation.Config:
            if self.start == "source" and self.width != 1:
                raise ValueError("a student that starts as the source has its widths: drop width or start")
            return self

    def parts(self, size: int) -> list[Part]:
        """One student of all teachers."""
        config = self.config
        members = tuple(range(size))
        return [Part("student", members, teacher_mixup=config.mixup, teacher_augmentation=config.augmentation())]

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Train the student on the teachers' softened mean probabilities."""
        from dbn_core.distillation import ed_loss

        student = self._student(context)
        if self.config.start == "source":
            student.load_state_dict(context.members[0].state_dict())

        def step(batch: Batch) -> torch.Tensor:
            logits, labels = student(batch.images), batch.mixed_labels(context.classes)
            return ed_loss(logits, context.teach(batch), self.config.tau, self.config.alpha, labels)

        context.train(student, step, context.student_recipe(**self.config.changes()))
        return student

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The student alone."""
        from dbn_core.methods.predictors import Mixture

        return Mixture([context.load(self._student(context), "student")])

    def _student(self, context: Workspace) -> nn.Module:
        return context.new_network(spec=context.spec.scaled(self.config.width))
