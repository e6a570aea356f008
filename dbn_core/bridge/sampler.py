"""Sampling: from the source logits at step T to the ensemble's logits at step 0, equation (5)."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch

Noise = Literal["none", "posterior", "forward"]


class Estimator(Protocol):
    """What a walk asks at each step for an estimate of Z_0: a denoiser, or several."""

    @property
    def steps(self) -> int:
        """T."""

    @property
    def variances(self) -> torch.Tensor:
        """sigma_n^2, float64 [T + 1]."""

    def __call__(self, features: Any, z: torch.Tensor, n: int) -> torch.Tensor:
        """Estimate of Z_0 [B, K] from Z_n."""


def sample(
    denoiser: Estimator,
    features: Any,
    z_start: torch.Tensor,
    noise: Noise = "none",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Z_0 [B, K]: the end of :func:`path`, with its arguments."""
    return path(denoiser, features, z_start, noise, generator)[-1]


def path(
    denoiser: Estimator,
    features: Any,
    z_start: torch.Tensor,
    noise: Noise = "none",
    generator: torch.Generator | None = None,
) -> list[torch.Tensor]:
    """Walk n = T ... 1 and return Z_T, Z_{T-1}, ..., Z_0, each [B, K].

    Each step: ``Z_{n-1} = a_n Z_0^ + (1 - a_n) Z_n + noise`` with ``a_n = (sigma_n^2 - sigma_{n-1}^2) / sigma_n^2``
    (1/n when the rate is constant).

    Args:
        denoiser: holds the network and the schedule; T network calls are made.
        features: what the network is conditioned on, h [B, C, H, W].
        z_start: Z_T = source logits divided by the mean temperature, [B, K].
        noise: ``none`` is the mean path; ``posterior`` adds the variance of the bridge posterior (none at n = 1);
            ``forward`` adds the forward increment sigma_n^2 - sigma_{n-1}^2, at the last step too, as released.
        generator: source of the noise; needed unless ``noise`` is ``none``.
    """
    variances = denoiser.variances.tolist()
    z = z_start
    states = [z]
    for n in range(denoiser.steps, 0, -1):
        now, before = variances[n], variances[n - 1]
        a = (now - before) / now
        z = a * denoiser(features, z, n) + (1 - a) * z
        if noise != "none":
            variance = now - before if noise == "forward" else (now - before) * before / now
            xi = torch.randn(z.shape, generator=generator, device=generator.device if generator else None)
            z = z + variance**0.5 * xi.to(z)
        states.append(z)
    return states
