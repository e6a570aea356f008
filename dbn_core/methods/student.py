"""Options that students share: how long each is trained, at what rate, and with what mixup.  Imports no torch.

The members' own training stays as the suite says, so a student may be trained longer and on images mixed otherwise;
its teachers see the very images that it sees (Beyer et al., 2022, arXiv 2106.05237: consistent and patient teaching).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dbn_core.methods.method import Config


class StudentOptions(Config):
    """Training of a student that is a network of the suite's own kind."""

    mixup: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="alpha of per-example mixup of the student's images"
    )
    lr_scale: float = Field(1.0, gt=0, description="learning rate relative to the members'")
    batch_size: int | None = Field(None, ge=2, description="default: the members'")
    weight_decay: float | None = Field(None, ge=0, description="L2; default: the members'")
    epochs: int | None = Field(None, ge=1, description="training length; default: the suite's student budget")

    def changes(self) -> dict[str, Any]:
        """Arguments for :meth:`FitContext.student_recipe`."""
        return self.model_dump(include={"mixup", "lr_scale", "batch_size", "weight_decay", "epochs"})
