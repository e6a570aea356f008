"""The training examples themselves, drawn at random: the floor that distances between finite sets of samples have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbn_core.errors import SpecError
from dbn_core.methods.method import Method
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    from torch import nn

    from dbn_core.methods.context import PredictContext


@register("training-data")
class TrainingData(Method):
    """Real training examples in the place of samples: what no generator can be asked to beat."""

    task = "generation"
    title = "Training data"
    reference = "none: a control"
    competes = False  # not a rival: no generator is better than the data

    def check_size(self, size: int) -> None:
        """No member takes part."""
        if size != 1:
            raise SpecError(f"training-data: no member takes part, so write size 1, not {size}.")

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """Draws with replacement."""
        import torch
        from torch import nn

        from dbn_core.data.augment import to_float

        class Draws(nn.Module):
            images: torch.Tensor

            def __init__(self, images: torch.Tensor) -> None:
                super().__init__()
                self.register_buffer("images", images)

            def forward(self, noise: torch.Tensor) -> torch.Tensor:
                return self.images[torch.randint(len(self.images), (len(noise),))]

        return Draws(to_float(context.data.train.images))
