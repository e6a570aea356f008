"""Branches of a sampler's student (B-DENSE) on both bases, progressive distillation and SFD, with both updates."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from dbn_core.errors import SpecError
from dbn_core.generative.diffusion.distill import (
    BranchLoss,
    branch_loss_weights,
    branch_report,
    distillation_loss,
    last_branch,
    teacher_states,
    widened,
)
from dbn_core.generative.diffusion.members import Member, SamplingPredictor
from dbn_core.generative.diffusion.networks import ScoreMLP, ScoreUNet
from dbn_core.generative.diffusion.process import ScoreModel
from dbn_core.generative.diffusion.samplers import ddim_coefficients, sample_diffusion
from dbn_core.generative.diffusion.schedules import VP
from dbn_core.generative.diffusion.sfd import OwnPath
from dbn_core.measure.cost import count_in_torch
from dbn_core.methods.registry import parse_method
from dbn_core.rng import generator

STEPS, K = 2, 4
bases = pytest.mark.parametrize("base", ["progressive", "sfd"])
updates = pytest.mark.parametrize("update", ["own", "full"])


def network_teacher(prediction="v"):
    network = ScoreMLP(2, width=16)
    network.reset(generator(seed=1))
    with torch.no_grad():
        network.out.weight.normal_(0, 0.1, generator=generator(seed=2))
    return ScoreModel(network, VP(), prediction).double()


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed=seed, purpose="normal"), dtype=torch.float64)


def one_loss(base, student, teacher, loss, substeps=K, seed=5):
    """The loss of one update from fixed draws: of noised data, or of all steps along the student's path."""
    draws = generator(seed=seed)
    if base == "progressive":
        return distillation_loss(student, teacher, normal(32, 2), STEPS, substeps, loss, draws)
    path = OwnPath(student, (32, 2), STEPS, substeps).double()
    return sum(path.loss(teacher, loss, draws) for _ in range(STEPS))


class Linear(torch.nn.Module):
    """E[x_0 | x_t] for data N(m, v I): m + g (x - alpha m), with g = alpha v / (alpha^2 v + sigma^2)."""

    m, v = torch.tensor([1.0, -0.5], dtype=torch.float64), 0.3

    def forward(self, x, level):
        sigma = torch.sigmoid(2 * level.double())[:, None].sqrt()
        alpha = (1 - sigma**2).sqrt()
        return self.m + alpha * self.v / (alpha**2 * self.v + sigma**2) * (x - alpha * self.m)


def closed_form(x, times):
    """The teacher's states: the distance from alpha m shrinks by r + c g in each step."""
    schedule, states = VP(), []
    distance = x - float(schedule.alpha(times[0])) * Linear.m
    for t, s in pairwise(times):
        r, c = ddim_coefficients(schedule, t, s)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        distance = (r + c * alpha * Linear.v / (alpha**2 * Linear.v + sigma**2)) * distance
        states.append(schedule.alpha(s) * Linear.m + distance)
    return torch.stack(states)


class Optimum(torch.nn.Module):
    """The student whose branch k says the data estimate with which its step lands on the closed form's k-th state."""

    def __init__(self, update):
        super().__init__()
        self.update, self.grid = update, VP().times(STEPS * K)

    def forward(self, x, level):
        out = x.new_empty(len(x), 2 * K)
        levels = VP().level(self.grid[:-1])
        for row, value in enumerate(level.double()):
            first = int((levels - value).abs().argmin())
            times = self.grid[first : first + K + 1]
            for k, state in enumerate(closed_form(x[row], times)):
                r, c = ddim_coefficients(VP(), times[0], times[-1 if self.update == "full" else k + 1])
                out[row, 2 * k : 2 * k + 2] = (state - r * x[row]) / c
        return out


def test_states_of_a_linear_teacher_have_their_closed_form():
    teacher, x = ScoreModel(Linear(), VP(), "x"), normal(7, 2)
    times = VP().times(STEPS * K)
    torch.testing.assert_close(teacher_states(teacher, x, times[:, None].expand(-1, 7)), closed_form(x, times))


