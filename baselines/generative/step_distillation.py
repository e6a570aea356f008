"""Distillation of a sampler's steps, progressive or by SFD, and B-DENSE's student of K branches on either.

Progressive distillation (Salimans and Ho, 2022, arXiv 2202.00512): in each round a student learns to do in one step
what its teacher does in K, at noised data, and becomes the teacher of the next round.  SFD (2024, arXiv 2409.19681):
one round, from pure noise, along the student's own path.  A plain student learns the teacher's last state; with
``branches`` (B-DENSE, 2026, arXiv 2602.15971) its last layer is widened K-fold and branch k learns the k-th state,

    loss = sum_k w_k d(x_k, target_k),  w_k ~ exp(growth (k / K - 1)), or free weights.

The paper describes good weights by a curve with a growth a and an intercept b, whose formula it does not give; in ours
an intercept in the exponent would be a scale, which the sum of 1 removes.  Only the last branch samples, so that a
prediction costs the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from dbn_core.errors import SpecError
from dbn_core.methods import method
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import register
from dbn_core.options import parse_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext, PredictContext
    from dbn_core.train.recipe import Recipe


_REPORTED = 256  # trajectories on which errors of branches are recorded


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
    reference = "Salimans and Ho, 2022, arXiv 2202.00512; SFD, 2024, arXiv 2409.19681; B-DENSE, 2026, arXiv 2602.15971"
    networks = "runs 1 at each of few steps; trains 1 a round"
    records: ClassVar = {
        "branch_*_mse": "mean squared error of branch k against the teacher's k-th state of K in a step, from the "
        "teacher's state at its beginning; a plain student has branch K alone",
        "end_mse": "mean squared error of the student's samples against the teacher's from the same noise",
        "kappa": "largest distance of the teacher's states in a student's step from those of one DDIM step with the "
        "same end, relative to the length of the step; near 0, the states add nothing to the end",
    }

    class Config(method.Config):
        """Steps before and after, and the states to learn."""

        base: Literal["progressive", "sfd"] = Field(
            "progressive", description="rounds at noised data, or one round along the student's own path from noise"
        )
        start: int = Field(16, ge=2, le=10_000, description="steps of the first teacher, a member of the pool")
        steps: int = Field(2, ge=1, le=10_000, description="steps of the last student")
        substeps: int = Field(2, ge=2, le=1000, description="K: a teacher's steps that become one")
        branches: bool = Field(False, description="learn all K states (B-DENSE), or the last alone")
        growth: float = Field(0.0, ge=-50, le=50, description="of the branches' weights; 0 is uniform")
        weights: str | None = Field(None, description="the weights themselves, such as 1:2:4; their sum becomes 1")
        update: Literal["own", "full"] = Field(
            "own", description="a branch steps to the time of its state, or, as in the released code, over all K"
        )
        distance: Literal["l2", "l1"] | None = Field(
            None, description="squared error or absolute; default: l2 of progressive distillation, l1 of SFD"
        )
        lr_scale: float = Field(0.5, gt=0, description="learning rate relative to the members'")
        epochs: int | None = Field(None, ge=1, description="of a round; default: the suite's budget of a student")

        @model_validator(mode="after")
        def _fits(self) -> Any:
            try:
                found = rounds(self.start, self.steps, self.substeps)
            except SpecError as error:
                raise ValueError(str(error)) from error
            if self.base == "sfd" and len(found) > 1:
                raise ValueError(
                    f"base=sfd has one round: set substeps to {self.start // self.steps}, which is start / steps"
                )
            if self.weights is not None:
                given = parse_weights("weights", self.weights)
                if self.growth:
                    raise ValueError("growth and weights say the same: give one of them")
                if len(given) != self.substeps:
                    raise ValueError(f"weights={self.weights} has {len(given)} weights for {self.substeps} branches")
            return self

    def check_size(self, size: int) -> None:
        """One teacher."""
        if size != 1:
            raise SpecError(f"step-distillation: it distils one member: set the size to 1, not {size}.")

    def parts(self, size: int) -> list[Part]:
        """A student for each round; rounds that several numbers of steps share are trained once."""
        config: Any = self.config
        parts: list[Part] = []
        settings = config.key(exclude={"steps"} if config.branches else {"steps", "growth", "weights", "update"})
        for steps in rounds(config.start, config.steps, config.substeps):
            needs = (parts[-1].name,) if parts else ()
            parts.append(Part(f"steps-{steps}", (0,), needs, settings))
        return parts

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """One round, from the teacher's weights."""
        import torch

        from dbn_core.generative.diffusion.distill import (
            BranchLoss,
            branch_loss_weights,
            branch_report,
            distillation_loss,
            last_branch,
            widened,
        )
        from dbn_core.generative.diffusion.sfd import OwnPath

        config = self.config
        if getattr(context.task, "prediction", None) == "noise":
            raise SpecError(
                f"{context.run_name}: a single step of a network that predicts noise returns noise alone: set "
                "prediction = 'v' in [task]."
            )
        teacher: Any = context.members[0]
        if part.needs:
            teacher = context.load(context.bare_network(), part.needs[0])
        count, steps = config.substeps, int(part.name.removeprefix("steps-"))
        student: Any = widened(teacher, count if config.branches else 1).requires_grad_(True)
        if not config.branches:
            weights = branch_loss_weights(1)
        elif config.weights is None:
            weights = branch_loss_weights(count, config.growth)
        else:
            weights = torch.tensor(parse_weights("weights", config.weights), dtype=torch.float64)
        sfd, draws = config.base == "sfd", context.generator("train")
        loss = BranchLoss(weights, config.distance or ("l1" if sfd else "l2"), config.update)
        recipe = context.student_recipe(lr_scale=config.lr_scale, epochs=config.epochs)
        shape = (context.data.channels, *context.data.image_size)
        path = OwnPath(student, (min(recipe.batch_size, len(context.images)), *shape), steps, count)

        def step(batch: Batch) -> torch.Tensor:
            context.teacher_passes += count * len(batch)
            if sfd:
                return path.loss(teacher, loss, draws)
            return distillation_loss(student, teacher, student.encode(batch.images), steps, count, loss, draws)

        context.train(path if sfd else student, step, recipe, step_generator=draws)
        noise = torch.randn(_REPORTED, *shape, generator=context.generator("report")).to(context.device)
        context.record(**branch_report(student, teacher, noise, steps, count, loss))
        return last_branch(student)

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """The teacher takes K steps for each of the student's."""
        config: Any = self.config
        return TrainingCost(config.epochs or student_epochs, recipe.batch_size, 1.0, config.substeps)

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """DDIM with the last student."""
        from dbn_core.generative.diffusion.members import SamplingPredictor

        last = self.parts(size)[-1].name
        return SamplingPredictor([context.load(context.bare_network(), last)], self.config.steps)
