"""Cost and latency of predictors, counted by hand."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dbn_core.bridge.denoiser import Denoiser
from dbn_core.bridge.schedule import step_variances
from dbn_core.measure.cost import Cost, CostError, measure_cost
from dbn_core.measure.latency import measure_latency
from dbn_core.methods.predictors import BridgedSource, FeatureMixture, Mixture
from dbn_core.nets import NetworkSpec
from dbn_core.nets.heads import BridgeHead
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.score import ScoreNetwork

IMAGE = torch.zeros(1, 3, 8, 8)
SPEC = NetworkSpec(name="resnet8", width=1, channels=4)


def classifier():
    return Classifier(SPEC, 5, 3, (0.5,) * 3, (0.2,) * 3)


class Small(nn.Module):
    """A convolution, norm, activation, pooling and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        return self.linear(F.silu(self.depthwise(F.relu(self.norm(self.conv(x))))).mean((2, 3))).log_softmax(-1)


def test_cost_by_hand():
    conv = 4 * 4 * 6 * (3 * 9)  # 4x4 places, 6 channels, 3x3 of 3 channels each
    depthwise = 4 * 4 * 6 * 9
    linear = 6 * 4
    params = (6 * 27 + 6) + 2 * 6 + 6 * 9 + (6 * 4 + 4)
    cost = measure_cost(Small(), IMAGE)
    assert cost == Cost(params, conv + depthwise + linear)
    assert cost.flops == 2 * cost.macs


def test_a_count_that_is_known_is_still_compared():
    known = measure_cost(Small(), IMAGE)
    assert measure_cost(Small(), IMAGE, known) == known
    with pytest.raises(CostError, match="torch counts 2"):
        measure_cost(Small(), IMAGE, Cost(known.params, 1))


def test_matrix_products_count_however_they_are_written():
    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(7, 192))

        def forward(self, x):
            x = x.flatten(1)
            outer = torch.bmm(x[:, :10, None], x[:, None, :6])
            added = torch.addmm(outer.sum(), x, self.weight.T)
            return added + x @ self.weight.T + F.linear(x, self.weight) + torch.einsum("bk,ck->bc", x, self.weight)

    assert measure_cost(Products(), IMAGE).macs == 4 * 7 * 192 + 60


def test_mixture_costs_the_sum_of_its_members():
    one = measure_cost(Mixture([classifier()]), IMAGE)
    three = measure_cost(Mixture(classifier() for _ in range(3)), IMAGE)
    assert (three.params, three.macs) == (3 * one.params, 3 * one.macs)


def test_shared_parameters_are_stored_once_but_computed_each_time():
    network = classifier()
    one, twice = measure_cost(Mixture([network]), IMAGE), measure_cost(Mixture([network, network]), IMAGE)
    assert twice.params == one.params == sum(p.numel() for p in network.parameters())
    assert twice.macs == 2 * one.macs
    tied = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 192))
    tied[3].weight = tied[1].weight
    assert measure_cost(tied, IMAGE) == Cost(192 * 192 + 2 * 192, 2 * 192 * 192)


def test_bridges_of_a_bridge_network_compute_the_features_once():
    source, bridge = classifier(), BridgeHead(SPEC, 5, "block2")
    base = measure_cost(Mixture([source]), IMAGE)
    extra = measure_cost(bridge, torch.zeros(1, 8, 4, 4))
    both = measure_cost(FeatureMixture(source, "block2", [bridge, BridgeHead(SPEC, 5, "block2")]), IMAGE)
    assert (both.params, both.macs) == (base.params + 2 * extra.params, base.macs + 2 * extra.macs)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_sampler_pays_for_every_step(steps):
    source, network = classifier(), ScoreNetwork(4, 5, "mini", sees_state=True)
    base = measure_cost(Mixture([source]), IMAGE)
    once = measure_cost(BridgedSource(source, "block1", [Denoiser(network, step_variances(1, 1, 1))], 2.0), IMAGE)
    score = once.macs - base.macs
    assert score > 0.05 * base.macs
    predictor = BridgedSource(source, "block1", [Denoiser(network, step_variances(steps, 1, 1))], 2.0)
    cost = measure_cost(predictor, IMAGE)
    assert cost.macs == base.macs + steps * score
    assert cost.params == base.params + sum(p.numel() for p in network.parameters())


