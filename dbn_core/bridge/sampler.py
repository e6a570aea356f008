"""Sampling: from the source logits at step T to the ensemble's logits at step 0, equation (5)."""

from __future__ import annotations

from typing import Any, Literal

import torch

from dbn_core.bridge.denoiser import Denoiser

Noise = Literal["none", "posterior", "forward"]


def sample(
    denoiser: Denoiser,
    features: Any,
    z_start: torch.Tensor,
    noise: Noise = "none",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Z_0 [B, K], the end of :func:`trajectory`; same arguments."""
    return trajectory(denoiser, features, z_start, noise, generator)[-1]


def trajectory(
    denoiser: Denoiser,
    features: Any,
    z_start: torch.Tensor,
    noise: Noise = "none",
    generator: torch.Generator | None = None,
) -> list[torch.Tensor]:
    """All states Z_T, Z_{T-1}, ..., Z_0, each [B, K].

    Step n is ``Z_{n-1} = a_n Z_0^ + (1 - a_n) Z_n + noise``, with ``a_n = (sigma_n^2 - sigma_{n-1}^2) / sigma_n^2``
    (1/n when the rate is constant).

    Args:
        denoiser: holds the network and the schedule; T network calls are made.
        features: what the network is conditioned on, h [B, C, H, W].
        z_start: Z_T = source logits divided by the mean temperature, [B, K].
        noise: ``none`` gives the mean; ``posterior`` adds the variance of the bridge posterior (none at n = 1);
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
