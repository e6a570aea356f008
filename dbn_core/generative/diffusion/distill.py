"""Progressive distillation (Salimans and Ho, 2022, arXiv 2202.00512), and the students of B-DENSE with K branches.

A student does in one step what its teacher does in K.  In B-DENSE (2026, arXiv 2602.15971) the student's last layer is
widened K-fold, and branch k learns the teacher's k-th state.  A plain student learns the last state alone.  Only the
last branch samples.  :mod:`~dbn_core.generative.diffusion.sfd` distils along the student's own path.

>>> import torch
>>> from dbn_core.generative.diffusion.networks import ScoreMLP
>>> from dbn_core.generative.diffusion.process import ScoreModel
>>> from dbn_core.generative.diffusion.schedules import VP
>>> generator, network = torch.Generator().manual_seed(0), ScoreMLP(2)
>>> network.reset(generator)
>>> teacher = ScoreModel(network, VP())
>>> student, x_0 = widened(teacher, branches=2), torch.randn(16, 2, generator=generator)
>>> loss = distillation_loss(student, teacher, x_0, 8, 2, BranchLoss(branch_loss_weights(2)), generator)
>>> loss.shape, last_branch(student).branches(x_0, torch.ones(16)).shape
(torch.Size([]), torch.Size([1, 16, 2]))
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Protocol, TypeAlias, TypeVar, cast

import torch
from torch import nn

from dbn_core.generative.diffusion.process import ScoreModel, add_noise, append_dims, randn_like
from dbn_core.generative.diffusion.samplers import ddim_coefficients, ddim_step

S = TypeVar("S", bound=ScoreModel)
Distance: TypeAlias = Literal["l2", "l1"]
Update: TypeAlias = Literal["own", "full"]


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


@dataclass(frozen=True)
class BranchLoss:
    """``sum_k w_k d(x_k, y_k)``: how far the states of K branches are from the teacher's.

    Attributes:
        weights: w_k, float64 [K]; one weight for a student that learns the last state alone.
        distance: d, the mean over coordinates of squares (``l2``) or of absolute values (``l1``).
        update: ``own``: branch k steps to the time of y_k, so that a copy of the teacher's last layer starts near its
            target; ``full``: all branches step to the last time, as in the paper's released code, and branch k
            learns the output that lands on y_k from there.
    """

    weights: torch.Tensor
    distance: Distance = "l2"
    update: Update = "own"

    def errors(
        self, student: ScoreModel, x: torch.Tensor, times: torch.Tensor, states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """For each branch, its data estimate minus the one with which its step lands on the teacher's state.

        A step is DDIM's, ``x_k = r x + c x_0``, so the target is ``(y_k - r x) / c``.  Multiplied by c, the error is
        that of the state.

        Args:
            student: K branches, or fewer, which learn the last states.
            x: where the step starts, [B, ...].
            times: float64 [K + 1, B].
            states: of the teacher, [K, B, ...], as from :func:`teacher_states`.

        Returns:
            errors [K, B, ...], and c, float64 [K, B].
        """
        outputs, errors, scales = student.branches(x, times[0]), [], []
        for k, output in enumerate(outputs, len(states) - len(outputs)):
            ratio, scale = ddim_coefficients(student.schedule, times[0], times[-1 if self.update == "full" else k + 1])
            target = (states[k] - append_dims(ratio, x) * x) / append_dims(scale, x)
            errors.append(student.to_data(output, x, times[0]) - target)
            scales.append(scale)
        return torch.stack(errors), torch.stack(scales)

    def total(self, errors: torch.Tensor) -> torch.Tensor:
        """The weighted distance for each example, [B], of errors [K, B, ...].

        Raises:
            ValueError: there are not as many weights as branches.
        """
        total = errors.new_zeros(errors.shape[1])
        for error, weight in zip(errors, self.weights.tolist(), strict=True):
            total = total + weight * (error.square() if self.distance == "l2" else error.abs()).flatten(1).mean(1)
        return total


def distillation_loss(
    student: ScoreModel,
    teacher: ScoreModel,
    x_0: torch.Tensor,
    steps: int,
    substeps: int,
    loss: BranchLoss,
    generator: torch.Generator,
) -> torch.Tensor:
    """``sum_k w_k max(alpha_t^2 / sigma_t^2, 1) || x_k - x~_k ||^2``, mean over coordinates and batch.

    Student and teacher share one grid of ``steps * substeps`` times; every K-th time is one of the student's.  x_k is
    the data estimate of branch k at the first time t, and x~_k the one with which its DDIM step lands on y_k
    (:meth:`BranchLoss.errors`).  A student with one branch learns the last state alone, which is progressive
    distillation.  With the distance ``l1`` the factor is ``max(alpha_t / sigma_t, 1)``.

    Args:
        student: K branches, or one.
        teacher: its last branch is used; it gets no gradient.
        x_0: data [B, ...].
        steps: of the student, S.
        substeps: K, steps of the teacher for one of the student.
        loss: weights of the branches, distance and update.
        generator: source of noise and of steps, uniform on the S.
    """
    schedule = student.schedule
    first = substeps * torch.randint(steps, (len(x_0),), generator=generator, device=generator.device)
    grid = schedule.times(steps * substeps)
    times = torch.stack([grid[first.cpu() + k] for k in range(substeps + 1)]).to(x_0.device)  # [K + 1, B]
    x_t = add_noise(schedule, x_0, times[0], randn_like(x_0, generator))
    errors, _ = loss.errors(student, x_t, times, teacher_states(teacher, x_t, times))
    total = loss.total(errors)
    snr = (schedule.alpha(times[0]) / schedule.sigma(times[0])).square()
    factor = snr.clamp_min(1) if loss.distance == "l2" else snr.sqrt().clamp_min(1)
    return (factor.to(total) * total).mean()


@torch.no_grad()
def branch_report(
    student: ScoreModel, teacher: ScoreModel, noise: torch.Tensor, steps: int, substeps: int, loss: BranchLoss
) -> dict[str, float]:
    """How well branches reproduce the teacher, from the same noise [B, ...]; in units of standardised data.

    ``branch_k_mse``: mean squared error of branch k against the teacher's k-th state in a step, from the teacher's
    state at the beginning of the step; mean over the S steps.  ``end_mse``: that of the student's sample against the
    teacher's, S steps against S K.  ``kappa``: largest distance of the teacher's states in a step from those of one
    DDIM step with the same end, relative to the step's length; near 0 the states add nothing to the end.
    """
    schedule, x = teacher.schedule, noise
    grid = schedule.times(steps * substeps).to(noise.device)
    squares: list[torch.Tensor] = []
    bends: list[torch.Tensor] = []
    own = noise
    for first in range(0, steps * substeps, substeps):
        times = grid[first : first + substeps + 1, None].expand(-1, len(x))
        states = teacher_states(teacher, x, times)
        errors, scales = loss.errors(student, x, times, states)
        squares.append(
            torch.stack([(append_dims(c, e) * e).square().mean() for c, e in zip(scales, errors, strict=True)])
        )
        ratio, scale = ddim_coefficients(schedule, times[0], times[-1])
        straight = (states[-1] - append_dims(ratio, x) * x) / append_dims(scale, x)
        off = [
            (y - ddim_step(schedule, x, straight, times[0], s)).flatten(1).norm(dim=1)
            for y, s in zip(states, times[1:], strict=True)
        ]
        bends.append(torch.stack(off).amax(0) / (states[-1] - x).flatten(1).norm(dim=1))
        own = ddim_step(schedule, own, student.denoised(own, times[0]), times[0], times[-1])
        x = states[-1]
    mse = torch.stack(squares).mean(0).tolist()
    found = {f"branch_{k}_mse": value for k, value in enumerate(mse, substeps - len(mse) + 1)}
    return found | {"end_mse": float((own - x).square().mean()), "kappa": float(torch.stack(bends).mean())}