@bases
@updates
def test_the_optimum_of_a_linear_teacher_has_no_loss(base, update):
    teacher, student = ScoreModel(Linear(), VP(), "x"), ScoreModel(Optimum(update), VP(), "x")
    for distance in ("l2", "l1"):
        loss = BranchLoss(branch_loss_weights(K), distance, update)
        assert float(one_loss(base, student, teacher, loss)) < 1e-9
        wrong = ScoreModel(lambda x, level: 1.01 * Optimum(update)(x, level), VP(), "x")
        assert float(one_loss(base, wrong, teacher, loss)) > 1e-5
    found = branch_report(student, teacher, normal(20, 2), STEPS, K, BranchLoss(branch_loss_weights(K), "l2", update))
    assert found.pop("kappa") > 1e-3
    assert len(found) == K + 1
    assert max(found.values()) < 1e-12


@bases
@updates
@pytest.mark.parametrize("distance", ["l2", "l1"])
def test_one_branch_is_the_plain_loss(base, update, distance):
    # The plain losses written out again: of the last state alone.
    teacher, draws = network_teacher(), generator(seed=5)
    student, schedule, grid = widened(teacher, 1), VP(), VP().times(STEPS * K)
    with torch.no_grad():
        student.network.out.weight.add_(0.05)

    def size(error):
        return error.square().mean(1) if distance == "l2" else error.abs().mean(1)

    found = one_loss(base, student, teacher, BranchLoss(branch_loss_weights(1), distance, update))
    if base == "progressive":
        first = K * torch.randint(STEPS, (32,), generator=draws)
        noise = torch.randn(32, 2, generator=draws, dtype=torch.float32).double()
        times = torch.stack([grid[first + k] for k in range(K + 1)])
        alpha, sigma = schedule.alpha(times[0])[:, None], schedule.sigma(times[0])[:, None]
        x = y = alpha * normal(32, 2) + sigma * noise
        for t, s in pairwise(times):
            r, c = (value[:, None] for value in ddim_coefficients(schedule, t, s))
            y = r * y + c * teacher.denoised(y, t)
        r, c = (value[:, None] for value in ddim_coefficients(schedule, times[0], times[-1]))
        scale = (alpha / sigma).clamp_min(1)
        expected = size(scale * (student.denoised(x, times[0]) - (y - r * x) / c)).mean()
    else:
        x = y = torch.randn(32, 2, generator=draws, dtype=torch.float32).double()
        expected = 0
        for j in range(STEPS):
            y = closest = sample_states(teacher, y, grid[j * K : (j + 1) * K + 1])
            t, s = grid[j * K].expand(32), grid[(j + 1) * K].expand(32)
            r, c = (value[:, None] for value in ddim_coefficients(schedule, t, s))
            x = r * x + c * student.denoised(x, t)
            expected = expected + size(x - closest).mean()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    one_hot = torch.zeros(K, dtype=torch.float64)
    one_hot[-1] = 1
    full = widened(student, K)
    torch.testing.assert_close(one_loss(base, full, teacher, BranchLoss(one_hot, distance, update)), found)


def sample_states(teacher, x, times):
    return teacher_states(teacher, x, times[:, None].expand(-1, len(x)))[-1]


