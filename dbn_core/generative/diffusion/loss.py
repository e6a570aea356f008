"""Denoising score matching: the loss that trains a score.

>>> import torch
>>> from dbn_core.generative.diffusion.mixture import ring
>>> from dbn_core.generative.diffusion.schedules import VP
>>> truth = ring(modes=8)
>>> x_0 = truth.sample(2000, torch.Generator().manual_seed(0))
>>> best = training_loss(truth.score(VP()), VP(), x_0, torch.Generator().manual_seed(1))
>>> worse = training_loss(lambda x, t: -x, VP(), x_0, torch.Generator().manual_seed(1))  # the score of pure noise
>>> bool(best < worse)
True
"""

from __future__ import annotations

import torch

from dbn_core.generative.diffusion.process import Score, add_noise, append_dims, randn_like
from dbn_core.generative.diffusion.schedules import VP


def dsm_loss(score: Score, schedule: VP, x_0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """``|| sigma_t s(x_t, t) + noise ||^2``, the mean over coordinates, for each example: [B].

    Args:
        score: function of (x, t).
        x_0: data [B, ...].
        t: times [B].
        noise: standard normal [B, ...].
    """
    error = append_dims(schedule.sigma(t), x_0) * score(add_noise(schedule, x_0, t, noise), t) + noise
    return error.square().flatten(1).mean(1)


def draw_times(schedule: VP, count: int, generator: torch.Generator) -> torch.Tensor:
    """Times of training, float64 [count]: uniform, stratified.

    Each example gets one of ``count`` equal intervals, in random order, which lowers the variance of the loss.
    """
    place = torch.randperm(count, generator=generator, device=generator.device)
    part = (place + torch.rand(count, generator=generator, device=generator.device, dtype=torch.float64)) / count
    return schedule.t_min + part * (schedule.t_max - schedule.t_min)


def training_loss(score: Score, schedule: VP, x_0: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """:func:`dsm_loss` at drawn times and noise, mean over the batch."""
    t = draw_times(schedule, len(x_0), generator).to(x_0.device)
    return dsm_loss(score, schedule, x_0, t, randn_like(x_0, generator)).mean()
