"""The noise schedule: signal and noise at time t of the variance-preserving process (Song et al., 2021).

>>> schedule = VP()
>>> times = schedule.times(4)  # five times from noise to data, float64
>>> [round(t, 3) for t in times.tolist()]
[1.0, 0.75, 0.5, 0.251, 0.001]
>>> schedule.alpha(times).round(decimals=3).tolist()
[0.007, 0.059, 0.28, 0.722, 1.0]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class VP:
    """Variance preserving, alpha^2 + sigma^2 = 1, with a rate that is linear in t.

    log alpha_t = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2.  Functions of t are in float64, for t of any shape.
    Data are assumed to have unit variance, so that p at t_max is nearly N(0, I).

    Attributes:
        t_max, t_min: where sampling starts and ends.
    """

    t_max: float = 1.0
    t_min: float = 1e-3
    beta_min: float = 0.1
    beta_max: float = 20.0

    def _integral(self, t: torch.Tensor) -> torch.Tensor:
        t = t.double()
        return t * self.beta_min + t**2 * (self.beta_max - self.beta_min) / 2

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Factor of the data in x_t: exp(-half of the integral of the rate)."""
        return (-self._integral(t) / 2).exp()

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Standard deviation of the noise in x_t: sqrt(1 - alpha^2), exact near t = 0."""
        return (-torch.expm1(-self._integral(t))).sqrt()

    def drift(self, t: torch.Tensor) -> torch.Tensor:
        """f in dx = f(t) x dt + g(t) dW: half of the rate, negative."""
        return -self.diffusion(t) / 2

    def diffusion(self, t: torch.Tensor) -> torch.Tensor:
        """g squared in the same equation: the rate beta(t)."""
        return self.beta_min + t.double() * (self.beta_max - self.beta_min)

    def level(self, t: torch.Tensor) -> torch.Tensor:
        """log(sigma / alpha), minus half of the log signal-to-noise ratio: the input of the networks."""
        return self.sigma(t).log() - self.alpha(t).log()

    def times(self, steps: int) -> torch.Tensor:
        """Grid from t_max to t_min, float64 [steps + 1]; that of a multiple of the steps contains this one."""
        grid = self.t_max + torch.arange(steps + 1, dtype=torch.float64) / steps * (self.t_min - self.t_max)
        grid[-1] = self.t_min  # without rounding
        return grid
