"""Denoising score matching: the loss that trains a score, and that measures one on held-out data.

>>> import torch
>>> from dbn_core.generative.diffusion.mixture import ring
>>> from dbn_core.generative.diffusion.schedules import VP
>>> generator, truth = torch.Generator().manual_seed(0), ring(modes=8)
>>> x_0 = truth.sample(2000, generator)
>>> best = held_out_loss(truth.score(VP()), VP(), x_0, generator).mean()
>>> worse = held_out_loss(lambda x, t: -x, VP(), x_0, generator).mean()  # the score of pure noise
>>> bool(best < worse)
True
"""

from __future__ import annotations

from typing import Literal

import torch

from dbn_core.errors import SpecError, did_you_mean
from dbn_core.generative.diffusion.process import Score, beside, normal_like, perturb
from dbn_core.generative.diffusion.schedules import Schedule

Weight = Literal["noise", "x", "v", "truncated-snr"]

# Factors of the squared error of the noise, as functions of q = sigma^2 / alpha^2: the error of the data is q times it.
WEIGHTS = {
    "noise": torch.ones_like,  # || sigma s + e ||^2, the usual one
    "x": lambda q: q,
    "v": lambda q: 1 + q,
    "truncated-snr": lambda q: q.clamp_min(1),  # max(alpha^2 / sigma^2, 1) on the data (Salimans and Ho, 2022)
}


def dsm_loss(
    score: Score,
    schedule: Schedule,
    x_0: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
    weight: Weight = "noise",
) -> torch.Tensor:
    """``w(t) * || sigma_t s(x_t, t) + noise ||^2``, mean over coordinates, for each example: [B].

    Args:
        score: of (x, t); what a network predicts does not matter, since every prediction is a score.
        x_0: data [B, ...].
        t: times [B].
        noise: standard normal [B, ...].
        weight: whose squared error is meant: of the noise, of the data, of v, or the truncated one of distillation.

    Raises:
        SpecError: unknown weight.
    """
    if weight not in WEIGHTS:
        raise SpecError(f"Unknown weight '{weight}'{did_you_mean(weight, WEIGHTS)}.")
    sigma = schedule.sigma(t)
    error = beside(sigma, x_0) * score(perturb(schedule, x_0, t, noise), t) + noise
    factor = WEIGHTS[weight]((sigma / schedule.alpha(t)).square())
    return factor.to(x_0) * error.square().flatten(1).mean(1)


def draw_times(schedule: Schedule, count: int, generator: torch.Generator) -> torch.Tensor:
    """Times of training, float64 [count]: uniform where the schedule's grid is (in t^(1/rho)), stratified.

    One of ``count`` equal parts belongs to each example, in random order, which takes variance from the loss.
    """
    place = torch.randperm(count, generator=generator, device=generator.device)
    part = (place + torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)) / count
    high, low = (end ** (1 / schedule.rho) for end in (schedule.t_max, schedule.t_min))
    return (low + part * (high - low)) ** schedule.rho


def training_loss(
    score: Score, schedule: Schedule, x_0: torch.Tensor, generator: torch.Generator, weight: Weight = "noise"
) -> torch.Tensor:
    """:func:`dsm_loss` at drawn times and noise, mean over the batch."""
    t = draw_times(schedule, len(x_0), generator).to(x_0.device)
    return dsm_loss(score, schedule, x_0, t, normal_like(x_0, generator), weight).mean()


@torch.no_grad()
def held_out_loss(
    score: Score, schedule: Schedule, x_0: torch.Tensor, generator: torch.Generator, draws: int = 1
) -> torch.Tensor:
    """The loss ``|| sigma s + e ||^2`` per coordinate of each example, [B], mean of ``draws`` of time and noise."""
    losses = [
        dsm_loss(score, schedule, x_0, draw_times(schedule, len(x_0), generator).to(x_0.device), noise)
        for noise in (normal_like(x_0, generator) for _ in range(draws))
    ]
    return torch.stack(losses).mean(0)
