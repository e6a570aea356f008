"""Options of DBN: the paper's configuration, and the quirks of the released code with their repairs.

Removed after the suite cifar10-small, where the plain control had a test NLL of 0.705: random dropout of half of a live
branch's logits (0.729; an unchanged live branch, 0.743) and the source's pooled last features as a further condition
(0.737).  Removed because nothing used them: a triangular noise schedule, and averaging in the source's own prediction.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from dbn_core.methods import method

# Values that a distillation records.
RECORDED = {
    "kappa": "largest distance of the teacher's states from the straight line between the ends of its trajectory, "
    "relative to its length, on validation images; near 0 the states add little to the end",
    "branch_*_mse": "mean squared error between a branch and its target state of the teacher, on validation images; "
    "only the last branch is kept",
}

# The released code's behaviour, and its repairs.  Each entry can be set alone: ``dbn[preset=paper,ema=standard]``.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "temperature_per": "batch",  # one random temperature for a whole mini-batch
        "train_last_step": False,  # n = T is sampled from but never trained
        "prediction": "noise",  # targets about 100 (Z_1 - Z_0)
        "ema": "reversed",  # the average is in effect the current weights
        "sampler_noise": "forward",  # forward increment, at the last step too
        "mixup_per": "batch",
        "source_weight": "each",  # the source counts in the target of every bridge
        "keep": "best_accuracy",
    },
    "fixed": {
        "temperature_per": "example",
        "train_last_step": True,
        "prediction": "displacement",
        "ema": "standard",
        "sampler_noise": "none",
        "mixup_per": "example",
        "source_weight": "once",
        "keep": "last",
    },
}


class PresetOptions(method.Config):
    """Options that a preset sets; see :data:`PRESETS`."""

    preset: Literal["paper", "fixed"] = Field("fixed", description="the released code's behaviour, or its repairs")
    # The preset sets these unless they are given.
    temperature_per: Literal["batch", "example"] = "example"
    train_last_step: bool = True
    prediction: Literal["noise", "displacement"] = "displacement"
    ema: Literal["reversed", "standard"] = "standard"
    sampler_noise: Literal["none", "posterior", "forward"] = "none"
    mixup_per: Literal["batch", "example"] = "example"
    source_weight: Literal["each", "once"] = "once"
    keep: Literal["last", "best_accuracy", "best_nll"] = "last"

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {**PRESETS.get(values.get("preset", "fixed"), {}), **values}
        return values

    def spec_options(self) -> dict[str, Any]:
        """The preset, where it is not the default one, and the options that differ from the preset's values."""
        preset = type(self).model_validate({"preset": self.preset}).model_dump()
        given = {name: value for name, value in self.model_dump().items() if value != preset[name]}
        return self.model_dump(include={"preset"}, exclude_defaults=True) | given


class PaperOptions(PresetOptions):
    """Defaults are the CIFAR-10 configuration of the paper."""

    # The bridge: equations (1) to (3).
    steps: int = Field(5, ge=1, description="T, diffusion steps before distillation")
    members_per_bridge: int = Field(3, ge=2, description="members each bridge aims at, the source included")
    beta_0: float = Field(1e-4, gt=0, description="noise rate at the ensemble end")
    beta_1: float = Field(1e-4, gt=0, description="noise rate at the source end")
    temperature: float = Field(2.0, gt=0, description="lowest source temperature")
    temperature_spread: float = Field(0.4, ge=0, description="factor of its random part")
    temperature_law: Literal["beta", "uniform", "exponential"] = Field(
        "beta", description="of the random part: Beta(1, 5), uniform on [0, 1], or exponential with mean 1"
    )
    # Variants of the paper's ablations.
    prior: Literal["source", "gaussian"] = Field("source", description="where bridges start: source logits or N(0, I)")
    process: Literal["bridge", "rectified_flow"] = Field("bridge", description="diffusion bridge, or straight flow")
    perturb_input: bool = Field(False, description="target of a mixed image: the ensemble on its dominant image")
    # The score network.
    split_at: str = Field("block1", description="block whose output conditions the score network")
    score_network: str = Field("v1.1.8", description="architecture of the score network")
    score_width: float = Field(1.0, gt=0, description="multiplier of its channels")
    # Dead as released, but not by mistake: a live branch learns to trust logits that the source has memorised.
    sees_state: bool = Field(
        False, description="whether the network reads the state Z_n too, and not the features alone"
    )
    # Training: equation (4).
    loss: Literal["mse", "kl"] = Field("mse", description="squared error on logits, or KL of the predictions")
    lr: float = Field(2.5e-4, gt=0, description="peak learning rate (AdamW, no weight decay)")
    batch_size: int = Field(128, ge=2)
    mixup: float = Field(0.4, ge=0, allow_inf_nan=False, description="alpha of mixup")
    cosine_length: float = Field(1.0, ge=1, description="length of the bridge's cosine in runs; 2 stops at half")
    epochs: int | None = Field(None, ge=2, description="bridge and distillation together; default: student budget")
    # Distillation to one step: equation (6).
    distill: bool | Literal["branches"] = Field(True, description="distil the T steps to one; branches: by B-DENSE")
    distill_share: float = Field(50 / 850, gt=0, lt=1, description="part of the epochs spent on distillation")
    distill_lr_factor: float = Field(0.1, gt=0)
    distill_alpha: float = Field(0.5, ge=0, le=1, description="weight of the multi-step teacher against the ensemble")

    def split_epochs(self, student_epochs: int) -> tuple[int, int]:
        """Epochs of bridge and distillation together, and of the distillation alone; with the suite's budget."""
        total = self.epochs or student_epochs
        return total, max(1, round(total * self.distill_share)) if self.distill else 0

    @field_validator("distill", mode="before")
    @classmethod
    def _distill_is_known(cls, value: Any) -> Any:
        # The words for a truth value are pydantic's, whose own message names the alternatives as types.
        words = ["true", "t", "yes", "y", "on", "1", "false", "f", "no", "n", "off", "0", "branches"]
        if isinstance(value, str) and value.lower() not in words:
            raise ValueError("write true, false or branches")
        return value

    @model_validator(mode="after")
    def _flow_is_straight(self) -> PaperOptions:
        straight = (self.prediction, self.loss, self.sampler_noise) == ("displacement", "mse", "none")
        if self.process == "rectified_flow" and not straight:
            raise ValueError("a rectified flow needs prediction=displacement, loss=mse and sampler_noise=none")
        return self
