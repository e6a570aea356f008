"""Options that students share: how long each is trained, at what rate, and on which images.  Imports no torch.

The members' own training stays as the suite says, so a student may be trained longer and on images mixed otherwise;
its teachers see the very images that it sees (Beyer et al., 2022, arXiv 2106.05237: consistent and patient teaching).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field, model_validator

from dbn_core.errors import SpecError
from dbn_core.methods.method import Config

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.methods.context import FitContext

M = TypeVar("M", bound="nn.Module")

_FEWER = "average fewer or train longer"


class ImageOptions(Config):
    """What a student sees, where that is not what the members saw in their training."""

    cutmix: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="alpha of cutmix, half of the time where there is mixup too; default: as the members",
    )
    crop_pad: int | None = Field(
        None, ge=0, le=1000, description="pixels of padding of the random crops; default: as the members"
    )
    flip: bool | None = Field(None, description="mirrored images too; default: as the members")

    def augmentation(self) -> dict[str, Any]:
        """The fields of the members' recipe that these options change, as ``Part.teacher_augmentation`` wants them."""
        given = {"cutmix": self.cutmix, "crop_pad": self.crop_pad, "flip": self.flip}
        return {name: value for name, value in given.items() if value is not None}


class StudentOptions(ImageOptions):
    """Images and training of a student that is a network of the suite's own kind."""

    mixup: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="alpha of per-example mixup of the student's images"
    )
    lr_scale: float = Field(1.0, gt=0, description="learning rate relative to the members'")
    batch_size: int | None = Field(None, ge=2, description="default: the members'")
    weight_decay: float | None = Field(None, ge=0, description="L2; default: the members'")
    epochs: int | None = Field(None, ge=1, description="training length; default: the suite's student budget")

    def changes(self) -> dict[str, Any]:
        """Arguments for :meth:`FitContext.student_recipe`."""
        names = {"mixup", "lr_scale", "batch_size", "weight_decay", "epochs"}
        return self.model_dump(include=names) | self.augmentation()


class StartOptions(StudentOptions):
    """A student that may begin with the source's weights."""

    start: Literal["random", "source"] = Field(
        "random", description="weights to begin with: fresh ones, or the source's"
    )
    averaged_epochs: int | None = Field(
        None,
        ge=1,
        description="constant learning rate, and the mean of the weights after each of so many last epochs; "
        "default: the members' schedule and the last weights",
    )

    @model_validator(mode="after")
    def _starts_as_wide_as_the_source(self) -> StartOptions:
        if self.start == "source" and getattr(self, "width", 1) != 1:
            raise ValueError("a student that starts as the source has its widths: drop width or start")
        return self

    @model_validator(mode="after")
    def _averages_epochs_that_it_has(self) -> StartOptions:
        if self.epochs and (self.averaged_epochs or 0) > self.epochs:
            raise ValueError(f"averaged_epochs is {self.averaged_epochs} of {self.epochs} epochs: {_FEWER}")
        return self

    def begin(self, network: M, context: FitContext) -> M:
        """The network with the weights that the student begins with: its own, or those of the part's first member."""
        if self.start == "source":
            network.load_state_dict(context.members[0].state_dict())
        return network

    def train(
        self,
        student: nn.Module,
        step: Callable[[Batch], torch.Tensor],
        context: FitContext,
        predict: Callable[[nn.Module, torch.Tensor], torch.Tensor] | None = None,
        step_generator: torch.Generator | None = None,
    ) -> None:
        """Train a student by its recipe; as :meth:`FitContext.train`.

        With ``averaged_epochs`` it gets the mean of its weights on the way, as in SWA (Izmailov et al., 2018), and new
        BatchNorm statistics.

        Raises:
            SpecError: more epochs are averaged than it has.
        """
        recipe = context.student_recipe(**self.changes())
        if self.averaged_epochs is None:
            context.train(student, step, recipe, predict=predict, step_generator=step_generator)
            return
        from dbn_core.train.statistics import refresh_statistics
        from dbn_core.train.weights import WeightMean, set_weights

        if self.averaged_epochs > recipe.epochs:
            raise SpecError(
                f"{context.run_name}: averaged_epochs is {self.averaged_epochs} of {recipe.epochs} epochs: {_FEWER}."
            )
        steps = max(1, len(context.images) // recipe.batch_size)
        walk = WeightMean(student, steps, steps * (recipe.epochs - self.averaged_epochs))

        def walking(batch: Batch) -> torch.Tensor:
            walk.tick()
            return step(batch)

        def validated(current: Any, images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = predict(current.network, images) if predict else current(images)
            return logits

        context.train(
            walk,
            walking,
            recipe.replace(schedule="constant", ema_decay=None, keep="last"),
            predict=validated,
            step_generator=step_generator,
        )
        walk.tick()
        set_weights(student, walk.mean)
        draws = context.generator("statistics")
        refresh_statistics(student, context.images, recipe, context.data.flip, draws, context.device)
