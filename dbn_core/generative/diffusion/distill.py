"""Progressive distillation (Salimans and Ho, 2022, arXiv 2202.00512), and B-DENSE's student of K branches.

A student takes one step where its teacher takes K.  In B-DENSE (2026, arXiv 2602.15971) the student's last layer is
widened K-fold and branch k is held to the teacher's k-th state, not to the last alone; only the last branch samples.

>>> import torch
>>> from dbn_core.generative.diffusion.networks import ScoreMLP
>>> from dbn_core.generative.diffusion.process import ScoreModel
>>> from dbn_core.generative.diffusion.schedules import VP
>>> generator, network = torch.Generator().manual_seed(0), ScoreMLP(2)
>>> network.reset(generator)
>>> teacher = ScoreModel(network, VP())
>>> student, x_0 = widened(teacher, branches=2), torch.randn(16, 2, generator=generator)
>>> loss = distillation_loss(student, teacher, x_0, steps=8, substeps=2, weights=branch_weights(2), generator=generator)
>>> loss.shape, endpoint(student).branches(x_0, torch.ones(16)).shape
(torch.Size([]), torch.Size([1, 16, 2]))
>>> rounds(start=16, stop=2, substeps=2)
[8, 4, 2]
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import nn

from dbn_core.errors import SpecError
from dbn_core.generative.diffusion.fit import fit
from dbn_core.generative.diffusion.process import ScoreModel, beside, normal_like, perturb
from dbn_core.generative.diffusion.rounds import rounds as rounds
from dbn_core.generative.diffusion.samplers import ddim_coefficients, ddim_step

Update = Literal["own", "full"]


def branch_weights(branches: int, growth: float = 0.0, weights: Sequence[float] | None = None) -> torch.Tensor:
    """w_k for k = 1 ... K, float64 [K], with sum 1: proportional to exp(growth (k / K - 1)), or to a list.

    0 is uniform, and a large growth leaves the end point alone.  The form is ours: the paper searches the weights and
    sums up good ones by a curve of two numbers whose formula we do not know.

    Raises:
        SpecError: a list of another length, or with weights that are negative or all zero.
    """
    if weights is None:
        return (growth * torch.arange(1, branches + 1, dtype=torch.float64) / branches).softmax(0)
    found = torch.tensor(weights, dtype=torch.float64)
    if len(found) != branches or not bool((found >= 0).all()) or not 0 < float(found.sum()) < float("inf"):
        raise SpecError(
            f"Branch weights {list(weights)} do not fit {branches} branch(es): give one number of 0 or more for each, "
            "not all of them 0."
        )
    return found / found.sum()


def widened(model: ScoreModel, branches: int) -> ScoreModel:
    """A copy with K copies of the last layer of its last branch, so that each branch starts as the model itself.

    The network's last layer must be its attribute ``out``, a linear layer or convolution of C channels a branch, and C
    its attribute ``channels``.
    """
    return _with_head(model, lambda rows, channels: rows[-channels:].repeat(branches, *[1] * (rows.ndim - 1)))


def endpoint(model: ScoreModel) -> ScoreModel:
    """A copy of the last branch alone: what samples, at the cost of a network that never had branches."""
    return _with_head(model, lambda rows, channels: rows[-channels:])


def _with_head(model: ScoreModel, change: Callable[[torch.Tensor, int], torch.Tensor]) -> ScoreModel:
    model = copy.deepcopy(model)
    network: Any = model.network
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
    update: Update = "own",
) -> torch.Tensor:
    """``sum_k w_k max(alpha_t^2 / sigma_t^2, 1) || x_k - x~_k ||^2``, mean over coordinates and batch.

    One grid of ``steps * substeps`` times serves both, every K-th of which is the student's.  The target x~_k is
    the data that DDIM would have to be told to land on y_k:  x~_k = (y_k - r x_t) / (alpha_k - r alpha_t), with
    r = sigma_k / sigma_t.  A student of one branch is held to the end point alone: progressive distillation.

    Args:
        student: K branches, or one; its data estimate x_k is what each branch says at the first time t.
        teacher: its last branch is used, and no gradient reaches it.
        x_0: data [B, ...].
        steps: of the student, S.
        substeps: K, steps of the teacher for one of the student.
        weights: [number of branches], as from :func:`branch_weights`.
        generator: source of noise and of steps, uniform on the S.
        update: ``own`` lets branch k step to the time of y_k, so that it starts near its target; ``full`` lets all step
            to the last time, as the released code does.

    Raises:
        SpecError: a number of branches that is neither one nor K, or of weights that is not theirs.
    """
    schedule = student.schedule
    first = substeps * torch.randint(steps, (len(x_0),), generator=generator, device=generator.device)
    grid = schedule.times(steps * substeps)
    times = torch.stack([grid[first.cpu() + k] for k in range(substeps + 1)]).to(x_0.device)  # [K + 1, B]
    x_t = perturb(schedule, x_0, times[0], normal_like(x_0, generator))
    outputs = student.branches(x_t, times[0])
    if len(outputs) not in (1, substeps) or len(weights) != len(outputs):
        raise SpecError(
            f"A student of {len(outputs)} branch(es) with {len(weights)} weight(s) cannot learn from {substeps} "
            f"sub-steps: take {substeps} branches or one, and as many weights."
        )
    states = teacher_states(teacher, x_t, times)
    total = x_0.new_zeros(len(x_0))
    for k in range(substeps - len(outputs), substeps):
        own = times[k + 1 if update == "own" else substeps]
        ratio, rest = ddim_coefficients(schedule, times[0], own)
        target = (states[k] - beside(ratio, x_t) * x_t) / beside(rest, x_t)
        place = k - substeps + len(outputs)
        error = student.to_data(outputs[place], x_t, times[0]) - target
        total = total + float(weights[place]) * error.square().flatten(1).mean(1)
    snr = (schedule.alpha(times[0]) / schedule.sigma(times[0])).square()
    return (snr.clamp_min(1).to(total) * total).mean()


def distil(
    teacher: ScoreModel,
    draw: Callable[[], torch.Tensor],
    students: Iterable[int],
    updates: int,
    generator: torch.Generator,
    substeps: int = 2,
    weights: torch.Tensor | None = None,
    learning_rate: float = 2e-4,
    update: Update = "own",
) -> list[ScoreModel]:
    """Round after round, each student the teacher of the next: the endpoint models of all rounds.

    Args:
        draw: gives a batch of data.
        students: their steps, as from :func:`rounds`.
        weights: [K] for B-DENSE; ``None`` is progressive distillation, with one branch.

    Raises:
        SpecError: as :func:`distillation_loss`; the teacher predicts noise, of which a single step keeps nothing.
    """
    if teacher.prediction == "noise":
        raise SpecError(
            "Distillation of steps takes a teacher that predicts 'x' or 'v', not 'noise': train such a one."
        )
    branches, weights = (1, branch_weights(1)) if weights is None else (len(weights), weights)
    teacher, found = endpoint(teacher).eval(), []
    for steps in students:
        student = widened(teacher, branches)

        def loss(student: ScoreModel = student, teacher: ScoreModel = teacher, steps: int = steps) -> torch.Tensor:
            return distillation_loss(student, teacher, draw(), steps, substeps, weights, generator, update)

        fit(student, loss, updates, learning_rate)
        teacher = endpoint(student)
        found.append(teacher)
    return found
