"""The diffusion of a table: noise levels, sampling by any predictor of the noise, and its error.

Forward, in coded columns: x_t = alpha_t x_0 + sigma_t e, log alpha_t = -t² (beta_max - beta_min) / 4 - t beta_min / 2,
sigma_t² = 1 - alpha_t² (arXiv 2309.09968).  What predicts e from x_t is a subclass of :class:`TableDiffusion`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from dbn_core.generative.aggregate import Rule, RuleState
from dbn_core.generative.tabular.coding import Coding
from dbn_core.generative.tabular.data import Array, DataTable
from dbn_core.rng import generator, seed_for


@dataclass(frozen=True)
class NoiseLevels:
    """Noise levels of a table's diffusion; the defaults are ForestDiffusion's.

    Attributes:
        levels: noise levels, equally spaced from ``first_time`` to 1; a sample takes one prediction for each.
        duplicates: noised copies of each row at each level, to fit on.
        beta_min, beta_max: of the linear variance-preserving schedule.
        first_time: the lowest level, where the last step is Tweedie's.
    """

    levels: int = 50
    duplicates: int = 100
    beta_min: float = 0.1
    beta_max: float = 8.0
    first_time: float = 1e-3

    @property
    def times(self) -> Array:
        """Rising times of the levels, float64 [levels]."""
        return np.linspace(self.first_time, 1, self.levels)

    def beta(self, t: float) -> float:
        """Rate of the forward process."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def signal_and_noise(self, t: float) -> tuple[float, float]:
        """alpha_t and sigma_t."""
        log_alpha = -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2
        return math.exp(log_alpha), math.sqrt(-math.expm1(2 * log_alpha))

    def noised(self, clean: Array, level: int, seed: int) -> tuple[Array, Array, np.random.Generator]:
        """Noised rows float32 and their noise float64 [duplicates N, W] of a level, and the generator after them."""
        draws = np.random.default_rng(seed_for(purpose="tabular/fit", seed=seed, level=level))
        repeated = np.repeat(clean, self.duplicates, axis=0)
        noise = draws.standard_normal(repeated.shape)
        alpha, sigma = self.signal_and_noise(self.times[level])
        return (alpha * repeated + sigma * noise).astype(np.float32), noise, draws


