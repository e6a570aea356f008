"""Distillation along the student's own path: SFD (Zhou et al., 2024, arXiv 2409.19681), with or without branches.

The student starts from the teacher and takes S steps from noise, the teacher S K.  No data are needed.  One trajectory
of the teacher serves S updates: in update j the student steps from where its own steps have led it, and its loss is the
L1 distance to the teacher's state at that time; what it reached, without gradient, is where update j + 1 starts.  With
B-DENSE (arXiv 2602.15971, algorithm 4) branch k learns the teacher's k-th state in the step, and the last branch leads
on.

Different from the paper and its code: a variance-preserving process and networks that predict v, in the place of EDM's;
a grid of equal distances in t, in the place of the polynomial one with rho = 7; DDIM as solver of the teacher (in EDM's
coordinates it is Euler's method), in the place of DPM-Solver++(3M); no analytical first step, so that S steps are S
evaluations; the mean over coordinates, in the place of the sum.

>>> import torch
>>> from dbn_core.generative.diffusion.distill import BranchLoss, branch_loss_weights, widened
>>> from dbn_core.generative.diffusion.networks import ScoreMLP
>>> from dbn_core.generative.diffusion.process import ScoreModel
>>> from dbn_core.generative.diffusion.schedules import VP
>>> generator, network = torch.Generator().manual_seed(0), ScoreMLP(2)
>>> network.reset(generator)
>>> teacher = ScoreModel(network, VP())
>>> path = OwnPath(widened(teacher, branches=4), (16, 2), steps=2, substeps=4)
>>> loss = BranchLoss(branch_loss_weights(4), "l1")
>>> [path.loss(teacher, loss, generator).shape for update in range(3)]  # the third starts a new trajectory
[torch.Size([]), torch.Size([]), torch.Size([])]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dbn_core.generative.diffusion.distill import BranchLoss, teacher_states
from dbn_core.generative.diffusion.process import ScoreModel, append_dims, randn_like


class OwnPath(nn.Module):
    """A student on its way from noise to data, next to its teacher.

    Where it stands is in buffers, so that a checkpoint of this module resumes to the same bits.

    Args:
        student: K branches, or one.
        shape: of a batch of states, [B, ...].
        steps: of the student, S.
        substeps: K, steps of the teacher for one of the student.
    """

    x: torch.Tensor
    states: torch.Tensor
    step: torch.Tensor

    def __init__(self, student: ScoreModel, shape: Sequence[int], steps: int, substeps: int) -> None:
        super().__init__()
        self.student, self.steps, self.substeps = student, steps, substeps
        self.register_buffer("x", torch.zeros(*shape))
        self.register_buffer("states", torch.zeros(steps * substeps, shape[0], self.x[0].numel()))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def loss(self, teacher: ScoreModel, loss: BranchLoss, generator: torch.Generator) -> torch.Tensor:
        """The loss of one update, mean over the batch; the student moves on to the end of its step.

        Args:
            teacher: its last branch is used; it gets no gradient.
            loss: weights of the branches, distance and update; SFD has ``l1``.
            generator: source of noise.
        """
        step, count = int(self.step), self.substeps
        grid = self.student.schedule.times(self.steps * count).to(self.x.device)[:, None].expand(-1, len(self.x))
        if step == 0:
            self.x.copy_(randn_like(self.x, generator))
            self.states.copy_(teacher_states(teacher, self.x, grid).flatten(2))
        first, x = step * count, self.x.clone()
        states = self.states[first : first + count].unflatten(2, x.shape[1:])
        errors, scales = loss.errors(self.student, x, grid[first : first + count + 1], states)
        errors = torch.stack([append_dims(scale, x) * error for scale, error in zip(scales, errors, strict=True)])
        self.x.copy_((states[-1] + errors[-1]).detach())
        self.step.fill_((step + 1) % self.steps)
        return loss.total(errors).mean()