# ------------------------------------------------------------------------------ what a counter skips is an error


class Tokens(nn.Module):
    """Pixels as tokens of 16 numbers, mixed, averaged, classified."""

    def __init__(self, mix, *modules):
        super().__init__()
        self.embed, self.out, self.mix = nn.Linear(3, 16), nn.Linear(16, 4), mix
        self.extra = nn.ModuleList(modules)

    def forward(self, x):
        tokens = self.embed(x.flatten(2).transpose(1, 2))
        return self.out(self.mix(tokens, *self.extra).mean(1))


def attention(tokens, heads):
    q = tokens.unflatten(2, (heads, 16 // heads)).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)


UNCOUNTED = {
    "attention layer": lambda: Tokens(
        lambda t, layer: layer(t, t, t, need_weights=False)[0], nn.MultiheadAttention(16, 2, batch_first=True)
    ),
    "transformer layer": lambda: Tokens(
        lambda t, layer: layer(t), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    ),
    "lstm": lambda: Tokens(lambda t, layer: layer(t)[0], nn.LSTM(16, 16, batch_first=True)),
    "gru": lambda: Tokens(lambda t, layer: layer(t)[0], nn.GRU(16, 16, batch_first=True)),
    "bilinear": lambda: Tokens(lambda t, layer: layer(t, t), nn.Bilinear(16, 16, 16)),
    "matrix times vector": lambda: Tokens(lambda t: t + torch.mv(torch.ones(16, 16), t[0, 0])),
    "distances": lambda: Tokens(lambda t: torch.cdist(t, torch.ones(1, 16, 16))),
    "vmap over weights": lambda: Tokens(lambda t: torch.vmap(lambda w: F.linear(t, w))(torch.ones(9, 16, 16)).sum(0)),
}


@pytest.mark.parametrize("kind", UNCOUNTED)
def test_a_skipped_product_is_an_error_never_a_zero(kind):
    """Either the count holds more than the two linear layers around the operation, or there is an error."""
    predictor = UNCOUNTED[kind]()
    around = 64 * 3 * 16 + 16 * 4
    try:
        cost = measure_cost(predictor, IMAGE)
    except CostError:
        return
    assert cost.macs > around


def test_the_error_names_what_was_skipped():
    with pytest.raises(CostError, match="lstm"):
        measure_cost(UNCOUNTED["lstm"](), IMAGE)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_counts_its_two_products(heads):
    around, tokens = 64 * 3 * 16 + 16 * 4, 64
    cost = measure_cost(Tokens(lambda t: attention(t, heads)), IMAGE)
    assert cost.macs == around + 2 * tokens * tokens * 16  # q k^T and its product with v, over all heads


# ------------------------------------------------------------------------------------------------------- latency


def test_latency_from_a_clock_under_control(monkeypatch):
    # The first predictor takes 1 s, the second 3 s; in every tenth round a disturbance makes both five times slower.
    now, rounds, cost = [0.0], [0], {"one": 1.0, "two": 3.0}

    class Sleeper(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, x):
            assert torch.is_inference_mode_enabled()
            rounds[0] += self.name == "one"
            now[0] += cost[self.name] * (5 if rounds[0] % 10 == 0 else 1)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    predictors = {name: Sleeper(name) for name in cost}
    result = measure_latency(predictors, "one", torch.zeros(2, 1, 1, 1), repeats=40, warmup=0)
    assert (result["one"].p50_ms, result["two"].p50_ms) == pytest.approx((1000, 3000))
    assert (result["one"].p95_ms, result["two"].p95_ms) == pytest.approx((5000, 15000))
    assert (result["one"].ratio, result["two"].ratio) == pytest.approx((1, 3))
    assert result["two"].examples_per_s == pytest.approx(2 / 3)
    assert not result["one"].noisy


def test_a_disturbed_reference_is_flagged(monkeypatch):
    now, rng = [0.0], np.random.default_rng(0)

    class Jumpy(nn.Module):
        def forward(self, x):
            now[0] += rng.uniform(1, 3)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    assert measure_latency({"one": Jumpy()}, "one", torch.zeros(1, 1, 1, 1), repeats=40, warmup=0)["one"].noisy
