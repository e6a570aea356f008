"""Distillation of steps: its identities, and students of an exact teacher."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.generative.step_distillation import rounds
from dbn_core.errors import SpecError
from dbn_core.generative.diffusion.distill import (
    BranchLoss,
    branch_loss_weights,
    distillation_loss,
    last_branch,
    teacher_states,
    widened,
)
from dbn_core.generative.diffusion.mixture import GaussianMixture
from dbn_core.generative.diffusion.networks import ScoreMLP, ScoreUNet
from dbn_core.generative.diffusion.process import ScoreModel
from dbn_core.generative.diffusion.samplers import sample_diffusion
from dbn_core.generative.diffusion.schedules import VP
from dbn_core.rng import generator


def teacher_of(network, prediction="v"):
    network.reset(generator(seed=1))
    with torch.no_grad():
        network.out.weight.normal_(0, 0.1, generator=generator(seed=2))
        network.out.bias.normal_(0, 0.1, generator=generator(seed=3))
    return ScoreModel(network, VP(), prediction)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed=seed, purpose="normal"))


T = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
CASES = [(lambda: ScoreMLP(2, width=16), (5, 2)), (lambda: ScoreUNet(1, width=8), (5, 1, 8, 8))]
cases = pytest.mark.parametrize("case", CASES, ids=["mlp", "unet"])


# ------------------------------------------------------------------------------------------------ branches and weights


@cases
def test_every_branch_starts_as_the_teacher_and_the_last_one_can_be_taken_out(case):
    make, shape = case
    teacher, x = teacher_of(make()), normal(*shape)
    student = widened(teacher, 3)
    branches = student.branches(x, T)
    assert branches.shape == (3, *shape)
    for branch in branches:
        torch.testing.assert_close(branch, teacher.branches(x, T)[0])
    with torch.no_grad():
        student.network.out.weight.normal_(0, 0.1, generator=generator(seed=4))
    exported = last_branch(student)
    torch.testing.assert_close(exported(x, T), student(x, T))
    assert not torch.allclose(exported(x, T), teacher(x, T))
    count = [sum(p.numel() for p in model.parameters()) for model in (teacher, exported, student)]
    assert count[0] == count[1]
    assert count[2] == count[0] + 2 * sum(p.numel() for p in teacher.network.out.parameters())
    torch.testing.assert_close(widened(student, 2).branches(x, T)[0], student.branches(x, T)[-1])


@given(branches=st.integers(1, 8), growth=st.floats(-4, 4))
@settings(max_examples=30, deadline=None)
def test_weights_have_sum_one_and_grow_as_they_say(branches, growth):
    weights = branch_loss_weights(branches, growth)
    assert float(weights.sum()) == pytest.approx(1)
    ratios = weights[1:] / weights[:-1]
    torch.testing.assert_close(ratios, torch.full_like(ratios, math.exp(growth / branches)))
    assert float(branch_loss_weights(branches, 1000)[-1]) == pytest.approx(1)


def test_rounds_divide_down_to_the_last_student():
    assert rounds(1024, 128) == [512, 256, 128]
    assert rounds(27, 1, substeps=3) == [9, 3, 1]
    with pytest.raises(SpecError, match="3 does not divide a teacher's 16 steps"):
        rounds(16, 1, substeps=3)
    with pytest.raises(SpecError, match="1 does not divide"):
        rounds(16, 1, substeps=1)
    for start, stop in [(16, 3), (4, 4), (4, 8)]:
        with pytest.raises(SpecError, match=r"do not end at|does not divide"):
            rounds(start, stop)


# ---------------------------------------------------------------------------------------------------------------- loss


def loss(student, teacher, substeps, weights, x_0, seed=5):
    return distillation_loss(student, teacher, x_0, 4, substeps, BranchLoss(weights), generator(seed=seed))


@cases
@pytest.mark.parametrize("prediction", ["x", "v"])
def test_a_student_of_one_sub_step_starts_at_zero_loss(case, prediction):
    make, shape = case
    teacher = teacher_of(make(), prediction).double()
    student = widened(teacher, 1)
    assert loss(student, teacher, 1, branch_loss_weights(1), normal(*shape).double()).item() < 1e-12


def test_the_first_branch_starts_at_zero_loss_and_the_last_alone_is_progressive_distillation():
    teacher, x_0 = teacher_of(ScoreMLP(2, width=16)).double(), normal(64, 2).double()
    student = widened(teacher, 2)
    first, last = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert loss(student, teacher, 2, first, x_0).item() < 1e-12
    plain = loss(widened(teacher, 1), teacher, 2, branch_loss_weights(1), x_0)
    assert plain.item() > 1e-6
    torch.testing.assert_close(loss(student, teacher, 2, last, x_0), plain)
    both = loss(student, teacher, 2, branch_loss_weights(2), x_0)
    torch.testing.assert_close(both, plain / 2, rtol=1e-6, atol=1e-12)


def test_a_student_that_lands_where_its_teacher_does_has_no_loss():
    # A teacher that always says c moves along straight lines of (x - alpha c) / sigma: one step ends where K end.
    class Constant(torch.nn.Module):
        def forward(self, x, level):
            return torch.full_like(x, 0.7)

    teacher, x_0 = ScoreModel(Constant(), VP(), "x"), normal(16, 2).double()
    for substeps in (2, 5):
        student = ScoreModel(lambda x, level, k=substeps: torch.full_like(x, 0.7).repeat(1, k), VP(), "x")
        assert float(loss(student, teacher, substeps, branch_loss_weights(substeps), x_0)) < 1e-20
    states = teacher_states(teacher, x_0, VP().times(3)[:, None].expand(4, 16))
    torch.testing.assert_close(states[-1], sample_diffusion([teacher], x_0, VP(), 3))


def test_gradients_reach_the_weighted_branch_and_never_the_teacher():
    teacher, x_0 = teacher_of(ScoreMLP(2, width=16)), normal(32, 2)
    student = widened(teacher, 4)
    loss(student, teacher, 4, torch.tensor([0.0, 1.0, 0.0, 0.0]), x_0).backward()
    rows = student.network.out.weight.grad.reshape(4, 2, 16).abs().amax((1, 2))
    assert (rows > 0).tolist() == [False, True, False, False]
    assert all(parameter.grad is None for parameter in teacher.parameters())


# -------------------------------------------------------------------------------------------------------------- rounds


class ExactNormal(torch.nn.Module):
    """E[x_0 | x_t] of N(mean, v I) as a network, with a linear last layer that students can learn to change."""

    channels = 2

    def __init__(self, mean, v):
        super().__init__()
        self.mean, self.v = mean, v
        self.out = torch.nn.Linear(40, 2, bias=False)
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.weight[:, :2] = torch.eye(2)

    def forward(self, x, level):
        # For VP: sigma^2 = q / (1 + q), with q = exp(2 level).
        variance = torch.sigmoid(2 * level)[:, None]
        alpha = (1 - variance).sqrt()
        exact = self.mean + alpha * self.v / (alpha**2 * self.v + variance) * (x - alpha * self.mean)
        bumps = torch.exp(-((level[:, None] - torch.linspace(-5, 5, 12).to(x)) ** 2))
        basis = [exact, bumps, x[:, :1] * bumps, x[:, 1:] * bumps, torch.ones_like(x)]
        return self.out(torch.cat(basis, 1))


@pytest.mark.parametrize("branches", [1, 2], ids=["pd", "b-dense"])
def test_students_keep_what_the_teachers_steps_reach(branches):
    mean, v = torch.tensor([1.0, -0.5]), 0.04
    first = teacher = ScoreModel(ExactNormal(mean, v), VP(), "x")
    law, g = GaussianMixture(torch.ones(1), mean[None], torch.tensor([v])), generator(seed=7)
    for steps in rounds(8, 2):
        student = widened(teacher, branches)
        optimizer = torch.optim.Adam(student.parameters(), 1e-2)
        for update in range(60):
            optimizer.param_groups[0]["lr"] = 1e-2 * (1 - update / 60)
            branch_loss, x_0 = BranchLoss(branch_loss_weights(branches)), law.sample(128, g)
            optimizer.zero_grad()
            distillation_loss(student, teacher, x_0, steps, 2, branch_loss, g).backward()
            optimizer.step()
        teacher = last_branch(student)
        assert teacher.branches(x_0, torch.ones(128)).shape[0] == 1
    start = torch.randn(500, 2, generator=g)
    reached, undistilled, distilled = (
        sample_diffusion([model], start, VP(), steps) for model, steps in ((first, 8), (first, 2), (teacher, 2))
    )
    assert (distilled - reached).square().mean() < (undistilled - reached).square().mean() / 2
