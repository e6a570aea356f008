"""From a score network's output to an estimate of the ensemble's logits, and the loss of that estimate, (4)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

Prediction = Literal["noise", "displacement"]
Loss = Literal["mse", "kl"]


class Denoiser(nn.Module):
    """Z_0 estimate at step n: ``Z_n - scale_n * network(h, Z_n, n/T)``.

    What the network is conditioned on (``features``) is only passed on.

    Args:
        network: maps (features, Z [B, K], tau [B]) to [B, K].
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

    def raw(self, features: Any, z: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        """The network's output at steps n [B]."""
        return self.network(features, z, (n / self.steps).to(z))

    def scale(self, n: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """scale_n as [B, 1] in the type and on the device of ``like``."""
        return self.scales[n].to(like)[:, None]

    def forward(self, features: Any, z: torch.Tensor, n: int) -> torch.Tensor:
        """Estimate of Z_0 [B, K] from Z_n at one common step n."""
        tau = torch.full_like(z[:, 0], n / self.steps)  # the tracers follow its shape
        return z - self.scales.tolist()[n] * self.network(features, z, tau)


def bridge_loss(
    denoiser: Denoiser,
    features: Any,
    z_n: torch.Tensor,
    n: torch.Tensor,
    z_0: torch.Tensor,
    loss: Loss = "mse",
) -> torch.Tensor:
    """Equation (4): ``|| network - (Z_n - Z_0) / scale_n ||^2``, summed over classes, mean over the batch.

    Args:
        loss: ``kl`` is ours: the divergence of the softmax of the Z_0 estimate from that of Z_0.
    """
    output, scale = denoiser.raw(features, z_n, n), denoiser.scale(n, z_n)
    if loss == "kl":
        return kl_to(z_n - scale * output, z_0)
    return (output - (z_n - z_0) / scale).square().sum(1).mean()


def flow_loss(denoiser: Denoiser, features: Any, z_0: torch.Tensor, z_1: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Rectified flow: ``|| network(Z_t, t) - (Z_1 - Z_0) ||^2`` with ``Z_t = (1 - t) Z_0 + t Z_1``, t [B] in (0, 1].

    The network predicts the velocity.  The sampler of a displacement denoiser is then Euler's method, Z <- Z - v / T.
    """
    time = t.to(z_0)[:, None]
    z_t = (1 - time) * z_0 + time * z_1
    return (denoiser.raw(features, z_t, t * denoiser.steps) - (z_1 - z_0)).square().sum(1).mean()


def kl_to(z: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of KL(softmax(target) || softmax(z)); both [B, K]."""
    return torch.nn.functional.kl_div(z.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True)


def draw_steps(count: int, steps: int, include_last: bool, generator: torch.Generator) -> torch.Tensor:
    """Step indices n, int64 [count], uniform on 1 ... T, or on 1 ... T-1 as in the released code.

    The released code never trains the step at which sampling starts, except when T = 1, where both agree.
    """
    highest = steps if include_last or steps == 1 else steps - 1
    return torch.randint(1, highest + 1, (count,), generator=generator)
