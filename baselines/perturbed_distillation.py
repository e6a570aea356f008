"""Distillation on perturbed images: the teachers are asked where they disagree.

Nam et al., 2021, arXiv 2110.14149, with the perturbation of Tashiro et al., 2020, arXiv 2003.06878.  In each step, for
one teacher f_m drawn at random and w uniform on [-1, 1]^K for each example:

    g(x) = gradient of w . softmax(f_m(x) / tau) in x
    x'   = x + step max_k softmax(f_m(x) / tau)_k g(x) / RMS(g(x))

and the student learns from all teachers on x'.  The paper's student is a BatchEnsemble, whose parts learn from one
teacher each; here they are the heads of :mod:`baselines.hydra`, or there is one student of all teachers as in ED.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from baselines.hydra import Hydra
from dbn_core.methods.method import Part, TrainingCost
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext
    from dbn_core.train.recipe import Recipe


@register("perturbed")
class PerturbedDistillation(Hydra):
    """Distillation on images perturbed towards the teachers' disagreement, into heads or one network."""

    title = "Perturbed distillation"
    reference = "Nam et al., 2021, arXiv 2110.14149"
    networks = "runs 1 with M heads, or 1; trains it"

    class Config(Hydra.Config):
        """The options of ``hydra``, and the perturbation."""

        student: Literal["heads", "one"] = Field("heads", description="a head for each teacher, or one of their mean")
        step: float = Field(1 / 255, ge=0, description="root mean square change of a pixel, for images in [0, 1]")

    def parts(self, size: int) -> list[Part]:
        """One student; its images depend on its training's draws, so that the teachers run online."""
        return [Part("student", tuple(range(size)))]

    def heads(self, size: int) -> int:
        """One for each teacher, or one."""
        return size if self.config.student == "heads" else 1

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """One teacher runs twice: on the images and on the perturbed ones."""
        cost = super().training_cost(part, recipe, student_epochs)
        return dataclasses.replace(cost, teachers=cost.teachers + 1)

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Perturb each batch for a teacher drawn at random, then learn from all of them."""
        import torch

        from dbn_core.data.perturbation import diversified

        config, generator = self.config, context.generator("train")
        student = self.student(len(part.members), context, self.source(context))

        def step(batch: Batch) -> torch.Tensor:
            teacher = int(torch.randint(len(context.members), (), generator=generator))
            weights = 2 * torch.rand(len(batch), context.classes, generator=generator) - 1
            context.teacher_passes += len(batch)
            images = diversified(batch.images, context.members[teacher], weights, config.step, config.tau)
            return self.loss(student(images), context.teach_images(images))

        self.train(student, step, context, generator)
        return student
