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

from dbn_core.generative.diffusion.process import Score
from dbn_core.generative.diffusion.schedules import VP


class GaussianMixture:
    """Mixture of C round normal laws in D dimensions, in float64.

    Args:
        weights: [C], positive; rescaled to sum to one.
        means: [C, D].
        variances: [C], of the round components.
    """

    def __init__(self, weights: torch.Tensor, means: torch.Tensor, variances: torch.Tensor) -> None:
        self.weights = weights.double() / weights.sum()
        self.means, self.variances = means.double(), variances.double()

    def sample(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Draws, float32 [count, D]."""
        return self.labelled_sample(count, generator)[0]

    def labelled_sample(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draws, float32 [count, D], and the component of each, int64 [count]."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)
        return (self.means[which] + noise * self.variances[which, None].sqrt()).float(), which

    def _components(
        self, x: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Joint log-densities [B, C] and scores [B, C, D] of the components of ``alpha x_0 + sigma noise``."""
        centred = x.double()[:, None] - alpha[:, None, None] * self.means
        variances = (alpha[:, None].square() * self.variances + sigma[:, None].square())[:, :, None]
        terms = centred.square() / variances + variances.log() + math.log(2 * math.pi)
        return self.weights.log() - terms.sum(-1) / 2, -centred / variances

    def log_prob(
        self, x: torch.Tensor, alpha: torch.Tensor | float = 1.0, sigma: torch.Tensor | float = 0.0
    ) -> torch.Tensor:
        """Log-density at x [B, D] in nats, of the mixture itself or of ``alpha x_0 + sigma noise``; float64 [B]."""
        return self._components(x, _per_example(alpha, x), _per_example(sigma, x))[0].logsumexp(1)

    def score_at(self, x: torch.Tensor, alpha: torch.Tensor | float, sigma: torch.Tensor | float) -> torch.Tensor:
        """d log p / dx of ``alpha x_0 + sigma noise`` at x [B, D], in the type of x."""
        joint, scores = self._components(x, _per_example(alpha, x), _per_example(sigma, x))
        return torch.einsum("bc,bcd->bd", joint.softmax(1), scores).to(x)

    def score(self, schedule: VP) -> Score:
        """The exact score of a diffusion that starts at this mixture, a function of x [B, D] and t [B]."""
        return lambda x, t: self.score_at(x, schedule.alpha(t), schedule.sigma(t))


def _per_example(value: torch.Tensor | float, x: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(value, dtype=torch.float64, device=x.device).expand(len(x))


def ring(modes: int = 8, std: float = 0.15) -> GaussianMixture:
    """Round modes of equal weights on a circle in the plane, scaled so that each coordinate has unit variance.

    Args:
        modes: number of components, 3 or more.
        std: standard deviation of a component, below 1.
    """
    angle = torch.arange(modes, dtype=torch.float64) * 2 * math.pi / modes
    radius = math.sqrt(2 * (1 - std**2))
    means = radius * torch.stack([angle.cos(), angle.sin()], 1)
    return GaussianMixture(torch.ones(modes), means, torch.full((modes,), std**2, dtype=torch.float64))
