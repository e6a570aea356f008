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


class WeightMean(nn.Module):
    """A network, and the mean of its weights after every ``every`` steps (SWA; Izmailov et al., 2018).

    Args:
        network: trained by the caller.
        every: steps from one collected point to the next.
        skip: steps before the first of them.
    """

    steps: torch.Tensor
    count: torch.Tensor
    mean: torch.Tensor

    def __init__(self, network: Any, every: int = 1, skip: int = 0) -> None:
        super().__init__()
        size = sum(parameter.numel() for parameter in network.parameters())
        self.network, self.every, self.skip = network, every, skip
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The network as it is now."""
        logits: torch.Tensor = self.network(images)
        return logits

    @torch.no_grad()
    def tick(self) -> None:
        """Collect the weights where it is time: to be called at the top of every step, and once after the last."""
        if self.steps > self.skip and self.steps % self.every == 0:
            self.collect(flat_weights(self.network))
        self.steps += 1

    def collect(self, weights: torch.Tensor) -> None:
        """Take a vector of weights [P] into the mean."""
        n = int(self.count)
        self.mean.mul_(n / (n + 1)).add_(weights / (n + 1))
        self.count += 1


class WeightGaussian(WeightMean):
    """A network, and the Gaussian of its weights after every ``every`` steps (SWAG; Maddox et al., 2019).

    With the mean theta and the mean square q of n iterates, and D [R, P] the last R deviations from the running mean,
    the covariance at scale a is ``a (diag(q - theta^2) + D^T D / (R - 1))``.  The paper's scale is 1/2.

    Args:
        network: trained by the caller.
        rank: R.
        every: steps from one iterate to the next.
    """

    square: torch.Tensor
    deviations: torch.Tensor

    def __init__(self, network: Any, rank: int, every: int = 1) -> None:
        super().__init__(network, every)
        self.rank = rank
        self.register_buffer("square", torch.zeros_like(self.mean))  # float32 would cancel in q - theta^2
        self.register_buffer("deviations", torch.zeros(rank, len(self.mean)))

    def collect(self, weights: torch.Tensor) -> None:
        """Take a vector of weights [P] into mean and mean square, and its deviation from the new mean."""
        n = int(self.count)
        super().collect(weights)
        self.square.mul_(n / (n + 1)).add_(weights.square() / (n + 1))
        self.deviations.copy_(torch.cat([self.deviations[1:], (weights - self.mean).float()[None]]))

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
