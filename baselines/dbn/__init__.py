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
    from dbn_core.data.batch import Batch
    from dbn_core.train.recipe import Recipe

# What the released code does, and what mends it.  Each entry can be set alone: ``dbn[preset=paper,ema=standard]``.
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
# The average of the released configuration (0.99995) looks back over 20,000 of 256,000 steps; in that proportion the
# repaired average serves trainings of any length.
_EMA_SHARE = 20_000 / 256_000
_REVERSED_DECAY = 1 - 0.99995


class DBNConfig(method.Config):
    """Defaults are the CIFAR-10 configuration of the paper; ``preset`` chooses the quirks or their repairs."""

    preset: Literal["paper", "fixed"] = Field("fixed", description="the released code's behaviour, or its repairs")
    steps: int = Field(5, ge=1, description="T, diffusion steps before distillation")
    distill: bool = Field(True, description="distil the T steps to one")
    group: int = Field(3, ge=2, description="members each bridge aims at, the source included")
    beta_0: float = Field(1e-4, gt=0, description="noise rate at the ensemble end")
    beta_1: float = Field(1e-4, gt=0, description="noise rate at the source end")
    schedule: Literal["linear", "triangle"] = "linear"
    temperature: float = Field(2.0, gt=0, description="lowest source temperature")
    temperature_spread: float = Field(0.4, ge=0, description="factor of the random part of the temperature")
    temperature_law: Literal["beta", "uniform"] = Field("beta", description="its law: Beta(1, 5), or uniform")
    prior: Literal["source", "gaussian"] = Field("source", description="where bridges start: source logits or N(0, I)")
    process: Literal["bridge", "rectified_flow"] = Field("bridge", description="diffusion bridge, or straight flow")
    perturb_input: bool = Field(False, description="target of a mixed image: the ensemble on its dominant image")
    loss: Literal["mse", "kl"] = Field("mse", description="squared error on logits, or KL of the predictions")
    logit_dropout: float = Field(0.0, ge=0, lt=1, description="share of examples whose logits the network misses")
    # Dead as released, but not by mistake: a live branch learns to trust logits that the source has memorised.
    logit_branch: Literal["dead", "live"] = Field("dead", description="whether the network sees the logits, too")
    at: str = Field("block1", description="block whose output conditions the score network")
    pooled: bool = Field(False, description="condition it on the source's pooled last features too")
    score_network: str = Field("v1.1.8", description="architecture of the score network")
    score_width: float = Field(1.0, gt=0, description="multiplier of its channels")
    lr: float = Field(2.5e-4, gt=0, description="peak learning rate (AdamW, no weight decay)")
    batch_size: int = Field(128, ge=2)
    mixup: float = Field(0.4, ge=0, description="alpha of mixup")
    cosine_length: float = Field(1.0, ge=1, description="length of the bridge's cosine in runs; 2 stops at half")
    epochs: int | None = Field(None, ge=2, description="bridge and distillation together; default: student budget")
    distill_share: float = Field(50 / 850, gt=0, lt=1, description="part of the epochs spent on distillation")
    distill_lr_factor: float = Field(0.1, gt=0)
    distill_alpha: float = Field(0.5, ge=0, le=1, description="weight of the multi-step teacher against the ensemble")
    include_source: bool = Field(False, description="average the source's own prediction in")
    # Filled in by the preset unless given.
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

    @model_validator(mode="after")
    def _dropout_has_logits_to_drop(self) -> DBNConfig:
        if self.logit_dropout and self.logit_branch == "dead":
            raise ValueError("logit_dropout needs logit_branch=live: a dead branch sees no logits")
        return self

    @model_validator(mode="after")
    def _flow_is_straight(self) -> DBNConfig:
        straight = (self.prediction, self.loss, self.sampler_noise) == ("displacement", "mse", "none")
        if self.process == "rectified_flow" and not straight:
            raise ValueError("a rectified flow needs prediction=displacement, loss=mse and sampler_noise=none")
        return self


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
        # Two images teach a perturbed input, so that its teachers run online.
        mixup = None if self.config.perturb_input else self.config.mixup
        parts = []
        for bridge in range(1, count + 1):
            members = (0, *range((bridge - 1) * further + 1, bridge * further + 1))
            parts.append(Part(f"bridge-{bridge}{suffix}", members, settings=multi, taught_mixup=mixup))
            if self.config.distill:
                needs = (f"bridge-{bridge}{suffix}",)
                parts.append(Part(f"onestep-{bridge}{suffix}", members, needs, trained, taught_mixup=mixup))
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
            pooled_channels=context.last_channels if config.pooled else 0,
        )
        variances = step_variances(steps, config.beta_0, config.beta_1, config.schedule)
        return context.initialise(Denoiser(network, variances, config.prediction))

    def fit(self, part: Part, context: FitContext) -> nn.Module:
        """Train a multi-step bridge, or distil one to a single step."""
        import torch

        from dbn_core.bridge.denoiser import bridge_loss, draw_steps, flow_loss
        from dbn_core.bridge.distill import step_distillation_loss
        from dbn_core.bridge.process import random_temperature, sample_bridge, target_logits
        from dbn_core.bridge.sampler import sample
        from dbn_core.predictors import SourcePass, start_logits

        config, generator = self.config, context.generator("train")
        distilling = part.name.startswith("onestep")
        denoiser = self.denoiser(context, 1 if distilling else config.steps)
        teacher = None
        if distilling:
            teacher = context.load(self.denoiser(context, config.steps), part.needs[0])
            denoiser.load_state_dict(dict(context.parts[part.needs[0]]))
        weights = self.target_weights(part)
        source = SourcePass(context.members[0], config.at, config.pooled)

        def start(logits: torch.Tensor) -> torch.Tensor:
            """Z_1 for training."""
            if config.prior == "gaussian":
                return start_logits(logits, None, generator)
            draws = len(logits) if config.temperature_per == "example" else 1
            low, spread, law = config.temperature, config.temperature_spread, config.temperature_law
            return logits / random_temperature(draws, low, spread, generator, law).to(logits)

        def step(batch: Batch) -> torch.Tensor:
            logits, condition = context.teach_bridge(batch, source)
            ends = context.teach_images(batch.dominant) if config.perturb_input else logits
            z_0, z_1 = target_logits(ends, weights), start(logits[0])
            if teacher is not None:
                with torch.no_grad():
                    z_start = (
                        z_1 if config.prior == "gaussian" else start_logits(logits[0], self.even_temperature, None)
                    )
                    z_c = sample(teacher, condition, z_start, config.sampler_noise, generator)
                seen, alpha = self.drop_logits(z_1, generator), config.distill_alpha
                return step_distillation_loss(denoiser, condition, z_1, z_c, z_0, alpha, config.loss, seen)
            if config.process == "rectified_flow":
                return flow_loss(denoiser, condition, z_0, z_1, 1 - torch.rand(len(batch), generator=generator))
            n = draw_steps(len(batch), config.steps, config.train_last_step, generator)
            z_n = sample_bridge(z_0, z_1, n, denoiser.variances, generator)
            return bridge_loss(denoiser, condition, z_n, n, z_0, config.loss, self.drop_logits(z_n, generator))

        def predict(current: Any, images: torch.Tensor) -> torch.Tensor:
            condition, logits = source(images)
            return sample(current, condition, start_logits(logits, self.even_temperature, context.generator("prior")))

        recipe = self.recipe(context, distilling)
        context.train(denoiser, step, recipe, predict=predict, step_generator=generator)
        return denoiser

    @property
    def even_temperature(self) -> float | None:
        """The source temperature of evaluation; None when bridges start from noise."""
        from dbn_core.bridge.process import mean_temperature

        config = self.config
        if config.prior == "gaussian":
            return None
        return mean_temperature(config.temperature, config.temperature_spread, config.temperature_law)

    def drop_logits(self, z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Z as the network sees it: zero, that is uniform, for a share of the examples, so that features matter."""
        import torch

        if not self.config.logit_dropout:
            return z
        return z * (torch.rand(len(z), 1, generator=generator) >= self.config.logit_dropout).to(z)

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
        batch = min(config.batch_size, len(context.images))
        decay = _REVERSED_DECAY
        if config.ema == "standard":
            horizon = _EMA_SHARE * epochs * max(1, len(context.images) // batch)
            decay = 1 - 1 / max(2.0, horizon)
        return context.recipe.replace(
            epochs=epochs,
            batch_size=batch,
            optimizer="adamw",
            lr=config.lr * (config.distill_lr_factor if distilling else 1),
            weight_decay=0.0,
            warmup_epochs=0.0,
            cosine_length=1.0 if distilling else config.cosine_length,
            mixup=config.mixup,
            mixup_per=config.mixup_per,
            ema_decay=decay,
            keep=config.keep,
        )

    def predictor(self, size: int, context: PredictContext) -> nn.Module:
        """The source once, then every bridge on its features and logits."""
        from dbn_core.predictors import BridgedSource

        config = self.config
        kind, steps = ("onestep", 1) if config.distill else ("bridge", config.steps)
        names = [part.name for part in self.parts(size) if part.name.startswith(kind)]
        return BridgedSource(
            context.members[0],
            config.at,
            [context.load(self.denoiser(context, steps), name) for name in names],
            self.even_temperature,
            # The distilled predictor makes no draw, in the released code neither.
            "none" if config.distill else config.sampler_noise,
            config.include_source,
            config.pooled,
        )
