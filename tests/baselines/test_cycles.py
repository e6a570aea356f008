"""Snapshots, FGE and cSGLD: schedules, the order of the networks, and the noise."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dbn_core.errors import SpecError
from dbn_core.methods.context import FitContext
from dbn_core.methods.registry import parse_method
from dbn_core.train.loop import learning_rate
from dbn_core.train.weights import Langevin
from tests.support.fitting import RECIPE, context, fit, images, predictor, trained


@pytest.mark.parametrize(
    ("rise", "rates"),
    [(0.0, [0.2, 0.17071, 0.1, 0.02929, 0.0]), (0.5, [0.002, 0.101, 0.2, 0.1, 0.0])],
)
def test_the_rate_within_a_cycle_is_that_of_the_papers(monkeypatch, rise, rates):
    recipes, _ = [], trained(0, "frn")

    def record(self: FitContext, module: Any, step: Any, recipe: Any, **_: Any) -> None:
        recipes.append(recipe)

    monkeypatch.setattr(FitContext, "train", record)
    fit(f"cycles[cycles=3,cycle_epochs=4,rise={rise},lr_scale=4]", 1, recipe=RECIPE.replace(ema_decay=0.9))
    assert len(recipes) == 3
    for recipe in recipes:
        assert (recipe.ema_decay, recipe.keep) == (None, "last")
        found = [learning_rate(step, 16, round(4 * recipe.warmup_epochs), recipe) for step in range(0, 17, 4)]
        assert found == pytest.approx(rates, abs=1e-5)


def test_one_cycle_is_an_ordinary_training_bit_for_bit():
    made = fit("cycles[cycles=1,cycle_epochs=2,lr_scale=1]", 1)["networks"]
    where = context("networks")
    network = copy.deepcopy(trained(0, "frn")).requires_grad_(True)

    def step(batch: Any) -> torch.Tensor:
        return F.cross_entropy(network(batch.images), batch.mixed_labels(4))

    where.train(network, step, RECIPE.replace(epochs=2), purpose="cycle-0")
    assert all(torch.equal(made[f"0.{name}"], tensor) for name, tensor in network.state_dict().items())


def test_the_newest_network_is_the_first_term_and_terms_are_those_of_the_networks():
    one, two = (fit(f"cycles[cycles={count},cycle_epochs=1]", 1)["networks"] for count in (1, 2))
    assert all(torch.equal(tensor, two[f"1{name[1:]}"]) for name, tensor in one.items())
    assert not all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    terms = predictor("cycles[cycles=2]", 2, {"networks": two})(images())
    assert terms.shape == (2, 6, 4)
    assert torch.equal(terms[1], predictor("cycles[cycles=1]", 1, {"networks": one})(images())[0])
    source = dict(trained(0, "frn").state_dict())
    assert not torch.equal(one["0.head.linear.weight"], source["head.linear.weight"])
    with pytest.raises(SpecError, match="1 to cycles=2, not 3"):
        parse_method("cycles[cycles=2]").check_size(3)


def test_noise_acts_in_the_last_part_of_a_cycle_alone():
    calm, noisy = (f"cycles[cycles=1,cycle_epochs=2,temperature={t},noise_share=" for t in (1e-30, 5.0))
    base = fit(calm + "1]", 1)["networks"]["0.head.linear.weight"]
    late, whole = (fit(noisy + f"{share}]", 1)["networks"]["0.head.linear.weight"] for share in (0.2, 1))
    assert 0 < (late - base).std() < (whole - base).std() / 2


def test_langevin_noise_has_the_variance_of_the_update_and_of_its_stationary_law():
    class Quadratic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.zeros(20_000))

    rate, temperature, examples, curvature = 0.2, 3.0, 50, 2.0
    module = Langevin(Quadratic())
    torch.manual_seed(0)
    module.shake(rate, temperature, examples)
    theta = module.network.theta.data
    assert float(theta.var()) == pytest.approx(2 * rate * temperature / examples, rel=0.04)
    for _ in range(60):
        theta.sub_(rate * curvature * theta)
        module.shake(rate, temperature, examples)
    law = temperature / (examples * curvature) / (1 - rate * curvature / 2)
    assert float(theta.var()) == pytest.approx(law, rel=0.04)
    before = theta.clone(), torch.get_rng_state()
    module.shake(rate, 0.0, examples)
    assert torch.equal(theta, before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
