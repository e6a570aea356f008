"""Step distillation in one jump, T steps to one: equation (6)."""

from __future__ import annotations

from typing import Any

import torch

from dbn_core.bridge.denoiser import Denoiser, Loss, kl_to


def step_distillation_loss(
    student: Denoiser,
    features: Any,
    z_1: torch.Tensor,
    z_teacher: torch.Tensor,
    z_0: torch.Tensor,
    alpha: float = 0.5,
    loss: Loss = "mse",
) -> torch.Tensor:
    """``alpha * |eps - (Z_1 - Z_C)/s|^2 + (1 - alpha) * |eps - (Z_1 - Z_0)/s|^2``, summed over classes, batch mean.

    Args:
        student: a one-step denoiser, started from the teacher's weights and statistics; always sees n = T = 1.
        features: what the networks are conditioned on.
        z_1: source logits at their random training temperature, [B, K].
        z_teacher: Z_C, the multi-step teacher's sample at the mean temperature, [B, K].
        z_0: the true ensemble logits, [B, K].
        loss: as in :func:`dbn_core.bridge.denoiser.bridge_loss`.
    """
    n = torch.ones(len(z_1), dtype=torch.long)
    output, scale = student.raw(features, z_1, n), student.scale(n, z_1)
    if loss == "kl":
        estimate = z_1 - scale * output
        return alpha * kl_to(estimate, z_teacher) + (1 - alpha) * kl_to(estimate, z_0)
    to_teacher = (output - (z_1 - z_teacher) / scale).square().sum(1)
    to_ensemble = (output - (z_1 - z_0) / scale).square().sum(1)
    return (alpha * to_teacher + (1 - alpha) * to_ensemble).mean()
