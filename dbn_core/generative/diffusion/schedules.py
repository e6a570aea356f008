"""Noise schedules: signal and noise at time t for the variance-preserving process and for EDM.

>>> schedule = VP()
>>> times = schedule.times(4)  # five times from noise to data, float64
>>> [round(t, 3) for t in times.tolist()]
[1.0, 0.75, 0.5, 0.251, 0.001]
>>> schedule.alpha(times).round(decimals=3).tolist()
[0.007, 0.059, 0.28, 0.722, 1.0]
>>> [round(t, 3) for t in EDM(t_max=80.0).times(4).tolist()]
[80.0, 17.528, 2.515, 0.17, 0.002]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dbn_core.errors import SpecError


@dataclass(frozen=True)
class NoiseSchedule:
    """Base class of schedules.  Functions of t are in float64, for t of any shape.

    Attributes:
        t_max, t_min: where sampling starts and ends.
        rho: exponent of the grid; 1 is uniform in t.
    """

    t_max: float
    t_min: float
    rho: float

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """Factor of the data in x_t."""
        raise NotImplementedError

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Standard deviation of the noise in x_t."""
        raise NotImplementedError

    def drift(self, t: torch.Tensor) -> torch.Tensor:
        """f in dx = f(t) x dt + g(t) dW."""
        raise NotImplementedError

    def diffusion(self, t: torch.Tensor) -> torch.Tensor:
        """g squared in the same equation."""
        raise NotImplementedError

    def times(self, steps: int) -> torch.Tensor:
        """Grid from t_max to t_min, float64 [steps + 1], equidistant in t^(1/rho) (Karras et al., 2022, equation 5).

        The grid of a multiple of the steps contains this one.

        Raises:
            SpecError: fewer than one step.
        """
        if steps < 1:
            raise SpecError(f"A sampler takes at least one step, not {steps}.")
        high, low = self.t_max ** (1 / self.rho), self.t_min ** (1 / self.rho)
        grid = (high + torch.arange(steps + 1, dtype=torch.float64) / steps * (low - high)) ** self.rho
        grid[0], grid[-1] = self.t_max, self.t_min  # without rounding
        return grid

    def level(self, t: torch.Tensor) -> torch.Tensor:
        """log(sigma / alpha), minus half of the log signal-to-noise ratio: the input of the networks."""
        return self.sigma(t).log() - self.alpha(t).log()

    def prior(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """Draws from the normal distribution that approximates p at t_max, float32."""
        return self.prior_std * torch.randn(shape, generator=generator, device=generator.device)

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior; assumes data of unit variance (VP), or of a much smaller one (EDM)."""
        raise NotImplementedError


@dataclass(frozen=True)
class VP(NoiseSchedule):
    """Variance preserving, alpha^2 + sigma^2 = 1, with a rate that is linear in t (Song et al., 2021).

    log alpha_t = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2.
    """

    t_max: float = 1.0
    t_min: float = 1e-3
    rho: float = 1.0
    beta_min: float = 0.1
    beta_max: float = 20.0

    def _integral(self, t: torch.Tensor) -> torch.Tensor:
        t = t.double()
        return t * self.beta_min + t**2 * (self.beta_max - self.beta_min) / 2

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """exp(-half of the integral of the rate)."""
        return (-self._integral(t) / 2).exp()

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """sqrt(1 - alpha^2), exact near t = 0."""
        return (-torch.expm1(-self._integral(t))).sqrt()

    def drift(self, t: torch.Tensor) -> torch.Tensor:
        """-beta(t) / 2."""
        return -self.diffusion(t) / 2

    def diffusion(self, t: torch.Tensor) -> torch.Tensor:
        """beta(t)."""
        return self.beta_min + t.double() * (self.beta_max - self.beta_min)

    @property
    def prior_std(self) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class EDM(NoiseSchedule):
    """Unscaled data with added noise, whose standard deviation is t (Karras et al., 2022, table 1)."""

    t_max: float = 80.0
    t_min: float = 0.002
    rho: float = 7.0

    def alpha(self, t: torch.Tensor) -> torch.Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """t."""
        return t.double()

    def drift(self, t: torch.Tensor) -> torch.Tensor:
        """0."""
        return torch.zeros_like(t, dtype=torch.float64)

    def diffusion(self, t: torch.Tensor) -> torch.Tensor:
        """2 t."""
        return 2 * t.double()

    @property
    def prior_std(self) -> float:
        """t_max."""
        return self.t_max