@bases
@updates
def test_branches_start_equal_and_learn_one_by_one(base, update):
    teacher = network_teacher()
    student = widened(teacher, K)
    branches = student.branches(normal(9, 2), torch.full((9,), 0.5, dtype=torch.float64))
    assert all(torch.equal(branch, branches[0]) for branch in branches)
    for k in range(K):
        student.zero_grad()
        one_hot = torch.nn.functional.one_hot(torch.tensor(k), K).double()
        one_loss(base, student, teacher, BranchLoss(one_hot, "l1", update)).backward()
        rows = student.network.out.weight.grad.reshape(K, 2, -1).abs().amax((1, 2))
        # Branch 1 starts on its target where it steps to its own time.
        expected = [i == k and (k > 0 or update == "full" or base == "sfd") for i in range(K)]
        assert [bool(row > 1e-12) for row in rows] == expected or (k == 0 and update == "own")
        assert all(not row.any() for i, row in enumerate(rows) if i != k)
        assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_sliced_student_says_and_costs_what_one_without_branches_does():
    def sampler(network):
        return SamplingPredictor([Member(network, VP(), "v", (0.5,), (0.25,))], steps=STEPS)

    network = ScoreUNet(1, width=8)
    network.reset(generator(seed=1))
    plain = sampler(network)
    wide = widened(plain.first, K)
    with torch.no_grad():
        wide.network.out.weight.normal_(0, 0.1, generator=generator(seed=4))
    sliced = SamplingPredictor([last_branch(wide)], steps=STEPS)
    noise = torch.randn(2, 1, 8, 8, generator=generator(seed=6))
    torch.testing.assert_close(sliced(noise), SamplingPredictor([wide], steps=STEPS)(noise))
    assert torch.equal(sliced.first.network.out.weight, wide.network.out.weight[-1:])
    assert count_in_torch(sliced, noise[:1]) == count_in_torch(plain, noise[:1])


# ------------------------------------------------------------------------------------------------------ the own path


def test_a_student_follows_its_own_path_and_trajectories_change_after_all_steps():
    teacher, loss = network_teacher(), BranchLoss(branch_loss_weights(K), "l1")
    student = widened(teacher, K)
    with torch.no_grad():
        student.network.out.weight.normal_(0, 0.1, generator=generator(seed=4))
    path, draws = OwnPath(student, (8, 2), STEPS, K).double(), generator(seed=5)
    for _ in range(STEPS):
        path.loss(teacher, loss, draws)
    start = torch.randn(8, 2, generator=generator(seed=5)).double()
    torch.testing.assert_close(path.x, sample_diffusion([student], start, VP(), STEPS))
    torch.testing.assert_close(path.states[-1], sample_diffusion([teacher], start, VP(), STEPS * K))
    path.loss(teacher, loss, draws)
    assert not torch.allclose(path.states[-1], sample_diffusion([teacher], start, VP(), STEPS * K))


def test_a_path_resumes_within_a_trajectory():
    teacher, loss = network_teacher(), BranchLoss(branch_loss_weights(1), "l1")
    path, draws = OwnPath(widened(teacher, 1), (8, 2), STEPS, K).double(), generator(seed=5)
    path.loss(teacher, loss, draws)
    state, seed = {name: value.clone() for name, value in path.state_dict().items()}, draws.get_state()
    expected = [path.loss(teacher, loss, draws) for _ in range(STEPS)]
    other = OwnPath(widened(teacher, 1), (8, 2), STEPS, K).double()
    other.load_state_dict(state)
    assert [other.loss(teacher, loss, draws.set_state(seed)) for _ in range(1)] == expected[:1]
    assert other.loss(teacher, loss, draws) == expected[1]


# ----------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("base=sfd", "set substeps to 8"),
        ("weights=1:2:3", "3 weights for 2 branches"),
        ("weights=1:x", "such as 1:2:4"),
        ("weights=0:0", "such as 1:2:4"),
        ("weights=1:2,growth=1", "give one of them"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_a_remedy(options, words):
    with pytest.raises(SpecError, match=words):
        parse_method(f"step-distillation[{options}]")


def test_what_a_plain_student_does_not_read_trains_it_once():
    def parts(options):
        return parse_method(f"step-distillation[steps=4,substeps=4,{options}]").parts(1)

    assert parts("growth=2") == parts("update=full") == parts("weights=1:2:3:4") == parts("branches=false")
    different = ["branches=true", "base=sfd", "distance=l1", "epochs=2"]
    different += [f"branches=true,{option}" for option in ("growth=2", "update=full", "weights=1:2:3:4")]
    assert len({repr(parts(options)) for options in different}) == len(different)
