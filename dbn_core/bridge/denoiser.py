"""From a score network's output to an estimate of the ensemble's logits, and the training loss of that estimate."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

Prediction = Literal["noise", "displacement"]


class Denoiser(nn.Module):
    """Z_0 estimate at step n: ``Z_n - scale_n * network(h, Z_n, n/T)``.

    Args:
        network: maps (h [B, C, H, W], Z [B, K], tau [B]) to [B, K].
        variances: sigma_n^2, float64 [T + 1], on the CPU.
        prediction: ``noise`` makes scale_n = sigma_n, as released (the network's target is then about a hundred times
            Z_1 - Z_0); ``displacement`` makes scale_n = sigma_n^2 / sigma_T^2, so that the network predicts Z_1 - Z_0
            itself at every step: the same optimum, better conditioned.
    """

    def __init__(self, network: nn.Module, variances: torch.Tensor, prediction: Prediction = "displacement") -> None:
        super().__init__()
        self.network = network
        self.variances = variances  # a schedule, not a weight: neither saved nor moved
        self.scales = variances.sqrt() if prediction == "noise" else variances / variances[-1]

    @property
    def steps(self) -> int:
        """T."""
        return len(self.variances) - 1

    def raw(self, features: torch.Tensor, z: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        """The network's output at steps n [B]."""
        return self.network(features, z, (n / self.steps).to(z))

    def scale(self, n: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """scale_n as [B, 1] in the type and on the device of ``like``."""
        return self.scales[n].to(like)[:, None]

    def forward(self, features: torch.Tensor, z: torch.Tensor, n: int) -> torch.Tensor:
        """Estimate of Z_0 [B, K] from Z_n at one common step n."""
        tau = torch.full((len(z),), n / self.steps, dtype=z.dtype, device=z.device)
        return z - float(self.scales[n]) * self.network(features, z, tau)


def bridge_loss(
    denoiser: Denoiser, features: torch.Tensor, z_n: torch.Tensor, n: torch.Tensor, z_0: torch.Tensor
) -> torch.Tensor:
    """DBN's objective: ``|| network - (Z_n - Z_0) / scale_n ||^2``, summed over classes, mean over the batch."""
    target = (z_n - z_0) / denoiser.scale(n, z_n)
    return (denoiser.raw(features, z_n, n) - target).square().sum(1).mean()


def draw_steps(count: int, steps: int, include_last: bool, generator: torch.Generator) -> torch.Tensor:
    """Step indices n, int64 [count], uniform on 1 ... T, or on 1 ... T-1 as in the released code.

    The released code never trains the step at which sampling starts, except when T = 1, where both agree.
    """
    highest = steps if include_last or steps == 1 else steps - 1
    return torch.randint(1, highest + 1, (count,), generator=generator)
