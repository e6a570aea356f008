"""From noise to data: DDPM, DDIM, Euler-Maruyama and Heun, each with one score or with an ensemble under a rule.

>>> import torch
>>> from dbn_core.generative.diffusion.mixture import ring
>>> from dbn_core.generative.diffusion.schedules import VP
>>> schedule, generator = VP(), torch.Generator().manual_seed(0)
>>> members = [ring(8).score(schedule), ring(7).score(schedule)]
>>> start = schedule.prior((100, 2), generator)
>>> one = sample(members[0], schedule, start, steps=20)
>>> two = sample(members, schedule, start, steps=20, sampler="ddpm", rule="moe", generator=generator)
>>> one.shape, two.shape
(torch.Size([100, 2]), torch.Size([100, 2]))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from dbn_core.errors import SpecError, did_you_mean
from dbn_core.generative.aggregate import Rule, parse_rule
from dbn_core.generative.diffusion.process import Score, normal_like
from dbn_core.generative.diffusion.schedules import Schedule


class Ensemble:
    """The score of M members at a common state, by a rule, for one batch of B trajectories.

    Where the rule follows one member for each example, only that member is run on it.

    Raises:
        SpecError: unknown rule, or too few members for it.
        ValueError: the rule draws members and has no generator.
    """

    def __init__(
        self,
        members: Sequence[Score] | nn.ModuleList,
        rule: str | Rule,
        examples: int,
        generator: torch.Generator | None = None,
    ) -> None:
        self.members: list[Any] = list(members)
        self.rule = parse_rule(rule) if isinstance(rule, str) else rule
        self.state = self.rule.start(len(self.members), examples, generator)

    def __call__(self, x: torch.Tensor, t: torch.Tensor, step: int = 0) -> torch.Tensor:
        """Score at x [B, ...] and t [B] at a step of a sampler, whose number tells rules when to draw anew."""
        index = self.rule.choice(self.state, step)
        if index is None:
            return self.rule(torch.stack([member(x, t) for member in self.members]), self.state, step)
        result, index = torch.empty_like(x), index.to(x.device)
        for m in index.unique().tolist():
            result[index == m] = self.members[m](x[index == m], t[index == m])
        return result


def _at(time: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return time.to(x.device).expand(len(x))


def euler_maruyama(
    field: Ensemble, schedule: Schedule, x: torch.Tensor, times: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Reverse SDE, dx = (f x - g^2 s) dt + g dW (Song et al., 2021, equation 6); no noise in the last step."""
    for i, (t, s) in enumerate(pairwise(times)):
        f, g_squared, h = float(schedule.drift(t)), float(schedule.diffusion(t)), float(t - s)
        x = x - h * (f * x - g_squared * field(x, _at(t, x), i))
        if i < len(times) - 2:
            x = x + (g_squared * h) ** 0.5 * normal_like(x, generator)
    return x


def ddim_step(
    schedule: Schedule, x: torch.Tensor, denoised: torch.Tensor, t: torch.Tensor, s: torch.Tensor
) -> torch.Tensor:
    """From time t to s along the noise that x and the denoised estimate imply (Song et al., 2021, arXiv 2010.02502).

    Args:
        x, denoised: [B, ...].
        t, s: one time for all, or [B] of them.
    """
    ratio, rest = ddim_coefficients(schedule, t, s)
    shape = (-1, *[1] * (x.ndim - 1))
    return ratio.to(x).reshape(shape) * x + rest.to(x).reshape(shape) * denoised


def ddim_coefficients(schedule: Schedule, t: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """r = sigma_s / sigma_t and alpha_s - r alpha_t in x_s = r x_t + (alpha_s - r alpha_t) x_0."""
    ratio = schedule.sigma(s) / schedule.sigma(t)
    return ratio, schedule.alpha(s) - ratio * schedule.alpha(t)


def ddim(
    field: Ensemble,
    schedule: Schedule,
    x: torch.Tensor,
    times: torch.Tensor,
    generator: torch.Generator | None = None,
    eta: float = 0.0,
) -> torch.Tensor:
    """DDIM; eta = 1 adds the variance of the posterior of x_s given x_t and x_0: DDPM's ancestral sampling."""
    for i, (t, s) in enumerate(pairwise(times)):
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        alpha_s, sigma_s = float(schedule.alpha(s)), float(schedule.sigma(s))
        noise = -sigma * field(x, _at(t, x), i)
        denoised = (x - sigma * noise) / alpha
        fresh = eta**2 * (sigma_s / sigma) ** 2 * max(0.0, sigma**2 - (alpha / alpha_s * sigma_s) ** 2)
        x = alpha_s * denoised + max(0.0, sigma_s**2 - fresh) ** 0.5 * noise
        if eta and i < len(times) - 2:
            x = x + fresh**0.5 * normal_like(x, generator)
    return x


def ddpm(
    field: Ensemble, schedule: Schedule, x: torch.Tensor, times: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Ancestral sampling with the posterior's variance (Ho et al., 2020); no noise in the last step."""
    return ddim(field, schedule, x, times, generator, eta=1.0)


def heun(
    field: Ensemble, schedule: Schedule, x: torch.Tensor, times: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Probability-flow ODE, dx/dt = f x - g^2 s / 2, by Heun's method: two scores a step (Karras et al., 2022)."""

    def velocity(x: torch.Tensor, t: torch.Tensor, step: int) -> torch.Tensor:
        return float(schedule.drift(t)) * x - float(schedule.diffusion(t)) / 2 * field(x, _at(t, x), step)

    for i, (t, s) in enumerate(pairwise(times)):
        h = float(s - t)
        first = velocity(x, t, i)
        x = x + h / 2 * (first + velocity(x + h * first, s, i))
    return x


Sampler = Callable[[Ensemble, Schedule, torch.Tensor, torch.Tensor, torch.Generator | None], torch.Tensor]
SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "euler-maruyama": euler_maruyama, "heun": heun}


@torch.no_grad()
def sample(
    scores: Score | Sequence[Score] | nn.ModuleList,
    schedule: Schedule,
    start: torch.Tensor,
    steps: int,
    sampler: str = "ddim",
    rule: str | Rule = "arithmetic",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Walk from draws of the prior at t_max to t_min; the shape of ``start`` [B, ...] is kept.

    Args:
        scores: one score, or M of them.
        start: where trajectories start, as from :meth:`Schedule.prior`.
        steps: on the schedule's grid.
        sampler: a key of :data:`SAMPLERS`; ``ddim`` and ``heun`` draw nothing.
        rule: how members are put together; with ``mean-predictions`` each goes its own way from the common start.
        generator: source of noise and of members.

    Raises:
        SpecError: unknown sampler or rule, too few members or steps.
        ValueError: something is drawn, and there is no generator.
    """
    if sampler not in SAMPLERS:
        raise SpecError(f"Unknown sampler '{sampler}'{did_you_mean(sampler, SAMPLERS)}.")
    members: list[Any] = list(scores) if isinstance(scores, Sequence | nn.ModuleList) else [scores]
    rule = parse_rule(rule) if isinstance(rule, str) else rule
    walk, times = SAMPLERS[sampler], schedule.times(steps)
    if rule.pools == "states":
        return walk(Ensemble(members, rule, len(start), generator), schedule, start, times, generator)
    ends = [walk(Ensemble([m], "arithmetic", len(start)), schedule, start, times, generator) for m in members]
    return rule(torch.stack(ends), rule.start(len(members), len(start), generator), 0)
