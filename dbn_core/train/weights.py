"""Weights that a training passes through: their mean, their spread, and noise on them.

What is collected are buffers of the trained module, so that a checkpoint holds it and a killed training goes on.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


def flat_weights(network: nn.Module) -> torch.Tensor:
    """All parameters as one float64 vector; torch's own function fails on channels_last weights."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()]).double()


@torch.no_grad()
def set_weights(network: nn.Module, vector: torch.Tensor) -> None:
    """Inverse of :func:`flat_weights`."""
    parameters = list(network.parameters())
    pieces = vector.split([parameter.numel() for parameter in parameters])
    for parameter, piece in zip(parameters, pieces, strict=True):
        parameter.copy_(piece.view(parameter.shape))


class WeightGaussian(nn.Module):
    """A network, and the Gaussian of its weights after every ``every`` steps (SWAG; Maddox et al., 2019).

    With the mean theta and the mean square q of n iterates, and D [R, P] the last R deviations from the running mean,
    the covariance at scale a is ``a (diag(q - theta^2) + D^T D / (R - 1))``.  The paper's scale is 1/2.

    Args:
        network: trained by the caller.
        rank: R.
        every: steps from one iterate to the next.
    """

    steps: torch.Tensor
    count: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor
    deviations: torch.Tensor

    def __init__(self, network: Any, rank: int, every: int = 1) -> None:
        super().__init__()
        size = sum(parameter.numel() for parameter in network.parameters())
        self.network, self.rank, self.every = network, rank, every
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("square", torch.zeros(size, dtype=torch.float64))  # float32 would cancel in q - theta^2
        self.register_buffer("deviations", torch.zeros(rank, size))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The network as it is now."""
        logits: torch.Tensor = self.network(images)
        return logits

    @torch.no_grad()
    def tick(self) -> None:
        """Collect the weights where it is time: to be called at the top of every step, and once after the last."""
        if self.steps > 0 and self.steps % self.every == 0:
            weights, n = flat_weights(self.network), int(self.count)
            self.mean.mul_(n / (n + 1)).add_(weights / (n + 1))
            self.square.mul_(n / (n + 1)).add_(weights.square() / (n + 1))
            self.deviations.copy_(torch.cat([self.deviations[1:], (weights - self.mean).float()[None]]))
            self.count += 1
        self.steps += 1

    def sample(self, generator: torch.Generator, scale: float = 0.5) -> torch.Tensor:
        """A vector of weights [P]; one draw of the low-rank part serves all tensors of the network."""
        diagonal = torch.randn(len(self.mean), generator=generator, dtype=torch.float64).to(self.mean)
        low_rank = torch.randn(self.rank, generator=generator).to(self.deviations)
        used = max(min(int(self.count), self.rank) - 1, 1)
        spread = (self.square - self.mean.square()).clamp_min(1e-30).sqrt() * diagonal
        return self.mean + math.sqrt(scale) * (spread + self.deviations.T @ low_rank / math.sqrt(used))


class Langevin(nn.Module):
    """A network, and a count of its steps: noise of variance ``2 lr T / N`` on each weight makes SGD sample (SGLD)."""

    steps: torch.Tensor

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The network as it is now."""
        logits: torch.Tensor = self.network(images)
        return logits

    @torch.no_grad()
    def shake(self, rate: float, temperature: float, examples: int) -> None:
        """Add the noise in place, from the global generators; without a temperature nothing is drawn."""
        if temperature:
            for parameter in self.network.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=math.sqrt(2 * rate * temperature / examples))
