"""The forward process, and the conversion of a network's output to noise, data and score.

>>> import torch
>>> from dbn_core.generative.diffusion.schedules import VP
>>> model = ScoreModel(lambda x, level: torch.zeros_like(x), VP(), prediction="noise")
>>> x_0, noise = torch.ones(2, 3), torch.full((2, 3), 2.0)
>>> t = torch.tensor([0.5, 1.0])
>>> x_t = add_noise(VP(), x_0, t, noise)
>>> x_t.shape, model(x_t, t).shape, model.denoised(x_t, t).shape
(torch.Size([2, 3]), torch.Size([2, 3]), torch.Size([2, 3]))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import nn

from dbn_core.generative.diffusion.schedules import VP

Score: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Prediction = Literal["noise", "x", "v"]


def append_dims(value: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One number for each example, [B], with the dtype of x [B, ...] and singleton axes, so that it broadcasts."""
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1))


def randn_like(x: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """Standard normal draws with the shape, dtype and device of x; drawn on the generator's device.

    Raises:
        ValueError: there is no generator.
    """
    if generator is None:
        raise ValueError("This sampler draws noise: pass a torch.Generator.")
    return torch.randn(x.shape, generator=generator, device=generator.device).to(x)


def add_noise(schedule: VP, x_0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """x_t = alpha_t x_0 + sigma_t noise; x_0 and noise [B, ...], t [B]."""
    return append_dims(schedule.alpha(t), x_0) * x_0 + append_dims(schedule.sigma(t), x_0) * noise


class ScoreModel(nn.Module):
    """The score of a network of x and log(sigma / alpha) that predicts the noise, x_0, or v = alpha noise - sigma x_0.

    Args:
        network: maps x [B, C, ...] and a level [B] to [B, K C, ...]; the last of K branches is used.
        schedule: alpha and sigma.
        prediction: what the network predicts.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        schedule: VP,
        prediction: Prediction = "v",
    ) -> None:
        super().__init__()
        self.network, self.schedule, self.prediction = network, schedule, prediction

    def _scales(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return append_dims(self.schedule.alpha(t), x), append_dims(self.schedule.sigma(t), x)

    def branches(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Raw outputs of all branches, [K, B, C, ...]."""
        output = self.network(x, self.schedule.level(t).to(x))
        return output.unflatten(1, (-1, x.shape[1])).transpose(0, 1)

    def to_data(self, output: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The estimate of x_0 that corresponds to an output at (x, t); the output may have further leading axes."""
        alpha, sigma = self._scales(x, t)
        if self.prediction == "noise":
            return (x - sigma * output) / alpha
        return output if self.prediction == "x" else alpha * x - sigma * output

    def denoised(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Estimate of E[x_0 | x_t = x], [B, ...]."""
        return self.to_data(self.branches(x, t)[-1], x, t)

    def noise(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Estimate of E[noise | x_t = x], [B, ...]."""
        output = self.branches(x, t)[-1]
        alpha, sigma = self._scales(x, t)
        if self.prediction == "noise":
            return output
        return (x - alpha * output) / sigma if self.prediction == "x" else sigma * x + alpha * output

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The score at x [B, C, ...] and times t [B]: -noise / sigma."""
        return -self.noise(x, t) / append_dims(self.schedule.sigma(t), x)
