"""Temperature scaling: one network whose logits are divided by a constant fitted on the validation split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dbn_core.errors import SpecError
from dbn_core.methods.method import Method, Part, TrainingCost
from dbn_core.methods.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.methods.context import FitContext, PredictContext
    from dbn_core.train.recipe import Recipe


@register("ts")
class TemperatureScaling(Method):
    """One network with a temperature fitted on validation: how much of a DEE is repaired over-confidence? (control)."""

    same_network = "none"
    title = "Single (temperature-scaled)"
    reference = "Guo et al., 2017, arXiv 1706.04599"
    networks = "runs 1; trains none"

    def check_size(self, size: int) -> None:
        """Only size 1 exists."""
        if size != 1:
            raise SpecError(f"ts: the size is 1, not {size}; the calibrated columns scale every other method.")

    def parts(self, size: int) -> list[Part]:
        """The temperature of the source member."""
        return [Part("temperature", members=(0,))]

    def members(self, size: int) -> tuple[int, ...]:
        """The source member."""
        return (0,)

    def training_cost(self, part: Part, recipe: Recipe, student_epochs: int) -> TrainingCost:
        """One number is fitted to predictions on validation: nothing is trained, and nothing more runs."""
        return TrainingCost(0, recipe.batch_size, share=0.0)

    def fit(self, part: Part, context: FitContext) -> dict[str, torch.Tensor]:
        """The temperature that minimises the validation NLL."""
        import torch

        from dbn_core.methods.evaluation import predict_split
        from dbn_core.metrics.calibration import fit_temperature

        validation = context.data.validation
        log_probs = predict_split(context.members[0], validation, context.device).double().log_softmax(-1)
        temperature = fit_temperature(log_probs.numpy(), validation.labels.cpu().numpy())
        return {"temperature": torch.tensor(temperature, dtype=torch.float32)}

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The member with divided logits."""
        from dbn_core.methods.predictors import Tempered

        return Tempered(context.members[0], float(context.parts["temperature"]["temperature"]))
