"""From noise to data: DDPM, DDIM, Euler-Maruyama and Heun, each with one score or with an ensemble under a rule.

>>> import torch
>>> from dbn_core.generative.diffusion.mixture import ring
>>> from dbn_core.generative.diffusion.schedules import VP
>>> schedule, generator = VP(), torch.Generator().manual_seed(0)
>>> members = [ring(8).score(schedule), ring(7).score(schedule)]
>>> start = torch.randn(100, 2, generator=generator)
>>> one = sample_diffusion(members[:1], start, schedule, steps=20)
>>> two = sample_diffusion(members, start, schedule, steps=20, sampler="ddpm", rule="moe", generator=generator)
>>> one.shape, two.shape
(torch.Size([100, 2]), torch.Size([100, 2]))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import torch

from dbn_core.generative.aggregate import Rule, parse_rule
from dbn_core.generative.diffusion.process import Score, append_dims, randn_like
from dbn_core.generative.diffusion.schedules import VP

# Called with the step and the state x [B, ...] before each evaluation of the score.
Callback: TypeAlias = Callable[[int, torch.Tensor], None]


class Ensemble:
    """The score of M members at a common state, by a rule, for one batch of B trajectories.

    Where the rule follows one member for each example, only that member is run on it.

    Raises:
        SpecError: unknown rule.
        ValueError: the rule draws members and has no generator.
    """

    def __init__(
        self,
        members: Iterable[Score],
        rule: str | Rule,
        examples: int,
        generator: torch.Generator | None = None,
    ) -> None:
        self.members = list(members)
        self.rule = parse_rule(rule) if isinstance(rule, str) else rule
        self.state = self.rule.start(len(self.members), examples, generator)

    def __call__(self, x: torch.Tensor, t: torch.Tensor, step: int = 0) -> torch.Tensor:
        """Score at x [B, ...] and t [B].  At a new step, rules that draw members at every step draw again."""
        index = self.rule.choice(self.state, step)
        if index is None:
            return self.rule(torch.stack([member(x, t) for member in self.members]), self.state, step)
        result, index = torch.empty_like(x), index.to(x.device)
        for m in index.unique().tolist():
            result[index == m] = self.members[m](x[index == m], t[index == m])
        return result


# One step of a sampler: (score, schedule, x [B, ...], t, s) to x at time s, and the standard deviation of the noise to
# add to it, which is left out in the last step.
Step: TypeAlias = Callable[[Score, VP, torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, float]]


def euler_maruyama(
    score: Score, schedule: VP, x: torch.Tensor, t: torch.Tensor, s: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """Reverse SDE, dx = (f x - g^2 s) dt + g dW (Song et al., 2021, equation 6)."""
    f, g_squared, h = float(schedule.drift(t)), float(schedule.diffusion(t)), float(t - s)
    return x - h * (f * x - g_squared * score(x, t)), (g_squared * h) ** 0.5


def ddim_step(schedule: VP, x: torch.Tensor, denoised: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """From times t to s [B], along the noise that x and the denoised estimate [B, ...] imply (arXiv 2010.02502)."""
    ratio, rest = ddim_coefficients(schedule, t, s)
    return append_dims(ratio, x) * x + append_dims(rest, x) * denoised


def ddim_coefficients(schedule: VP, t: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """r = sigma_s / sigma_t and alpha_s - r alpha_t in x_s = r x_t + (alpha_s - r alpha_t) x_0."""
    ratio = schedule.sigma(s) / schedule.sigma(t)
    return ratio, schedule.alpha(s) - ratio * schedule.alpha(t)


def ddim(
    score: Score, schedule: VP, x: torch.Tensor, t: torch.Tensor, s: torch.Tensor, eta: float = 0.0
) -> tuple[torch.Tensor, float]:
    """DDIM; eta = 1 adds the variance of the posterior of x_s given x_t and x_0: DDPM's ancestral sampling."""
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    alpha_s, sigma_s = float(schedule.alpha(s)), float(schedule.sigma(s))
    noise = -sigma * score(x, t)
    denoised = (x - sigma * noise) / alpha
    fresh = eta**2 * (sigma_s / sigma) ** 2 * max(0.0, sigma**2 - (alpha / alpha_s * sigma_s) ** 2)
    return alpha_s * denoised + max(0.0, sigma_s**2 - fresh) ** 0.5 * noise, fresh**0.5


def heun(score: Score, schedule: VP, x: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Probability-flow ODE, dx/dt = f x - g^2 s / 2, by Heun's method: two scores a step (Karras et al., 2022)."""

    def velocity(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        half = float(schedule.diffusion(t)) / 2
        return float(schedule.drift(t)) * x - half * score(x, t)

    h = float(s - t)
    first = velocity(x, t)
    return x + h / 2 * (first + velocity(x + h * first, s)), 0.0


SAMPLERS: dict[str, Step] = {
    "ddpm": partial(ddim, eta=1.0),  # Ho et al., 2020
    "ddim": ddim,
    "euler-maruyama": euler_maruyama,
    "heun": heun,
}


@torch.no_grad()
def sample_diffusion(
    members: Sequence[Score],
    start: torch.Tensor,
    schedule: VP,
    steps: int,
    sampler: str = "ddim",
    rule: str | Rule = "arithmetic",
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> torch.Tensor:
    """Samples of M scores under a rule, from draws of the prior at t_max to t_min; of the shape of ``start`` [B, ...].

    Args:
        members: M scores.
        start: where trajectories start, standard normal.
        steps: on the schedule's grid.
        sampler: a key of :data:`SAMPLERS`; ``ddim`` and ``heun`` draw nothing.
        rule: how members are combined; with ``mean-predictions`` each has its own trajectory from the common start.
        generator: source of noise and of members.
        callback: see :data:`Callback`; with ``mean-predictions`` it is called along each member's trajectory.

    Raises:
        SpecError: unknown rule.
        ValueError: noise or members are drawn, and there is no generator.
    """
    rule = parse_rule(rule) if isinstance(rule, str) else rule
    step, times = SAMPLERS[sampler], schedule.times(steps)

    def run(estimator: Ensemble) -> torch.Tensor:
        x = start
        for i, (t, s) in enumerate(pairwise(times)):
            x, std = step(partial(_score, estimator, i, callback), schedule, x, t, s)
            if std and i < steps - 1:
                x = x + std * randn_like(x, generator)
        return x

    if rule.pools == "states":
        return run(Ensemble(members, rule, len(start), generator))
    ends = [run(Ensemble([member], "arithmetic", len(start))) for member in members]
    return rule(torch.stack(ends), rule.start(len(members), len(start), generator), 0)


def _score(
    estimator: Ensemble, step: int, callback: Callback | None, x: torch.Tensor, time: torch.Tensor
) -> torch.Tensor:
    if callback is not None:
        callback(step, x)
    return estimator(x, time.to(x.device).expand(len(x)), step)