@dataclass(frozen=True)
class TableDiffusion(ABC):
    """A fitted diffusion of a table, by one member or by an ensemble of M.

    Attributes:
        options: noise levels.
        coding: between the table and its coded columns.
    """

    options: NoiseLevels
    coding: Coding

    @property
    def members(self) -> int:
        """M."""
        return 1

    @abstractmethod
    def noise(self, level: int, x: torch.Tensor, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Predictions of each member at a level for x [N, W], float32 [M, N, W], with W = ``coding.width``.

        With ``chosen``, int64 [N], row n is predicted by member ``chosen[n]`` alone: [N, W].
        """

    @torch.no_grad()
    def sample(self, count: int, rule: Rule, *, seed: int) -> DataTable:
        """New rows, by the rule.

        The start and the injected noise depend on the seed alone, so rules are compared on the same draws.  With a rule
        that pools ends, each member has its own trajectory and noise, from a common start.
        """
        draws = generator(purpose="tabular/sample", seed=seed)
        members = self.members
        state = rule.start(members, count, generator(purpose="tabular/rule", seed=seed))
        start = torch.randn(count, self.coding.width, generator=draws)
        if rule.pools == "ends":
            own = torch.arange(members).repeat_interleave(count)
            starts = start.repeat(members, 1)
            ends = sample_table(lambda x, level, step: self.noise(level, x, own), starts, self.options, draws)
            x = rule(ends.reshape(members, count, -1), state, 0)
        else:
            x = sample_table(
                lambda x, level, step: self._combined(level, x, rule, state, step), start, self.options, draws
            )
        return self.coding.decode(x.double().numpy())

    def _combined(self, level: int, x: torch.Tensor, rule: Rule, state: RuleState, step: int) -> torch.Tensor:
        """The rule's prediction; a rule that follows one member an example runs that one alone."""
        chosen = rule.choice(state, step)
        return rule(self.noise(level, x), state, step) if chosen is None else self.noise(level, x, chosen)

    @torch.no_grad()
    def noise_error(self, table: DataTable, rule: Rule, *, seed: int, duplicates: int = 10) -> dict[str, Array]:
        """Error of the noise that the rule predicts for a table, with each row noised ``duplicates`` times a level.

        Each number is per level from the lowest, float64 [levels].  A rule that pools ends predicts no noise, and has
        none of them.  ``mse``: mean squared error per coordinate, the loss that was fitted.  ``rms``: root-mean-square
        of the prediction, below 1 where the size of the noise is under-estimated.  ``diversity``, of two members or
        more: mean squared distance of the members from their mean, by which the error of the mean is below the members'
        mean error (ambiguity identity).
        """
        if rule.pools == "ends":
            return {}
        clean = torch.from_numpy(self.coding.encode(table)).float().repeat(duplicates, 1)
        draws = generator(purpose="tabular/pointwise", seed=seed)
        choices = generator(purpose="tabular/pointwise/rule", seed=seed)
        found: dict[str, list[float]] = {"mse": [], "rms": [], "diversity": []}
        for level, t in enumerate(self.options.times):
            alpha, sigma = self.options.signal_and_noise(t)
            noise = torch.randn(clean.shape, generator=draws)
            values = self.noise(level, alpha * clean + sigma * noise)
            predicted = rule(values, rule.start(self.members, len(clean), choices), 0)
            found["mse"].append(float((predicted - noise).square().mean()))
            found["rms"].append(float(predicted.square().mean()) ** 0.5)
            if self.members > 1:
                found["diversity"].append(float((values - values.mean(0)).square().mean()))
        return {name: np.array(values) for name, values in found.items() if values}


def sample_table(
    estimator: Callable[[torch.Tensor, int, int], torch.Tensor],
    x: torch.Tensor,
    schedule: NoiseLevels,
    generator: torch.Generator,
) -> torch.Tensor:
    """Reverse Euler-Maruyama steps from the highest level down, and Tweedie's formula at the lowest.

    Args:
        estimator: noise [N, W] at (x, level, step).
        x: the start, standard normal [N, W].
        schedule: levels and rates.
        generator: source of the injected noise.
    """
    times = schedule.times
    for step, level in enumerate(range(schedule.levels - 1, -1, -1)):
        noise = estimator(x, level, step)
        alpha, sigma = schedule.signal_and_noise(times[level])
        if level > 0:
            h, beta = float(times[level] - times[level - 1]), schedule.beta(float(times[level]))
            drawn = torch.randn(x.shape, generator=generator)
            x = x + h * beta * (x / 2 - noise / sigma) + math.sqrt(beta * h) * drawn
    return (x - sigma * noise) / alpha


class RowSource(Protocol):
    """What makes rows: a :class:`TableDiffusion`, or one for each class."""

    def sample(self, count: int, rule: Rule, *, seed: int) -> DataTable:
        """New rows."""

    def noise_error(self, table: DataTable, rule: Rule, *, seed: int) -> dict[str, Array]:
        """Error of the predicted noise."""


class TablePredictor(nn.Module):
    """New rows of the table, as many as the input [B, D, 1, 1] has; torch's global generator seeds the draws."""

    def __init__(self, model: RowSource, rule: Rule) -> None:
        super().__init__()
        self.model, self.rule = model, rule

    def forward(self, examples: torch.Tensor) -> torch.Tensor:
        """Rows [B, D, 1, 1]; the values of ``examples`` are not used."""
        seed = int(torch.randint(2**31, (1,)))
        rows = self.model.sample(len(examples), self.rule, seed=seed).values
        return torch.from_numpy(rows).to(examples)[:, :, None, None]

    def noise_error(self, table: DataTable) -> dict[str, Array]:
        """As :meth:`TableDiffusion.noise_error`."""
        return self.model.noise_error(table, self.rule, seed=0)
