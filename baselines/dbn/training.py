"""Training of a bridge, and distillation of its T steps to one.  Imported inside ``fit``, since it imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from baselines.dbn.extensions import DBNConfig
from dbn_core.bridge.branches import curvature
from dbn_core.bridge.denoiser import Denoiser, bridge_loss, draw_steps, flow_loss
from dbn_core.bridge.distill import step_distillation_loss
from dbn_core.bridge.process import mean_temperature, random_temperature, sample_bridge, target_logits
from dbn_core.bridge.sampler import sample, trajectory
from dbn_core.data.batch import Batch
from dbn_core.methods.context import FitContext
from dbn_core.methods.evaluation import predict_split
from dbn_core.methods.predictors import start_logits
from dbn_core.train.recipe import Recipe

# The released average (0.99995) spans 20,000 of 256,000 steps; the repaired one spans the same share of any training.
_EMA_SHARE = 20_000 / 256_000
_REVERSED_DECAY = 1 - 0.99995


@dataclass(frozen=True)
class Ends:
    """A batch for a bridge: features [B, C, H, W], logits behind Z_0 [M, B, K], source logits, Z_0 and Z_1 [B, K]."""

    features: torch.Tensor
    member_logits: torch.Tensor
    source: torch.Tensor
    z_0: torch.Tensor
    z_1: torch.Tensor


class BridgeTraining:
    """Trains the denoisers of one bridge; every draw comes from one generator, which checkpoints keep.

    Args:
        config: options of the method.
        context: members (the source first), data and the training loop.
        weights: of the members in the target, [members_per_bridge]; None: equal ones.
    """

    def __init__(self, config: DBNConfig, context: FitContext, weights: torch.Tensor | None) -> None:
        self.config, self.context, self.weights = config, context, weights
        self.generator = context.generator("train")
        self.tap = context.members[0].tap(config.split_at)

    def fit(self, denoiser: Denoiser) -> Denoiser:
        """Train a denoiser of T steps: equation (4), or the velocity of a rectified flow."""
        config, generator = self.config, self.generator

        def step(batch: Batch) -> torch.Tensor:
            ends = self.ends(batch)
            if config.process == "rectified_flow":
                t = 1 - torch.rand(len(batch), generator=generator)
                return flow_loss(denoiser, ends.features, ends.z_0, ends.z_1, t)
            n = draw_steps(len(batch), config.steps, config.train_last_step, generator)
            z_n = sample_bridge(ends.z_0, ends.z_1, n, denoiser.variances, generator)
            return bridge_loss(denoiser, ends.features, z_n, n, ends.z_0, config.loss)

        return self.train(denoiser, step, bridge_recipe(config, self.context))

    def distil(self, student: Denoiser, teacher: Denoiser) -> Denoiser:
        """Train a denoiser of one step, started from the teacher's weights: equation (6)."""
        config = self.config
        student.load_state_dict(teacher.state_dict())

        def step(batch: Batch) -> torch.Tensor:
            ends = self.ends(batch)
            z_c = self.teacher_trajectory(teacher, ends)[-1]
            return step_distillation_loss(
                student, ends.features, ends.z_1, z_c, ends.z_0, config.distill_alpha, config.loss
            )

        self.train(student, step, distillation_recipe(config, self.context))
        states = self.validation_trajectories(teacher)
        self.context.record(
            kappa=curvature(states, teacher.variances),
            branch_1_mse=float((self.validation_trajectories(student)[-1] - states[-1]).square().mean()),
        )
        return student

    @torch.no_grad()
    def teacher_trajectory(self, teacher: Denoiser, ends: Ends) -> list[torch.Tensor]:
        """The teacher's states Z_T ... Z_0 = Z_C on a training batch, [B, K] each."""
        config = self.config
        start = ends.z_1 if config.prior == "gaussian" else self.start_at_mean_temperature(ends.source)
        return trajectory(teacher, ends.features, start, config.sampler_noise, self.generator)

    def ends(self, batch: Batch) -> Ends:
        """Both ends of the bridge: equations (1) and (2)."""
        logits, features = self.context.teach_bridge(batch, self.tap)
        member_logits = self.context.teach_images(batch.dominant) if self.config.perturb_input else logits
        return Ends(
            features, member_logits, logits[0], target_logits(member_logits, self.weights), self.random_start(logits[0])
        )

    def random_start(self, logits: torch.Tensor) -> torch.Tensor:
        """Z_1 in training: the source's logits at a random temperature, or noise."""
        config = self.config
        if config.prior == "gaussian":
            return start_logits(logits, None, self.generator)
        draws = len(logits) if config.temperature_per == "example" else 1
        temperature = random_temperature(
            draws, config.temperature, config.temperature_spread, self.generator, config.temperature_law
        )
        return logits / temperature.to(logits)

    def start_at_mean_temperature(self, logits: torch.Tensor) -> torch.Tensor:
        """Z_1 in evaluation: the source's logits at the mean temperature, or noise from a fixed seed."""
        return start_logits(logits, evaluation_temperature(self.config), self.context.generator("prior"))

    @torch.no_grad()
    def validation_trajectories(self, denoiser: Denoiser) -> torch.Tensor:
        """Z_n for n = T ... 0 on the validation images, without noise, [T + 1, N, K]."""

        def trajectories(images: torch.Tensor) -> torch.Tensor:
            features, logits = self.tap(images)
            return torch.stack(trajectory(denoiser, features, self.start_at_mean_temperature(logits)))

        return predict_split(trajectories, self.context.data.validation, self.context.device)

    def train(self, denoiser: Denoiser, step: Any, recipe: Recipe) -> Denoiser:
        """Train in place by the context's loop; ``keep`` judges epochs by the sampled prediction."""

        def predict(current: Any, images: torch.Tensor) -> torch.Tensor:
            features, logits = self.tap(images)
            return sample(current, features, self.start_at_mean_temperature(logits))

        self.context.train(denoiser, step, recipe, predict=predict, step_generator=self.generator)
        return denoiser


def evaluation_temperature(config: DBNConfig) -> float | None:
    """The source temperature of evaluation; None where bridges start from noise."""
    if config.prior == "gaussian":
        return None
    return mean_temperature(config.temperature, config.temperature_spread, config.temperature_law)


def bridge_recipe(config: DBNConfig, context: FitContext) -> Recipe:
    """AdamW with a cosine schedule over the epochs before distillation."""
    total, short = config.split_epochs(context.student_epochs)
    return _recipe(config, context, max(1, total - short), config.lr, config.cosine_length)


def distillation_recipe(config: DBNConfig, context: FitContext) -> Recipe:
    """The distillation's share of the epochs, at a tenth of the rate."""
    _, short = config.split_epochs(context.student_epochs)
    return _recipe(config, context, short, config.lr * config.distill_lr_factor, 1.0)


def _recipe(config: DBNConfig, context: FitContext, epochs: int, lr: float, cosine_length: float) -> Recipe:
    examples = len(context.images)
    batch = min(config.batch_size, examples)
    decay = _REVERSED_DECAY
    if config.ema == "standard":
        decay = 1 - 1 / max(2.0, _EMA_SHARE * epochs * max(1, examples // batch))
    return context.recipe.replace(
        epochs=epochs,
        batch_size=batch,
        optimizer="adamw",
        lr=lr,
        weight_decay=0.0,
        warmup_epochs=0.0,
        cosine_length=cosine_length,
        mixup=config.mixup,
        mixup_per=config.mixup_per,
        ema_decay=decay,
        keep=config.keep,
    )
