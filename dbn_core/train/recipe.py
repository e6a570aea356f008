"""How a network is trained, as a suite file says it.  Imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dbn_core.options import KeyedOptions


class Recipe(KeyedOptions):
    """Optimiser, schedule, augmentation and model selection of one training run.

    Attributes:
        epochs: passes over the training split.
        batch_size: examples in a step.
        optimizer: SGD with momentum, or AdamW.
        lr: peak learning rate.
        momentum: of SGD.
        nesterov: whether SGD uses Nesterov momentum.
        weight_decay: over every parameter; L2 added to the gradient for SGD, decoupled for AdamW.
        warmup_epochs: linear warm-up from 1 % of the peak, in passes over the training split.
        schedule: of the learning rate after the warm-up.
        cosine_length: length of the cosine in units of the run; 2 stops it half-way, at half of the peak rate.
        crop_pad: zero-padding of the random crop, in pixels; 0 for no crop.
        flip: horizontal flips; not given: wherever a mirrored image of the data set keeps its label.
        mixup: alpha of Beta(alpha, alpha), 0 for none.
        cutmix: likewise; with both, each is used half of the time.
        mixup_per: whether each example or each batch draws its own mixture (cutmix too).
        ema_decay: decay of an exponential moving average of the weights, which is then what is kept; none unless given.
        keep: the weights of the last epoch, or those of the best validation accuracy or NLL.
        precision: ``bf16`` trains under autocast.
    """

    epochs: int = Field(200, ge=1, le=1_000_000)
    batch_size: int = Field(128, ge=2, le=1_000_000)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(0.1, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(1e-3, ge=0, allow_inf_nan=False)
    warmup_epochs: float = Field(0.0, ge=0, allow_inf_nan=False)
    schedule: Literal["cosine", "constant"] = "cosine"
    cosine_length: float = Field(1.0, ge=1, allow_inf_nan=False)
    crop_pad: int = Field(4, ge=0, le=1000)
    flip: bool | None = None  # None: wherever a mirrored image of the data set keeps its label
    mixup: float = Field(0.0, ge=0, allow_inf_nan=False)
    cutmix: float = Field(0.0, ge=0, allow_inf_nan=False)
    mixup_per: Literal["example", "batch"] = "example"  # cutmix too
    ema_decay: float | None = Field(None, ge=0, lt=1)
    keep: Literal["last", "best_accuracy", "best_nll"] = "last"
    precision: Literal["fp32", "bf16"] = "fp32"

    def replace(self, **changes: Any) -> Recipe:
        """A validated copy with some fields changed."""
        return Recipe.model_validate({**self.model_dump(), **changes})
