"""Filter Response Normalisation with its thresholded linear unit (Singh and Krishnan, 2020)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from dbn_core.nets.precision import full_precision


class FRN(nn.Module):
    """FRN with threshold: ``max(gamma * x / sqrt(mean_hw(x^2) + eps) + beta, tau)``, 3 parameters a channel.

    Args:
        channels: C of the input [B, C, H, W].
        eps: fixed, as in the DBN and Bridge Network code.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(channels, 1, 1))
        self.tau = nn.Parameter(torch.zeros(channels, 1, 1))

    def reset(self, generator: torch.Generator) -> None:
        """gamma = 1, beta = 0, tau = 0; nothing is random."""
        nn.init.ones_(self.gamma)
        nn.init.zeros_(self.beta)
        nn.init.zeros_(self.tau)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise over the spatial axes of each example and channel; statistics are float32 under autocast too."""
        x = full_precision(x)
        scale = self.gamma * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + self.eps)
        # max(y, tau) = relu(y - tau) + tau; relu's backward is several times cheaper on CPU than that of maximum.
        return F.relu(torch.addcmul(self.beta - self.tau, x, scale)) + self.tau
