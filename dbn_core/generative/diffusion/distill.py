"""Progressive distillation (Salimans and Ho, 2022, arXiv 2202.00512), and the students of B-DENSE with K branches.

A student does in one step what its teacher does in K.  In B-DENSE (2026, arXiv 2602.15971) the student's last layer is
widened K-fold, and branch k learns the teacher's k-th state.  A plain student learns the last state alone.  Only the
last branch samples.

>>> import torch
>>> from dbn_core.generative.diffusion.networks import ScoreMLP
>>> from dbn_core.generative.diffusion.process import ScoreModel
>>> from dbn_core.generative.diffusion.schedules import VP
>>> generator, network = torch.Generator().manual_seed(0), ScoreMLP(2)
>>> network.reset(generator)
>>> teacher = ScoreModel(network, VP())
>>> student, x_0 = widened(teacher, branches=2), torch.randn(16, 2, generator=generator)
>>> loss = distillation_loss(student, teacher, x_0, 8, 2, branch_loss_weights(2), generator)
>>> loss.shape, last_branch(student).branches(x_0, torch.ones(16)).shape
(torch.Size([]), torch.Size([1, 16, 2]))
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol, TypeVar, cast

import torch
from torch import nn

from dbn_core.generative.diffusion.process import ScoreModel, add_noise, append_dims, randn_like
from dbn_core.generative.diffusion.samplers import ddim_coefficients, ddim_step

S = TypeVar("S", bound=ScoreModel)


class _Widenable(Protocol):
    """A network whose last layer has ``channels`` outputs a branch."""

    out: nn.Linear | nn.Conv2d
    channels: int


def branch_loss_weights(branches: int, growth: float = 0.0) -> torch.Tensor:
    """w_k for k = 1 ... K, float64 [K], with sum 1: proportional to exp(growth (k / K - 1)).

    0 is uniform; a large growth leaves the last state alone.  The form is ours: the paper searches the weights and
    describes good ones by a curve with two numbers, whose formula it does not give.
    """
    return (growth * torch.arange(1, branches + 1, dtype=torch.float64) / branches).softmax(0)


def widened(model: S, branches: int) -> S:
    """A copy with K copies of the last layer of its last branch, so that each branch starts as the model itself.

    The network's last layer must be its attribute ``out``, a linear layer or convolution with C channels a branch, and
    C its attribute ``channels``.
    """
    return _with_head(model, lambda rows, channels: rows[-channels:].repeat(branches, *[1] * (rows.ndim - 1)))


def last_branch(model: S) -> S:
    """A copy with the last branch alone: it samples at the cost of a network without branches."""
    return _with_head(model, lambda rows, channels: rows[-channels:])


def _with_head(model: S, change: Callable[[torch.Tensor, int], torch.Tensor]) -> S:
    model = copy.deepcopy(model)
    network = cast(_Widenable, model.network)
    out = network.out
    with torch.no_grad():
        weight = change(out.weight, network.channels)
        out.weight = nn.Parameter(weight.clone())
        if out.bias is not None:
            out.bias = nn.Parameter(change(out.bias, network.channels).clone())
    setattr(out, "out_channels" if isinstance(out, nn.Conv2d) else "out_features", len(weight))
    return model


@torch.no_grad()
def teacher_states(teacher: ScoreModel, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """States y_1 ... y_K of K steps of DDIM from x [B, ...] through times float64 [K + 1, B]: [K, B, ...]."""
    states = []
    for t, s in pairwise(times):
        x = ddim_step(teacher.schedule, x, teacher.denoised(x, t), t, s)
        states.append(x)
    return torch.stack(states)


def distillation_loss(
    student: ScoreModel,
    teacher: ScoreModel,
    x_0: torch.Tensor,
    steps: int,
    substeps: int,
    weights: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """``sum_k w_k max(alpha_t^2 / sigma_t^2, 1) || x_k - x~_k ||^2``, mean over coordinates and batch.

    Student and teacher share one grid of ``steps * substeps`` times; every K-th time is one of the student's.  The
    target x~_k is the data estimate with which one DDIM step lands on y_k:  x~_k = (y_k - r x_t) / (alpha_k - r
    alpha_t), with r = sigma_k / sigma_t.  Branch k steps to the time of y_k, so that it starts near its target; the
    paper's released code lets all branches step to the last time.  A student with one branch learns the last state
    alone, which is progressive distillation.

    Args:
        student: K branches, or one; x_k is the data estimate of branch k at the first time t.
        teacher: its last branch is used; it gets no gradient.
        x_0: data [B, ...].
        steps: of the student, S.
        substeps: K, steps of the teacher for one of the student.
        weights: [number of branches], as from :func:`branch_loss_weights`.
        generator: source of noise and of steps, uniform on the S.
    """
    schedule = student.schedule
    first = substeps * torch.randint(steps, (len(x_0),), generator=generator, device=generator.device)
    grid = schedule.times(steps * substeps)
    times = torch.stack([grid[first.cpu() + k] for k in range(substeps + 1)]).to(x_0.device)  # [K + 1, B]
    x_t = add_noise(schedule, x_0, times[0], randn_like(x_0, generator))
    outputs = student.branches(x_t, times[0])
    states = teacher_states(teacher, x_t, times)
    total = x_0.new_zeros(len(x_0))
    for k, output, weight in zip(range(substeps - len(outputs), substeps), outputs, weights.tolist(), strict=True):
        ratio, rest = ddim_coefficients(schedule, times[0], times[k + 1])
        target = (states[k] - append_dims(ratio, x_t) * x_t) / append_dims(rest, x_t)
        error = student.to_data(output, x_t, times[0]) - target
        total = total + weight * error.square().flatten(1).mean(1)
    snr = (schedule.alpha(times[0]) / schedule.sigma(times[0])).square()
    return (snr.clamp_min(1).to(total) * total).mean()
