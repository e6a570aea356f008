"""The forward process, and what a network's output says about the noise, the data and the score.

>>> import torch
>>> from dbn_core.generative.diffusion.schedules import VP
>>> model = ScoreModel(lambda x, level: torch.zeros_like(x), VP(), prediction="noise")
>>> x_0, noise = torch.ones(2, 3), torch.full((2, 3), 2.0)
>>> t = torch.tensor([0.5, 1.0])
>>> x_t = perturb(VP(), x_0, t, noise)
>>> x_t.shape, model(x_t, t).shape, model.denoised(x_t, t).shape
(torch.Size([2, 3]), torch.Size([2, 3]), torch.Size([2, 3]))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import nn

from dbn_core.generative.diffusion.schedules import Schedule

Score: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Prediction = Literal["noise", "x", "v"]


def beside(value: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """A number for each example, [B], in the type of x [B, ...] and in a shape that multiplies it."""
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1))


def normal_like(x: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Standard normal draws in the shape, type and place of x; drawn where the generator is.

    Raises:
        ValueError: there is no generator.
    """
    if generator is None:
        raise ValueError("noise is drawn here: pass a torch.Generator")
    return torch.randn(x.shape, generator=generator, device=generator.device).to(x)


def perturb(schedule: Schedule, x_0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """x_t = alpha_t x_0 + sigma_t noise; x_0 and noise [B, ...], t [B]."""
    return beside(schedule.alpha(t), x_0) * x_0 + beside(schedule.sigma(t), x_0) * noise


class ScoreModel(nn.Module):
    """The score of a network that predicts the noise, the data, or v = (alpha noise - sigma x_0) / n.

    With n = sqrt(alpha^2 + sigma^2) (1 for VP) the network sees x / n and log(sigma / alpha), so that it is asked the
    same at the same signal-to-noise ratio, whatever the schedule; v then is EDM's preconditioning, but for its sign.

    Args:
        network: maps x [B, C, ...] and a level [B] to [B, K C, ...]; the last of K branches is the one that counts.
        schedule: alpha and sigma.
        prediction: what the network's output means.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        schedule: Schedule,
        prediction: Prediction = "v",
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.prediction = network, schedule, prediction

    def _scales(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return beside(alpha, x), beside(sigma, x), beside((alpha**2 + sigma**2).sqrt(), x)

    def branches(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Raw outputs of all branches, [K, B, C, ...]."""
        output = self.network(x / self._scales(x, t)[2], self.schedule.level(t).to(x))
        return output.unflatten(1, (-1, x.shape[1])).transpose(0, 1)

    def to_data(self, output: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The estimate of x_0 that an output at (x, t) means; further axes may stand before those of x."""
        alpha, sigma, n = self._scales(x, t)
        if self.prediction == "noise":
            return (x - sigma * output) / alpha
        return output if self.prediction == "x" else (alpha * x / n - sigma * output) / n

    def denoised(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Estimate of E[x_0 | x_t = x], [B, ...]."""
        return self.to_data(self.branches(x, t)[-1], x, t)

    def noise(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Estimate of E[noise | x_t = x], [B, ...]."""
        output = self.branches(x, t)[-1]
        alpha, sigma, n = self._scales(x, t)
        if self.prediction == "noise":
            return output
        return (x - alpha * output) / sigma if self.prediction == "x" else (sigma * x / n + alpha * output) / n

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The score at x [B, C, ...] and times t [B]: -noise / sigma."""
        return -self.noise(x, t) / beside(self.schedule.sigma(t), x)
