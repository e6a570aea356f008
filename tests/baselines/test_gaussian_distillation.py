"""Gaussian distillation: the E-step against a conditional Gaussian, a family that is recovered, and the cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dbn_core.measure.cost import measure_cost
from dbn_core.nets.logit_factors import FactorLogits, LogitFactors
from dbn_core.rng import generator
from tests.support.fitting import fit, fresh, images, predictor


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed=seed))


def test_positions_of_the_teachers_are_those_of_the_conditional_gaussian():
    examples, classes, q, teachers = 5, 3, 2, 4
    model = LogitFactors(nn.Linear(2, (1 + q) * classes), q, teachers, examples)
    x, logits = normal(examples, 2), normal(teachers, examples, classes, seed=1)
    with torch.no_grad():
        mean, phi = model(x)
        model.loss(x, logits)
    z, covariance = model.places, model.covariance
    # Jointly Gaussian z and residuals r = A z + e, with A [N K, q].
    a = phi.permute(0, 2, 1).reshape(-1, q).double()
    r = (logits - mean).reshape(teachers, -1).double()
    marginal = a @ a.T + torch.eye(len(a), dtype=torch.float64)
    assert torch.allclose(z, r @ torch.linalg.solve(marginal, a), atol=1e-5)
    assert torch.allclose(covariance, torch.eye(q) - a.T @ torch.linalg.solve(marginal, a), atol=1e-5)


def trained(teachers_of, q, steps=300):
    model = LogitFactors(nn.Linear(3, (1 + q) * 4), q, 12, 200)
    draws = generator(seed=7)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=draws))
    optimizer, x = torch.optim.Adam(model.parameters(), 0.02), normal(200, 3, seed=3)
    for _ in range(steps):
        chosen = torch.randint(200, (64,), generator=draws)
        loss = model.loss(x[chosen], teachers_of(x[chosen]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model, x, float(loss.detach())


@pytest.mark.parametrize("directions", [0, 1])
def test_the_family_that_teachers_come_from_is_recovered(directions):
    centre, direction, z = normal(3, 4, seed=4), normal(3, 4, seed=5), normal(12, seed=6)
    z = (z - z.mean()) / z.std(correction=0) * directions

    def teachers(x):
        return (x @ centre)[None] + z[:, None, None] * (x @ direction)[None]

    model, x, loss = trained(teachers, q=1)
    with torch.no_grad():
        mean, phi = model(x)
    middle, covariance = (moment.float() for moment in model.moments())
    assert loss < 0.01
    assert torch.allclose(mean + (middle[:, None] * phi).sum(1), x @ centre, atol=0.3)
    spread = covariance[0, 0] * phi.square().sum((1, 2))
    true = (x @ direction).square().sum(1) * directions
    assert float(spread.mean()) == pytest.approx(float(true.mean()), rel=0.1, abs=0.01)
    if directions:
        assert float(torch.corrcoef(torch.stack([spread, true]))[0, 1]) > 0.98
        # The E-step finds each teacher's place, up to the sign of the direction.
        places = model.places[:, 0].float()
        assert abs(float(torch.corrcoef(torch.stack([places, z]))[0, 1])) > 0.98


def test_draws_are_the_mean_and_its_deviations():
    model = LogitFactors(fresh(classes=12), 2, 3, 10)
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, -2.0]])  # as drawn: m is 0 and C is I before any training
    terms = FactorLogits(model, z)(images())
    mean, phi = model(images())
    for term, logits in zip(terms, [mean, mean + phi[:, 0], mean - 2 * phi[:, 1]], strict=True):
        assert torch.allclose(term, logits.log_softmax(-1), atol=1e-5)


def test_a_prediction_costs_one_network_and_two_small_products():
    options = "factors=2,draws=5,epochs=1"
    built = predictor(f"gaussian[{options}]", 3, fit(f"gaussian[{options}]", 3))
    extra = measure_cost(built, images(1)).macs - measure_cost(fresh(), images(1)).macs
    assert extra == 2 * 4 * 16 + 5 * 2 * 4
    assert built(images()).shape == (5, 6, 4)
