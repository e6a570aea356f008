"""Log-likelihood by the probability-flow ODE (Song et al., 2021, equation 39).

>>> import torch
>>> from dbn_core.generative.diffusion.mixture import ring
>>> from dbn_core.generative.diffusion.schedules import VP
>>> truth = ring(modes=8, std=0.3)
>>> x = truth.sample(4, torch.Generator().manual_seed(0))
>>> found = log_likelihood(truth.score(VP()), VP(), x, steps=40)
>>> bool((found - truth.log_prob(x)).abs().max() < 0.05)
True
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from dbn_core.errors import SpecError
from dbn_core.generative.diffusion.process import Score
from dbn_core.generative.diffusion.samplers import Ensemble
from dbn_core.generative.diffusion.schedules import Schedule


def log_likelihood(
    score: Score,
    schedule: Schedule,
    x: torch.Tensor,
    steps: int = 100,
    probes: int = 0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """log p(x) in nats, float64 [B], by Runge and Kutta's method of fourth order on the schedule's grid.

    log p(x) = log p_T(x_T) + integral of the divergence of f x - g^2 s / 2, where the divergence is that of the score
    given, so also of an aggregated one.  It is the density at t_min, of data with that much noise.  A rule that follows
    one member a trajectory draws from the mixture of the members' densities, whose log is
    ``logsumexp_m log p_m(x) - log M``; the member that the ensemble drew plays no part in it.

    Args:
        score: of (x, t), or an :class:`Ensemble` for as many examples.
        x: [B, ...]; float64 is worth its time here.
        probes: 0 takes the exact divergence, one pass backwards a coordinate; otherwise the mean of as many Rademacher
            probes (Hutchinson), drawn once for a trajectory.
        generator: source of the probes.

    Raises:
        SpecError: an ensemble whose rule has no field that stays: members that alternate, or means of ends.
        ValueError: probes without a generator.
    """
    if isinstance(score, Ensemble) and (score.rule.draws == "step" or score.rule.pools == "ends"):
        raise SpecError(f"Rule '{score.rule}' has no density by an ODE: take 'moe' or a rule that draws nothing.")
    if probes and generator is None:
        raise ValueError("probes are drawn: pass a torch.Generator")
    if isinstance(score, Ensemble) and score.rule.draws == "trajectory":
        each = [log_likelihood(member, schedule, x, steps, probes, generator) for member in score.members]
        return torch.stack(each).logsumexp(0) - math.log(len(each))
    vectors = _basis(x) if not probes else _rademacher(x, probes, generator)

    def slope(x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        f, half = float(schedule.drift(t)), float(schedule.diffusion(t)) / 2
        at = t.to(x.device).expand(len(x))
        value, divergence = _divergence(score, x, at, vectors)
        return f * x - half * value, f * x[0].numel() - half * divergence / max(1, probes)

    times = schedule.times(steps).flip(0)
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for t, s in pairwise(times):
        h = float(s - t)
        v1, d1 = slope(x, t)
        v2, d2 = slope(x + h / 2 * v1, (t + s) / 2)
        v3, d3 = slope(x + h / 2 * v2, (t + s) / 2)
        v4, d4 = slope(x + h * v3, s)
        x = x + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        total = total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    std = schedule.prior_std
    prior = -(x.double() / std).square().flatten(1).sum(1) / 2 - x[0].numel() * math.log(std * math.sqrt(2 * math.pi))
    return prior + total


def bits_per_dimension(log_likelihood: torch.Tensor, dimensions: int) -> torch.Tensor:
    """-log p / (D ln 2), [B].  Add 7 for 256 integer levels that were scaled to [-1, 1]."""
    return -log_likelihood / (dimensions * math.log(2))


def _divergence(
    score: Score, x: torch.Tensor, t: torch.Tensor, vectors: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score [B, ...], and the sum over vectors v [V, B, ...] of v J v, float64 [B]."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = score(x, t)
        rows = [torch.autograd.grad(value, x, v, retain_graph=True)[0] for v in vectors]
    found = sum((row * v).flatten(1).sum(1, dtype=torch.float64) for row, v in zip(rows, vectors, strict=True))
    return value.detach(), torch.as_tensor(found)


def _basis(x: torch.Tensor) -> torch.Tensor:
    """Unit vectors [D, B, ...]."""
    size = x[0].numel()
    return torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *x.shape[1:]).expand(size, *x.shape)


def _rademacher(x: torch.Tensor, probes: int, generator: torch.Generator | None) -> torch.Tensor:
    assert generator is not None
    signs = torch.randint(2, (probes, *x.shape), generator=generator, device=generator.device)
    return (2 * signs - 1).to(x)
