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
from dbn_core.generative.diffusion.schedules import VP


def log_likelihood(
    score: Score | Ensemble, schedule: VP, x: torch.Tensor, steps: int = 100, probes: torch.Tensor | None = None
) -> torch.Tensor:
    """log p(x) in nats, float64 [B], by the Runge-Kutta method of fourth order on the schedule's grid.

    log p(x) = log p_T(x_T) + integral of the divergence of f x - g^2 s / 2.  The divergence is that of the given score,
    aggregated or not.  It is exact, at one backward pass for each coordinate, or Hutchinson's unbiased estimate, the
    mean of e' J e over probes e of independent signs that are kept along the trajectory (Grathwohl et al., 2019, arXiv
    1810.01367), at one for each probe.  The density is that at t_min, of data with that much noise.

    A rule that follows one member a trajectory draws from the mixture of the members' densities, so its log-likelihood
    is ``logsumexp_m log p_m(x) - log M``, whichever member the ensemble drew.

    Args:
        score: function of (x, t), or an :class:`Ensemble` for B examples.
        x: [B, ...]; float64 is more accurate.
        probes: signs [P, B, ...] (:func:`rademacher`); None for the exact divergence.

    Raises:
        SpecError: the rule of an ensemble defines no constant field: members alternate, or ends are averaged.
    """
    if isinstance(score, Ensemble) and (score.rule.draws == "step" or score.rule.pools == "ends"):
        raise SpecError(f"Rule '{score.rule}' has no density by an ODE: take 'moe' or a rule that draws nothing.")
    if isinstance(score, Ensemble) and score.rule.draws == "trajectory":
        each = [log_likelihood(member, schedule, x, steps, probes) for member in score.members]
        return torch.stack(each).logsumexp(0) - math.log(len(each))
    dimensions = x[0].numel()

    def slope(x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        f, half = float(schedule.drift(t)), float(schedule.diffusion(t)) / 2
        value, divergence = _divergence(score, x, t.to(x.device).expand(len(x)), probes)
        return f * x - half * value, f * dimensions - half * divergence

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
    prior = -x.double().square().flatten(1).sum(1) / 2 - dimensions * math.log(math.sqrt(2 * math.pi))
    return prior + total


def rademacher(count: int, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Independent signs [count, B, ...] for x [B, ...]."""
    return torch.randint(2, (count, *x.shape), generator=generator, device=generator.device).to(x) * 2 - 1


def _divergence(
    score: Score | Ensemble, x: torch.Tensor, t: torch.Tensor, probes: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score [B, ...] and its divergence or the estimate of it, float64 [B]."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = score(x, t)
        divergence = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        if probes is None:
            for index in range(value[0].numel()):
                (row,) = torch.autograd.grad(value.flatten(1)[:, index].sum(), x, retain_graph=True)
                divergence += row.flatten(1)[:, index]
        else:
            for probe in probes:
                (row,) = torch.autograd.grad((value * probe).sum(), x, retain_graph=True)
                divergence += (row * probe).flatten(1).sum(1) / len(probes)
    return value.detach(), divergence
