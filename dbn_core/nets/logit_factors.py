"""Teachers as draws of a linear Gaussian family of functions, ``f(x) = mu(x) + Phi(x)^T z`` with ``z ~ N(m, C)``.

One network gives mu [K] and Phi [q, K].  With residuals of variance s^2, the z of teacher i is Gaussian given its
logits on N images (factor analysis):

    S = I + sum_x Phi Phi^T / s^2,   E z_i = S^-1 sum_x Phi (f_i - mu) / s^2,   Cov z_i = S^-1

and mu and Phi minimise the expected square, ``sum_x |f_i - mu - Phi^T E z_i|^2 + |Phi|^2_S^-1``.  m and C are the
moments of all teachers' z: with a standard normal law instead, mean and scale of Phi would settle far more slowly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_MEMORY = 0.05  # weight of the newest batch in the running sums, once there have been enough


class LogitFactors(nn.Module):
    """Mean and factors of the teachers' logits, and the running sums that their z are computed from.

    Args:
        network: images [B, C, H, W] to [B, (1 + q) K].
        factors: q.
        teachers: M.
        examples: N, the images of the training split.
    """

    batches: torch.Tensor
    second: torch.Tensor
    cross: torch.Tensor
    variance: torch.Tensor
    places: torch.Tensor
    covariance: torch.Tensor

    def __init__(self, network: Any, factors: int, teachers: int, examples: int) -> None:
        super().__init__()
        self.network, self.factors, self.examples = network, factors, examples
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("second", torch.zeros(factors, factors, dtype=torch.float64))
        self.register_buffer("cross", torch.zeros(teachers, factors, dtype=torch.float64))
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))
        self.register_buffer("places", torch.zeros(teachers, factors, dtype=torch.float64))  # E z
        self.register_buffer("covariance", torch.eye(factors, dtype=torch.float64))  # Cov z, of each teacher

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """mu [B, K] and Phi [B, q, K]."""
        output = self.network(images).unflatten(-1, (1 + self.factors, -1))
        return output[:, 0], output[:, 1:]

    def expect(self) -> None:
        """The E-step: places and covariance of the teachers' z, from the running sums."""
        precision = torch.eye(self.factors).to(self.second) + self.examples * self.second / self.variance
        self.covariance.copy_(torch.linalg.inv(precision))
        self.places.copy_(self.examples / self.variance * self.cross @ self.covariance)

    def moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        """m [q] and C [q, q], float64."""
        mean = self.places.mean(0)
        gaps = self.places - mean
        return mean, gaps.T @ gaps / len(gaps) + self.covariance

    def loss(self, images: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The M-step's mean square of teachers' logits [M, B, K], relative to their variance; updates the sums first.

        The variance s^2 is updated afterwards.
        """
        mean, factors = self(images)
        with torch.no_grad():
            weight = max(1 / (int(self.batches) + 1), _MEMORY)
            phi, residual = factors.double(), (logits - mean).double()
            self.second.lerp_(torch.einsum("bqk,brk->qr", phi, phi) / len(images), weight)
            self.cross.lerp_(torch.einsum("bqk,mbk->mq", phi, residual) / len(images), weight)
            self.expect()
            z, covariance = self.places.to(mean), self.covariance.to(mean)
        gap = logits - mean - (z[:, None, :, None] * factors).sum(2)
        spread = torch.einsum("qr,bqk,brk->bk", covariance, factors, factors)
        square = (gap.square() + spread).mean()
        with torch.no_grad():
            self.variance.lerp_(square.detach().double(), weight)
            self.batches += 1
        return square / logits.var().clamp_min(1e-6)


class FactorLogits(nn.Module):
    """Draws of the family: images to log-probabilities [draws, B, K], at the cost of one network and small products.

    Args:
        model: trained.
        draws: standard normal [draws, q], the same for every image, so that a term is one function of images.
    """

    z: torch.Tensor

    def __init__(self, model: LogitFactors, draws: torch.Tensor) -> None:
        super().__init__()
        self.network, self.factors = model.network, model.factors
        mean, covariance = model.moments()
        z = mean + draws.to(mean) @ torch.linalg.cholesky(covariance).T
        self.register_buffer("z", z.float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to [draws, B, K]."""
        output = self.network(images).unflatten(-1, (1 + self.factors, -1))
        deviations = torch.einsum("dq,bqk->dbk", self.z, output[:, 1:])
        return (output[:, 0] + deviations).log_softmax(-1)
