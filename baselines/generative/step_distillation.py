"""Distillation of a sampler's steps: progressive distillation, and B-DENSE's student of K branches.

Salimans and Ho, 2022, arXiv 2202.00512; B-DENSE, 2026, arXiv 2602.15971.  In each round a student learns to do in
one step what its teacher does in K, and becomes the teacher of the next round.  A plain student learns the teacher's
last state; with ``branches`` its last layer is widened K-fold and branch k learns the k-th state,

    loss = sum_k w_k ||x_k - target_k||^2,  w_k ~ exp(growth (k / K - 1)).

Only the last branch samples, so that a prediction costs the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from dbn_core.errors import SpecError
from dbn_core.methods import method
from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext


def rounds(start: int, stop: int, substeps: int = 2) -> list[int]:
    """Steps of the students of all rounds: start / K, start / K^2, ... down to stop.

    >>> rounds(start=16, stop=2, substeps=2)
    [8, 4, 2]

    Raises:
        SpecError: K does not divide the steps of a round, or the rounds miss ``stop``.
    """
    steps, found = start, []
    while steps > stop:
        if substeps < 2 or steps % substeps:
            raise SpecError(
                f"{substeps} does not divide a teacher's {steps} steps: choose a number of branches that does, 2 or "
                "more."
            )
        steps //= substeps
        found.append(steps)
    if steps != stop or not found:
        raise SpecError(
            f"Rounds of {substeps} from {start} steps do not end at {stop}: start from {stop} times a power of "
            f"{substeps}."
        )
    return found


@register("step-distillation")
class StepDistillation(Method):
    """A sampler of few steps, distilled from one of many; with branches, as in B-DENSE."""

    task = "generation"
    title = "Progressive distillation"
    reference = "Salimans and Ho, 2022, arXiv 2202.00512; B-DENSE, 2026, arXiv 2602.15971"

    class Config(method.Config):
        """Steps before and after, and the states to learn."""

        start: int = Field(16, ge=2, le=10_000, description="steps of the first teacher, a member of the pool")
        steps: int = Field(2, ge=1, le=10_000, description="steps of the last student")
        substeps: int = Field(2, ge=2, le=1000, description="K: a teacher's steps that become one")
        branches: bool = Field(False, description="learn all K states (B-DENSE), or the last alone")
        growth: float = Field(0.0, ge=-50, le=50, description="of the branches' weights; 0 is uniform")
        lr_scale: float = Field(0.5, gt=0, description="learning rate relative to the members'")

        @model_validator(mode="after")
        def _divides(self) -> Any:
            try:
                rounds(self.start, self.steps, self.substeps)
            except SpecError as error:
                raise ValueError(str(error)) from error
            return self

    def check_size(self, size: int) -> None:
        """One teacher."""
        if size != 1:
            raise SpecError(f"step-distillation: it distils one member: set the size to 1, not {size}.")

    def parts(self, size: int) -> list[Part]:
        """A student for each round; rounds that several numbers of steps share are trained once."""
        config: Any = self.config
        parts: list[Part] = []
        settings = config.key(exclude={"steps"} if config.branches else {"steps", "growth"})
        for steps in rounds(config.start, config.steps, config.substeps):
            needs = (parts[-1].name,) if parts else ()
            parts.append(Part(f"steps-{steps}", (0,), needs, settings))
        return parts

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """One round, from the teacher's weights."""
        from dbn_core.generative.diffusion.distill import branch_loss_weights, distillation_loss, last_branch, widened

        config = self.config
        if getattr(context.task, "prediction", None) == "noise":
            raise SpecError(
                f"{context.run_name}: a single step of a network that predicts noise returns noise alone: set "
                "prediction = 'v' in [task]."
            )
        teacher: Any = context.members[0]
        if part.needs:
            teacher = context.load(context.bare_network(), part.needs[0])
        branches = config.substeps if config.branches else 1
        student: Any = widened(teacher, branches).requires_grad_(True)
        weights, draws = branch_loss_weights(branches, config.growth), context.generator("train")
        steps = int(part.name.removeprefix("steps-"))

        def step(batch: Batch) -> torch.Tensor:
            z = student.encode(batch.images)
            return distillation_loss(student, teacher, z, steps, config.substeps, weights, draws)

        context.train(student, step, context.student_recipe(lr_scale=config.lr_scale), step_generator=draws)
        return last_branch(student)

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """DDIM with the last student."""
        from dbn_core.generative.diffusion.members import SamplingPredictor

        last = self.parts(size)[-1].name
        return SamplingPredictor([context.load(context.bare_network(), last)], self.config.steps)
