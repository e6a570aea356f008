"""Progress reports of a running training, and requests to stop it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes:
        run_name: name of the run.
        epoch: epochs completed.
        epochs: epochs of the recipe.
        fraction: share of all steps done, in [0, 1].
        loss: of the last step within an epoch, the mean of the epoch at its end.
        lr: current learning rate.
        ends_epoch: whether an epoch has just ended.
        validation: ``{"acc": ..., "nll": ...}`` at the end of an epoch that was evaluated.
    """

    run_name: str
    epoch: int
    epochs: int
    fraction: float
    loss: float
    lr: float
    ends_epoch: bool = False
    validation: dict[str, float] = field(default_factory=dict)


class Monitor:
    """Watches a training.  This one sees nothing, costs nothing, and never asks it to stop."""

    def update(self, progress: Progress) -> None:
        """Called about once a second, and at the end of every epoch."""

    def should_stop(self) -> bool:
        """Called about once a second; a training writes its checkpoint before it stops."""
        return False

    def wants_validation(self) -> bool:
        """Whether to evaluate at the end of this epoch although the recipe does not need it."""
        return False
