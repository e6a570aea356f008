"""MC dropout: the law of its logits, and what a pass costs."""

from __future__ import annotations

import copy

import pytest
import torch

from dbn_core.measure.cost import measure_cost
from dbn_core.nets.dropout import Passes
from tests.support.fitting import fit, fresh, images, predictor


@pytest.mark.parametrize("place", ["last", "residual"])
def test_hardly_any_dropout_is_the_network(place):
    network = fresh()
    terms = Passes(copy.deepcopy(network), 1e-7, place, 2)(images())
    assert torch.allclose(terms, network(images()).log_softmax(-1).expand(2, -1, -1), atol=1e-5)


def test_logits_of_the_last_layer_have_the_law_of_dropped_features():
    network, x, rate = fresh(), images(1), 0.3
    torch.manual_seed(0)
    with torch.no_grad():
        terms = Passes(network, rate, "last", 20_000)(x)[:, 0]
        features, _ = network.split("block3")
        h, linear = features(x).mean((2, 3))[0], network.head.linear
        # A softmax leaves differences of logits alone.
        differences = (terms[:, 1:] - terms[:, :1]).double()
        weight = (linear.weight[1:] - linear.weight[:1]).double()
        mean = weight @ h.double() + (linear.bias[1:] - linear.bias[0])
        covariance = rate / (1 - rate) * (weight * h.double().square()) @ weight.T
    scale = float(covariance.diagonal().max())
    assert torch.allclose(differences.mean(0), mean, atol=4 * (scale / 20_000) ** 0.5)
    assert torch.allclose(torch.cov(differences.T), covariance, atol=0.05 * scale)


@pytest.mark.parametrize(("place", "further"), [("last", 16 * 4), ("residual", None)])
def test_a_further_pass_costs_the_last_layer_or_the_whole_network(place, further):
    parts = fit(f"mc-dropout[place={place},epochs=1]", 1)
    built = [predictor(f"mc-dropout[place={place}]", size, parts) for size in (1, 3)]
    one, three = (measure_cost(made, images(1)) for made in built)
    assert one == measure_cost(fresh(), images(1))
    assert three.macs - one.macs == 2 * (further or one.macs)
    assert three.params == one.params
    torch.manual_seed(3)
    terms = built[1](images())
    torch.manual_seed(3)
    assert torch.equal(built[1](images()), terms)
    torch.manual_seed(3)
    assert torch.equal(built[0](images()), terms[:1])
    assert not torch.allclose(terms[0], terms[1], atol=1e-3)
