"""EDFM: coefficients, sampler, loss and cost against closed forms, and a flow that learns two modes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from baselines.ensemble_distillation import EnsembleDistillation
from dbn_core.measure.cost import measure_cost
from dbn_core.methods.registry import parse_method
from dbn_core.nets.init import initialise_
from dbn_core.nets.logit_flow import FlowingLogits, LogitFlow, draw_flow_times
from dbn_core.rng import generator
from tests.support.fitting import fit, fresh, images, predictor


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed=seed))


def flow(classes=3, channels=2, width=8, **options):
    made = LogitFlow(classes, channels, width, **options)
    initialise_(made, generator(seed=0))
    return made.eval().requires_grad_(False)


class Zero(LogitFlow):
    """F = 0: optimal for logits N(0, 1)."""

    calls = 0

    def raw(self, x, features, t):
        Zero.calls += 1
        return torch.zeros_like(x)


class Optimal(LogitFlow):
    """The velocity that is best for logits N(mean, std^2)."""

    mean, std = 3.0, 1.0

    def velocity(self, x, features, t):
        variance = t**2 * self.std**2 + (1 - t) ** 2 * 16
        return self.mean + (t * self.std**2 - (1 - t) * 16) / variance * (x - t * self.mean)


def test_coefficients_make_the_target_of_the_network_a_unit_normal():
    t = torch.tensor([[0.0], [0.3], [0.8], [1.0]])
    _, skip, out = flow().coefficients(t)
    assert skip[:, 0].tolist() == pytest.approx([-1, -1.3745, -1.8750, 1], abs=1e-4)
    assert out[:, 0].tolist() == pytest.approx([1, 1.4204, 3.5355, 4], abs=1e-4)
    logits, noise = normal(100_000, 1), normal(100_000, 1, seed=1)
    for t, c_skip, c_out in zip([0.3, 0.8], skip[1:3], out[1:3], strict=True):
        state, target = t * logits + (1 - t) * 4 * noise, logits - 4 * noise
        rest = (target - c_skip * state) / c_out
        assert float(rest.var()) == pytest.approx(1, abs=0.02)
        assert abs(float((rest * state).mean())) < 0.05


def test_the_sampler_without_a_network_multiplies_its_start():
    Zero.calls, start = 0, normal(4, 5, 3)
    end = Zero(3, 2).sample(torch.zeros(5, 2), start, 7)
    assert torch.allclose(end, 0.273847 * 4 * start, atol=1e-5)
    assert Zero.calls == 13
    Zero.calls = 0
    Zero(3, 2).sample(torch.zeros(5, 2), start, 1)
    assert Zero.calls == 1


@pytest.mark.parametrize(("std", "found"), [(1.0, 1.0954), (0.5, 0.5449)])
def test_the_sampler_with_the_best_velocity_hits_the_mean_and_overstates_the_spread(std, found):
    best, start = Optimal(1, 1), torch.tensor([[[-1.0]], [[0.0]], [[1.0]]])
    best.std = std
    ends = best.sample(torch.zeros(1, 1), start, 7).flatten()
    assert float(ends[1]) == pytest.approx(3.0, abs=1e-5)
    assert float(ends[2] - ends[1]) == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize(("std", "value"), [(0.5, 4.321), (1.0, 7.933), (2.0, 14.195)])
def test_the_loss_of_the_best_velocity(std, value):
    count, best = 400_000, Optimal(1, 1)
    best.std = std
    t = draw_flow_times(count, generator(seed=2))
    loss = best.loss(torch.zeros(count, 1), 3 + std * normal(count, 1), t, normal(count, 1, seed=1))
    assert float(loss) == pytest.approx(value, rel=0.02)


def test_times_are_drawn_more_often_late():
    t = draw_flow_times(200_000, generator(seed=3))
    assert float(t.mean()) == pytest.approx(0.58908, abs=0.002)
    assert float((t > 0.5).float().mean()) == pytest.approx(0.634, abs=0.004)
    assert 0 <= float(t.min()) < float(t.max()) <= 0.999


@pytest.mark.parametrize(
    ("classes", "channels", "width", "params", "macs", "with_time"),
    [(10, 128, 256, 325_224, 234_496, 321_472), (100, 256, 512, 1_209_360, 1_019_904, 1_201_536)],
)
def test_the_published_networks_have_their_sizes(classes, channels, width, params, macs, with_time):
    network = LogitFlow(classes, channels, width)
    assert sum(p.numel() for p in network.parameters()) == params

    class Call(nn.Module):
        def __init__(self, draws):
            super().__init__()
            self.network, self.draws = network, draws

        def forward(self, features):
            return self.network.sample(features, torch.ones(self.draws, 1, classes), 1)

    one, two = (measure_cost(Call(draws), torch.zeros(1, channels)).macs for draws in (1, 2))
    assert (one, two - one) == (with_time, macs)  # the time is embedded once for all draws


def test_terms_are_repeatable_and_do_not_depend_on_the_batch():
    made = FlowingLogits(fresh(), flow(4, 16), normal(5, 4), 3)
    terms = made(images())
    assert terms.shape == (5, 6, 4)
    assert torch.equal(terms, made(images()))
    assert torch.allclose(terms[:, :2], made(images(2)), atol=1e-5)
    assert torch.allclose(terms.exp().sum(-1), torch.ones(5, 6), atol=1e-5)


def test_a_flow_learns_that_teachers_are_of_two_minds():
    network = LogitFlow(2, 1, 32)
    initialise_(network, generator(seed=0))
    optimizer, draws = torch.optim.AdamW(network.parameters(), 3e-3), generator(seed=1)
    features, modes = torch.zeros(256, 1), torch.tensor([[2.0, -2.0], [-2.0, 2.0]])
    for _ in range(400):
        logits = modes[torch.randint(2, (256,), generator=draws)]
        loss = network.loss(features, logits, draw_flow_times(256, draws), torch.randn(256, 2, generator=draws))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        ends = network.sample(torch.zeros(1, 1), normal(200, 1, 2, seed=5), 7)[:, 0]
    first = ends[:, 0] > 0
    assert 0.3 < float(first.float().mean()) < 0.7
    assert float((ends - torch.where(first[:, None], modes[0], modes[1])).abs().mean()) < 0.7


def test_the_student_is_that_of_ed_and_sampling_options_train_nothing_anew():
    method = parse_method("edfm[tau=2,draws=3]")
    student, flow_part = method.parts(3)
    (own,) = parse_method("ed[tau=2]").parts(3)
    assert student == dataclasses.replace(own, settings=student.settings, owner=EnsembleDistillation)
    assert flow_part.needs == ("student",)
    assert parse_method("edfm[tau=2,draws=8,intervals=3]").parts(3) == [student, flow_part]
    assert parse_method("edfm[tau=2,target=mean]").parts(3) != [student, flow_part]


def test_a_prediction_costs_the_student_once_and_every_call_of_the_flow():
    options = "draws=3,intervals=2,flow_width=16,epochs=1,flow_epochs=1"
    parts = fit(f"edfm[{options}]", 2)
    built = predictor(f"edfm[{options}]", 2, parts)
    k, d, h, time = 4, 16, 16, 32
    one_call = (k + d) * h + 3 * h * h + h * k
    once = time * 3 * ((k + d) + 3 * h)
    source = measure_cost(fresh(), images(1)).macs - d * k  # its head is not used
    assert measure_cost(built, images(1)).macs == source + 3 * (3 * one_call + once)
    assert math.isfinite(float(built(images()).sum()))
