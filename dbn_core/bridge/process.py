"""End points of the bridge, (1) and (2), and the Gaussian law in between, (3).

Shapes: member logits [M, B, K]; Z_0, Z_1 and Z_n [B, K]; step index n [B]; step variances [steps + 1].
"""

from __future__ import annotations

from typing import Literal

import torch
from scipy.special import betaincinv

TemperatureLaw = Literal["beta", "uniform", "exponential"]


def target_logits(member_logits: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Z_0 of (1): centred log of the mean of the members' probabilities, [M, B, K] to [B, K].

    Args:
        weights: [M] summing to one; equal weights when omitted.
    """
    log_probs = member_logits.log_softmax(-1)
    if weights is None:
        weights = torch.full((len(member_logits),), 1.0 / len(member_logits))
    log_weights = weights.to(log_probs).log()[:, None, None]
    mean = torch.logsumexp(log_probs + log_weights, 0)
    return mean - mean.mean(-1, keepdim=True)


def random_temperature(
    count: int, low: float, spread: float, generator: torch.Generator, law: TemperatureLaw = "beta"
) -> torch.Tensor:
    """t of (2): low + spread * B, float32 [count, 1]; by default in [2, 2.4], as released.

    Args:
        law: of B: Beta(1, 5), uniform on [0, 1], or exponential with mean 1.
    """
    uniform = torch.rand(count, 1, generator=generator, dtype=torch.float64)
    if law == "beta":
        uniform = torch.from_numpy(betaincinv(1.0, 5.0, uniform.numpy()))
    elif law == "exponential":
        uniform = -torch.log1p(-uniform)
    return (low + spread * uniform).float()


def mean_temperature(low: float, spread: float, law: TemperatureLaw = "beta") -> float:
    """The temperature of evaluation: the mean of :func:`random_temperature` (2.0667 by default)."""
    return low + spread * {"beta": 1 / 6, "uniform": 1 / 2, "exponential": 1.0}[law]


def bridge_mean_std(
    z_0: torch.Tensor, z_1: torch.Tensor, n: torch.Tensor, variances: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [B, K] and standard deviation [B, 1] of q(Z_n | Z_0, Z_1): equation (3).

    With s = sigma_n^2 and S = sigma_T^2: mean = (1 - s/S) Z_0 + (s/S) Z_1, variance = s (S - s) / S.
    """
    total = variances[-1]
    s = variances[n]
    fraction = (s / total).to(z_0)[:, None]
    std = (s * (total - s) / total).clamp_min(0).sqrt().to(z_0)[:, None]
    return (1 - fraction) * z_0 + fraction * z_1, std


def sample_bridge(
    z_0: torch.Tensor, z_1: torch.Tensor, n: torch.Tensor, variances: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """A draw of Z_n given both ends, [B, K]."""
    mean, std = bridge_mean_std(z_0, z_1, n, variances)
    noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
    return mean + std * noise
