"""Ensemble distillation: one student learns the softened mean prediction of M teachers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from dbn_core.errors import SpecError
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import register
from dbn_core.methods.student import StartOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext, Workspace
    from dbn_core.nets.network import Network
    from dbn_core.train.recipe import Recipe


@register("ed")
class EnsembleDistillation(Method):
    """Ensemble distillation into one network (ED)."""

    same_network = "none"
    title = "ED"
    reference = "Hinton et al., 2015, arXiv 1503.02531; configuration of arXiv 2404.15814"
    networks = "runs 1; trains 1"

    class Config(StartOptions):
        """The DBN paper's settings."""

        tau: float = Field(4.0, gt=0, description="distillation temperature")
        alpha: float = Field(1.0, ge=0, le=1, description="weight of the teachers; the rest goes to the labels")
        width: float = Field(1.0, gt=0, description="multiplier of the student's channels")
        teachers_per_image: int | None = Field(
            None, ge=1, description="members that teach each image of a batch, drawn anew; default: all"
        )
        mirrored_teachers: bool = Field(
            False, description="each answer is on the image or on its mirror image; needs teachers_per_image"
        )

        @model_validator(mode="after")
        def _draws_teachers_that_are_mirrored(self) -> EnsembleDistillation.Config:
            if self.mirrored_teachers and self.teachers_per_image is None:
                raise ValueError("mirrored_teachers needs teachers_per_image: say how many members teach each image")
            return self

    @classmethod
    def within(cls, config: Config) -> EnsembleDistillation:
        """The method that trains the student of another one, whose options include its own."""
        return cls(cls.Config(**config.model_dump(include=set(cls.Config.model_fields))))

    def shared_part(self, size: int) -> Part:
        """The student as a part of another method; an ``ed`` entry with the same options shares it."""
        (student,) = self.parts(size)
        return dataclasses.replace(student, settings=self.config.key(), owner=EnsembleDistillation)

    def check_size(self, size: int) -> None:
        """An image cannot ask more members than there are."""
        super().check_size(size)
        if (self.config.teachers_per_image or 1) > size:
            raise SpecError(f"{self.name}: teachers_per_image={self.config.teachers_per_image} of {size} teachers.")

    def parts(self, size: int) -> list[Part]:
        """One student of all teachers."""
        config = self.config
        members = tuple(range(size))
        shown = config.mixup if config.teachers_per_image is None else None  # drawn teachers always run online
        return [Part("student", members, teacher_mixup=shown, teacher_augmentation=config.augmentation())]

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """That of a student of as many teachers as answer for each image."""
        cost = super().training_cost(part, recipe, student_epochs)
        return dataclasses.replace(cost, teachers=self.config.teachers_per_image or cost.teachers)

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Train the student on the teachers' softened mean probabilities."""
        from dbn_core.distillation import ed_loss

        config = self.config
        student = config.begin(self.student(context), context)
        draws = None if config.teachers_per_image is None else context.generator("teachers")
        if config.mirrored_teachers and not context.data.flip:
            raise SpecError("ed: mirror images of these data are not of the same class: drop mirrored_teachers.")

        def teach(batch: Batch) -> torch.Tensor:
            if draws is None:
                return context.teach(batch)
            return context.teach_by_some(batch.images, config.teachers_per_image, draws, config.mirrored_teachers)

        def step(batch: Batch) -> torch.Tensor:
            logits, labels = student(batch.images), batch.mixed_labels(context.classes)
            return ed_loss(logits, teach(batch), config.tau, config.alpha, labels)

        config.train(student, step, context, step_generator=draws)
        return student

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The student alone."""
        from dbn_core.methods.predictors import Mixture

        return Mixture([context.load(self.student(context), "student")])

    def student(self, context: Workspace) -> Network:
        """A fresh student."""
        return context.new_network(spec=context.spec.scaled(self.config.width))
