"""Diffusion Bridge Networks: carry the source's logits to the ensemble's along a bridge, then distil it to one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from dbn_core import method
from dbn_core.errors import SpecError
from dbn_core.method import Method, Part
from dbn_core.registry import register

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.bridge.denoiser import Denoiser
    from dbn_core.context import FitContext, PredictContext, Workspace
    from dbn_core.train.loop import Batch
    from dbn_core.train.recipe import Recipe

# What the released code does, and what mends it.  Each entry can be set alone: ``dbn[preset=paper,ema=standard]``.
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "logit_branch": "dead",  # all-zero start: the branch can only learn a constant
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
        "logit_branch": "live",
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
# The average of the released configuration (0.99995) looks back over 20,000 of 256,000 steps; in that proportion the
# repaired average serves trainings of any length.
_EMA_SHARE = 20_000 / 256_000
_REVERSED_DECAY = 1 - 0.99995


class DBNConfig(method.Config):
    """Defaults are the CIFAR-10 configuration of the paper; ``preset`` chooses the quirks or their repairs."""

    preset: Literal["paper", "fixed"] = Field("fixed", description="the released code's behaviour, or all repairs")
    steps: int = Field(5, ge=1, description="T, diffusion steps before distillation")
    distill: bool = Field(True, description="distil the T steps to one")
    group: int = Field(3, ge=2, description="members each bridge aims at, the source included")
    beta_0: float = Field(1e-4, gt=0, description="noise rate at the ensemble end")
    beta_1: float = Field(1e-4, gt=0, description="noise rate at the source end")
    schedule: Literal["linear", "triangle"] = "linear"
    temperature: float = Field(2.0, gt=0, description="lowest source temperature")
    temperature_spread: float = Field(0.4, ge=0, description="factor of the Beta(1, 5) part of the temperature")
    at: str = Field("block1", description="block whose output conditions the score network")
    score_network: str = Field("v1.1.8", description="architecture of the score network")
    score_width: float = Field(1.0, gt=0, description="multiplier of its channels")
    lr: float = Field(2.5e-4, gt=0, description="peak learning rate (AdamW, no weight decay)")
    batch_size: int = Field(128, ge=2)
    mixup: float = Field(0.4, ge=0, description="alpha of mixup")
    epochs: int | None = Field(None, ge=2, description="bridge and distillation together; default: student budget")
    distill_share: float = Field(50 / 850, gt=0, lt=1, description="part of the epochs spent on distillation")
    distill_lr_factor: float = Field(0.1, gt=0)
    distill_alpha: float = Field(0.5, ge=0, le=1, description="weight of the multi-step teacher against the ensemble")
    include_source: bool = Field(False, description="average the source's own prediction in")
    # Filled in by the preset unless given.
    logit_branch: Literal["dead", "live"] = "live"
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


@register("dbn")
class DiffusionBridgeNetwork(Method):
    """Diffusion Bridge Network: L one-step bridges with one source cover 2L + 1 members (DBN)."""

    title = "DBN"
    reference = "Kim, Yoon and Lee, 2024, arXiv 2404.15814"

    class Config(DBNConfig):
        """See :class:`DBNConfig`."""

    def bridges(self, size: int) -> int:
        """L, the number of bridges that cover ``size`` members."""
        return (size - 1) // (self.config.group - 1)

    def check_size(self, size: int) -> None:
        """A source and whole groups of further members."""
        further = self.config.group - 1
        if size < self.config.group or (size - 1) % further:
            raise SpecError(
                f"dbn: with groups of {self.config.group} the size is 1 + a multiple of {further}, not {size}; "
                f"set group={size} for one bridge of {size} members."
            )

    def parts(self, size: int) -> list[Part]:
        """For each bridge a multi-step network, then its one-step student."""
        count, further = self.bridges(size), self.config.group - 1
        # The weight of the source in a target depends on how many targets it is in.
        suffix = f"of{count}" if self.config.source_weight == "once" and count > 1 else ""
        trained = self.config.model_dump(exclude={"include_source", "preset", "distill"})
        multi = {k: v for k, v in trained.items() if not k.startswith("distill")}
        if self.config.distill:  # part of the budget is kept for the student
            multi["distill_share"] = self.config.distill_share
        parts = []
        for bridge in range(1, count + 1):
            members = (0, *range((bridge - 1) * further + 1, bridge * further + 1))
            parts.append(Part(f"bridge-{bridge}{suffix}", members, settings=multi))
            if self.config.distill:
                needs = (f"bridge-{bridge}{suffix}",)
                parts.append(Part(f"onestep-{bridge}{suffix}", members, needs, settings=trained))
        return parts

    def members(self, size: int) -> tuple[int, ...]:
        """The source."""
        return (0,)

    def denoiser(self, context: Workspace, steps: int) -> Denoiser:
        """A fresh denoiser with ``steps`` steps."""
        from dbn_core.bridge.denoiser import Denoiser
        from dbn_core.bridge.schedule import step_variances
        from dbn_core.nets.score import ScoreNetwork

        config = self.config
        network = ScoreNetwork(
            context.feature_channels(config.at),
            context.classes,
            config.score_network,
            config.score_width,
            config.logit_branch,
        )
        variances = step_variances(steps, config.beta_0, config.beta_1, config.schedule)
        return context.initialise(Denoiser(network, variances, config.prediction))

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Train a multi-step bridge, or distil one to a single step."""
        from dbn_core.bridge.denoiser import bridge_loss, draw_steps
        from dbn_core.bridge.distill import step_distillation_loss
        from dbn_core.bridge.process import mean_temperature, random_temperature, sample_bridge, target_logits
        from dbn_core.bridge.sampler import sample

        config, generator = self.config, context.generator("train")
        distilling = part.name.startswith("onestep")
        denoiser = self.denoiser(context, 1 if distilling else config.steps)
        teacher = None
        if distilling:
            teacher = context.load(self.denoiser(context, config.steps), part.needs[0])
            denoiser.load_state_dict(dict(context.parts[part.needs[0]]))
        weights = self.target_weights(part)
        features, head = context.members[0].split(config.at)
        even_temperature = mean_temperature(config.temperature, config.temperature_spread)

        def step(batch: Batch) -> torch.Tensor:
            logits, h = context.teach_with_features(batch, config.at)
            z_0 = target_logits(logits, weights)
            draws = len(batch) if config.temperature_per == "example" else 1
            temperature = random_temperature(draws, config.temperature, config.temperature_spread, generator)
            z_1 = logits[0] / temperature.to(logits)
            if teacher is not None:
                import torch

                with torch.no_grad():
                    z_c = sample(teacher, h, logits[0] / even_temperature, config.sampler_noise, generator)
                return step_distillation_loss(denoiser, h, z_1, z_c, z_0, config.distill_alpha)
            n = draw_steps(len(batch), config.steps, config.train_last_step, generator)
            z_n = sample_bridge(z_0, z_1, n, denoiser.variances, generator)
            return bridge_loss(denoiser, h, z_n, n, z_0)

        def predict(current: Any, images: torch.Tensor) -> torch.Tensor:
            h = features(images)
            return sample(current, h, head(h) / even_temperature)

        recipe = self.recipe(context, distilling)
        context.train(denoiser, step, recipe, predict=predict, step_generator=generator)
        return denoiser

    def target_weights(self, part: Part) -> torch.Tensor | None:
        """Weights of the members in this bridge's target, or None for equal ones.

        With ``source_weight=once`` the mean over the L targets weighs all L (group - 1) + 1 members alike; the
        released code's targets count the source L times.
        """
        import torch

        _, _, count = part.name.partition("of")
        if not count:
            return None
        further = self.config.group - 1
        each = int(count) / (int(count) * further + 1)
        return torch.tensor([1 - further * each] + [each] * further)

    def recipe(self, context: FitContext, distilling: bool) -> Recipe:
        """Adam with a cosine; the distillation takes its share of the epochs at a tenth of the rate."""
        config = self.config
        total = config.epochs or context.student_epochs
        short = max(1, round(total * config.distill_share)) if config.distill else 0
        epochs = short if distilling else max(1, total - short)
        batch = min(config.batch_size, len(context.data.train))
        decay = _REVERSED_DECAY
        if config.ema == "standard":
            horizon = _EMA_SHARE * epochs * max(1, len(context.data.train) // batch)
            decay = 1 - 1 / max(2.0, horizon)
        return context.recipe.replace(
            epochs=epochs,
            batch_size=batch,
            optimizer="adamw",
            lr=config.lr * (config.distill_lr_factor if distilling else 1),
            weight_decay=0.0,
            warmup_epochs=0.0,
            mixup=config.mixup,
            mixup_per=config.mixup_per,
            ema_decay=decay,
            keep=config.keep,
        )

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The source once, then every bridge on its features and logits."""
        from dbn_core.bridge.process import mean_temperature
        from dbn_core.predictors import BridgedSource

        config = self.config
        kind, steps = ("onestep", 1) if config.distill else ("bridge", config.steps)
        names = [part.name for part in self.parts(size) if part.name.startswith(kind)]
        return BridgedSource(
            context.members[0],
            config.at,
            [context.load(self.denoiser(context, steps), name) for name in names],
            mean_temperature(config.temperature, config.temperature_spread),
            # The distilled predictor makes no draw, in the released code neither.
            "none" if config.distill else config.sampler_noise,
            config.include_source,
        )
