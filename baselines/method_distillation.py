"""Distillation of any method into one network: the teachers need not be independent members.

The terms of another method's prediction teach as members teach in ``ed``, for example networks of one training::

    cycles[cycles=8,rise=0.5]      fast geometric ensembling, 16 epochs from the source
    swag[samples=8]                draws of SWAG
    de-tta                         at size 1 the source and its mirror image
    student-bridge[...]            a student and its bridges

What the teachers need is trained once, for this method and for their own entry in the suite.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from dbn_core.errors import SpecError
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import canonical, parse_method, register
from dbn_core.methods.student import StartOptions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext
    from dbn_core.nets.network import Network
    from dbn_core.nets.spec import NetworkOptions
    from dbn_core.train.recipe import Recipe

_STUDENT = "distilled"


@register("distil")
class MethodDistillation(Method):
    """One student of another method's prediction, such as networks of one training; the size is the teacher's."""

    same_network = "none"  # as far as it is not the teacher's
    title = "Distilled"
    reference = "Hinton et al., 2015, arXiv 1503.02531, with other teachers"
    networks = "runs 1; trains 1, and what its teacher trains"

    class Config(StartOptions):
        """The teacher, and the options of ``ed``."""

        teacher: str = Field("cycles", description="spec of the method whose prediction is learned")
        tau: float = Field(4.0, gt=0, description="distillation temperature")
        alpha: float = Field(1.0, ge=0, le=1, description="weight of the teachers; the rest goes to the labels")

        @field_validator("teacher")
        @classmethod
        def _known(cls, spec: str) -> str:
            try:
                teacher = parse_method(spec)
            except SpecError as error:
                raise ValueError(str(error)) from error
            if teacher.task != "classification" or teacher.name == MethodDistillation.name:
                raise ValueError(f"'{teacher.name}' does not predict classes, or is distilled itself")
            return canonical(teacher)

    @property
    def teacher(self) -> Method:
        """The method whose prediction is learned."""
        return parse_method(self.config.teacher)

    def check_size(self, size: int) -> None:
        """As the teacher's."""
        self.teacher.check_size(size)

    def check_network(self, network: NetworkOptions) -> None:
        """As the teacher's."""
        self.teacher.check_network(network)

    def check_built(self, network: Network, images: torch.Tensor) -> None:
        """As the teacher's."""
        self.teacher.check_built(network, images)

    def check_pool(self, source_alike: bool, network: NetworkOptions) -> None:
        """The teacher's, and the student's own."""
        self.teacher.check_pool(source_alike, network)
        super().check_pool(source_alike, network)

    def parts(self, size: int) -> list[Part]:
        """All of the teacher's, then the student."""
        teacher = self.teacher
        parts = [
            dataclasses.replace(
                part,
                settings=teacher.config.key() if part.settings is None else part.settings,
                owner=part.owner or type(teacher),
            )
            for part in teacher.parts(size)
        ]
        members = tuple(sorted({0, *teacher.members(size)}))
        settings = {**self.config.key(), "size": size, "teacher_version": teacher.version}
        return [*parts, Part(_STUDENT, members, tuple(part.name for part in parts), settings)]

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """Of the teacher's parts what it says; to the student each unit of the size is a teacher that runs online."""
        if part.name != _STUDENT:
            return self.teacher.training_cost(part, recipe, student_epochs)
        cost = super().training_cost(part, recipe, student_epochs)
        return dataclasses.replace(cost, teachers=(part.settings or {})["size"])

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """The teacher's parts as it fits them; the student on its prediction, always run online."""
        import torch

        from dbn_core.distillation import ed_loss
        from dbn_core.methods.context import PredictContext, freeze

        if part.name != _STUDENT:
            return self.teacher.fit(part, context)  # type: ignore[return-value]
        config, size = self.config, (part.settings or {})["size"]
        student = config.begin(context.new_network(), context)
        members = dict(zip(part.members, context.members, strict=True))
        seen = PredictContext(
            context.data, context.spec, context.device, context.axes, context.parts, context.task, members
        )
        teacher = freeze(self.teacher.predictor(size, seen))

        def step(batch: Batch) -> torch.Tensor:
            with torch.no_grad():
                terms = teacher(batch.images)
            terms = terms if terms.ndim == 3 else terms[None]
            context.teacher_passes += len(terms) * len(batch)  # a term counts as a pass, though some cost less
            return ed_loss(student(batch.images), terms, config.tau, config.alpha, batch.mixed_labels(context.classes))

        config.train(student, step, context)
        return student

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The student alone."""
        from dbn_core.methods.predictors import Mixture

        return Mixture([context.load(context.new_network(), _STUDENT)])
