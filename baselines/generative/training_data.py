"""Random training examples as samples: the smallest distance that finite sets of samples can be expected to have."""

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
    """Real training examples instead of samples: a bound for generators."""

    task = "generation"
    title = "Training data"
    reference = "none: a control"
    networks = "runs none; trains none"
    competes = False  # not a rival: no generator is better than the data

    def check_size(self, size: int) -> None:
        """Size 1 alone: it uses no member."""
        if size != 1:
            raise SpecError(f"training-data: it uses no member: set the size to 1, not {size}.")

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
