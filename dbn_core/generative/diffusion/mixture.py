"""Gaussian mixtures, whose noised densities and scores are known in closed form.

>>> import torch
>>> from dbn_core.generative.diffusion.schedules import VP
>>> truth = ring(modes=8)  # unit variance, as schedules expect
>>> x = truth.sample(5, torch.Generator().manual_seed(0))
>>> x.shape, truth.log_prob(x).shape
(torch.Size([5, 2]), torch.Size([5]))
>>> score = truth.score(VP())  # of the noised mixture, exact
>>> score(x, torch.full((5,), 0.3)).shape
torch.Size([5, 2])
"""

from __future__ import annotations

import math

import torch

from dbn_core.errors import SpecError
from dbn_core.generative.diffusion.process import Score
from dbn_core.generative.diffusion.schedules import NoiseSchedule


class GaussianMixture:
    """Mixture of C normal laws in D dimensions, in float64.

    Args:
        weights: [C], positive; rescaled to sum to one.
        means: [C, D].
        covariances: [C, D, D], or [C] variances of round components.

    Raises:
        SpecError: shapes that do not fit, weights that are not positive, covariances that are not positive definite.
    """

    def __init__(self, weights: torch.Tensor, means: torch.Tensor, covariances: torch.Tensor) -> None:
        self.means = means.double()
        count, dimension = self.means.shape
        if covariances.ndim == 1:
            covariances = covariances[:, None, None] * torch.eye(dimension, dtype=torch.float64)
        if weights.shape != (count,) or covariances.shape != (count, dimension, dimension):
            raise SpecError(
                f"A mixture of means {tuple(means.shape)} needs weights [{count}] and covariances "
                f"[{count}, {dimension}, {dimension}], not {tuple(weights.shape)} and {tuple(covariances.shape)}."
            )
        self.variances, self.axes = torch.linalg.eigh(covariances.double())  # [C, D], [C, D, D]
        if not bool((weights > 0).all() and (self.variances > 0).all()):
            raise SpecError("A mixture needs positive weights and positive definite covariances.")
        self.weights = weights.double() / weights.sum()

    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Draws, float32 [count, D]."""
        return self.labelled_sample(count, generator)[0]

    def labelled_sample(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws, float32 [count, D], and the component of each, int64 [count]."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)
        scaled = (noise * self.variances[which].sqrt())[:, :, None]
        return (self.means[which] + (self.axes[which] @ scaled)[:, :, 0]).float(), which

    def _components(
        self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Joint log-densities [B, C], coordinates along the axes [B, C, D] and variances there [B, C, D]."""
        centred = x.double()[:, None] - alpha[:, None, None] * self.means
        along = torch.einsum("bcd,cde->bce", centred, self.axes)
        variances = alpha[:, None, None].square() * self.variances + sigma[:, None, None].square()
        terms = along.square() / variances + variances.log() + math.log(2 * math.pi)
        return self.weights.log() - terms.sum(-1) / 2, along, variances

    def log_prob(
        self, x: torch.Tensor, alpha: torch.Tensor | float = 1.0, sigma: torch.Tensor | float = 0.0
    ) -> torch.Tensor:
        """Log-density at x [B, D] in nats, of the mixture itself or of ``alpha x_0 + sigma noise``; float64 [B]."""
        return self._components(x, _per_example(alpha, x), _per_example(sigma, x))[0].logsumexp(1)

    def score_at(self, x: torch.Tensor, alpha: torch.Tensor | float, sigma: torch.Tensor | float) -> torch.Tensor:
        """d log p / dx of ``alpha x_0 + sigma noise`` at x [B, D], in the type of x."""
        joint, along, variances = self._components(x, _per_example(alpha, x), _per_example(sigma, x))
        share = joint.softmax(1)
        return -torch.einsum("bc,bce,cde->bd", share, along / variances, self.axes).to(x)

    def score(self, schedule: NoiseSchedule) -> Score:
        """The exact score of a diffusion that starts at this mixture, a function of x [B, D] and t [B]."""
        return lambda x, t: self.score_at(x, schedule.alpha(t), schedule.sigma(t))


def _per_example(value: torch.Tensor | float, x: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device=x.device).expand(len(x))


def ring(modes: int = 8, std: float = 0.15, weights: torch.Tensor | None = None) -> GaussianMixture:
    """Round modes on a circle in the plane, scaled so that each coordinate has unit variance (with equal weights).

    Args:
        modes: number of components, 3 or more.
        std: standard deviation of a component, below 1.
        weights: [modes]; equal when omitted.

    Raises:
        SpecError: fewer modes, or another standard deviation.
    """
    if modes < 3 or not 0 < std < 1:
        raise SpecError(f"A ring takes 3 modes or more and a std between 0 and 1, not {modes} and {std}.")
    angle = torch.arange(modes, dtype=torch.float64) * 2 * math.pi / modes
    radius = math.sqrt(2 * (1 - std**2))
    means = radius * torch.stack([angle.cos(), angle.sin()], 1)
    return GaussianMixture(
        torch.ones(modes) if weights is None else weights, means, torch.full((modes,), std**2, dtype=torch.float64)
    )
