"""Networks against the papers' published sizes, textbook definitions and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from dbn_core.bridge.denoiser import Denoiser
from dbn_core.bridge.schedule import step_variances
from dbn_core.errors import SpecError
from dbn_core.measure.cost import measure_cost
from dbn_core.methods.predictors import BridgedSource, Mixture
from dbn_core.nets import NetworkSpec
from dbn_core.nets.heads import BridgeHead
from dbn_core.nets.init import initialise_
from dbn_core.nets.norms import FRN
from dbn_core.nets.resnet import BatchNormReLU, Classifier, SameConv2d
from dbn_core.nets.score import ScoreNetwork, TimeEmbedding
from dbn_core.rng import generator

R32X2 = NetworkSpec(name="resnet32", width=2)
R32X4 = NetworkSpec(name="resnet32", width=4)
R34 = NetworkSpec(name="resnet34", width=1, channels=64)
R34_NO_BIAS = NetworkSpec(name="resnet34", width=1, channels=64, bias=False)
RESNET8 = NetworkSpec(name="resnet8", width=1, channels=4)


def classifier(spec, classes, seed=0):
    network = Classifier(spec, classes, 3, (0.5,) * 3, (0.2,) * 3)
    initialise_(network, generator(seed=seed))
    return network.eval()


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=generator(seed=seed, purpose="normal"), dtype=dtype)


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


# ----------------------------------------------------------------------------------------------- published sizes


@pytest.mark.parametrize(
    ("spec", "classes", "side", "params", "macs"),
    [
        pytest.param(R32X2, 10, 32, 1_860_986, 270.98, id="R32x2-cifar10"),
        pytest.param(R32X4, 100, 32, 7_433_044, 1072.11, id="R32x4-cifar100"),
        pytest.param(R34, 200, 64, 21_396_616, None, id="R34-tinyimagenet"),
        pytest.param(R34_NO_BIAS, 1000, 64, 21_798_504, None, id="R34-imagenet64"),
    ],
)
def test_classifiers_have_the_papers_size_and_cost(spec, classes, side, params, macs):
    network = Classifier(spec, classes, 3, (0.5,) * 3, (0.2,) * 3)
    assert size(network) == params
    if macs is not None:
        cost = measure_cost(Mixture([network]), torch.zeros(1, 3, side, side))
        assert cost.macs / 1e6 == pytest.approx(macs, abs=0.006)


SCORE_NETWORKS = [
    # feature channels, feature side, classes, version, width, parameters, MACs in millions
    pytest.param(32, 32, 10, "v1.1.8", 1, 395_543, 42.69, id="cifar10"),
    pytest.param(64, 32, 100, "v1.1.8", 2, 1_547_617, 167.07, id="cifar100"),
    pytest.param(64, 64, 200, "v1.1.10", 1, 3_186_117, 863.03, id="tinyimagenet"),
    pytest.param(64, 64, 1000, "v1.1.13", 1, 8_278_222, 1079.11, id="imagenet64"),
]


class OnFeatures(nn.Module):
    """A score network as a function of the feature map alone, so that its cost can be counted apart."""

    def __init__(self, network, classes):
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, features):
        batch = len(features)
        return self.network(features, features.new_ones(batch, self.classes), features.new_ones(batch))


@pytest.mark.parametrize(("channels", "side", "classes", "version", "width", "params", "macs"), SCORE_NETWORKS)
def test_score_networks_have_the_papers_size_and_cost(channels, side, classes, version, width, params, macs):
    network = ScoreNetwork(channels, classes, version, width, sees_state=False)
    cost = measure_cost(OnFeatures(network, classes), torch.zeros(1, channels, side, side))
    assert cost.params == size(network) == params
    assert cost.macs / 1e6 == pytest.approx(macs, abs=0.006)


BRIDGES = [
    # base, classes, channels and side of the feature map, block, width, parameters, MACs in millions, published digits
    pytest.param(R32X2, 10, 128, 8, "block12", 1, 889_098, 56.62, 0.006, id="R32x2-b13-15-s1"),
    pytest.param(R32X2, 10, 128, 8, "block12", 0.5, 268_682, 17.04, 0.006, id="R32x2-b13-15-s2"),
    pytest.param(R32X2, 10, 128, 8, "block13", 0.5, 194_442, 12.32, 0.006, id="R32x2-b14-15-s2"),
    pytest.param(R32X4, 100, 256, 8, "block12", 0.5, 1_081_444, 68.2, 0.06, id="R32x4-b13-15-s2"),
    pytest.param(R34_NO_BIAS, 200, 256, 16, "block13", 0.5, 3_661_256, 230.7, 0.06, id="R34-b14-16-s2"),
]


@pytest.mark.parametrize(("spec", "classes", "channels", "side", "at", "width", "params", "macs", "within"), BRIDGES)
def test_bridge_heads_have_the_papers_size_and_cost(spec, classes, channels, side, at, width, params, macs, within):
    cost = measure_cost(BridgeHead(spec, classes, at, width), torch.zeros(1, channels, side, side))
    assert cost.params == params
    assert cost.macs / 1e6 == pytest.approx(macs, abs=within)


def test_dbn_costs_its_source_once_and_every_bridge():
    denoisers = [Denoiser(ScoreNetwork(32, 10), step_variances(1, 1e-4, 1e-4)) for _ in range(2)]
    cost = measure_cost(BridgedSource(classifier(R32X2, 10), "block1", denoisers, 2.0), torch.zeros(1, 3, 32, 32))
    assert cost.macs / 1e6 == pytest.approx(270.98 + 2 * 42.69, abs=0.02)
    assert cost.macs / 270.98e6 == pytest.approx(1.315, abs=0.0006)  # as published
    assert cost.params == 1_860_986 + 2 * 395_543


# -------------------------------------------------------------------------------------------------------- layers


def frn_by_definition(x, gamma, beta, tau, eps):
    nu2 = (x**2).mean(dim=(2, 3), keepdim=True)
    return torch.maximum(gamma * x / torch.sqrt(nu2 + eps) + beta, tau)


def random_frn(channels, seed):
    layer = FRN(channels).double()
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters()):
            parameter.copy_(normal(channels, 1, 1, seed=seed + number, dtype=torch.float64))
    return layer


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_frn_equals_its_definition_with_gradients(scale):
    layer, x = random_frn(5, 1), (scale * normal(3, 5, 4, 6, seed=9, dtype=torch.float64)).requires_grad_()
    weight = normal(3, 5, 4, 6, seed=10, dtype=torch.float64)
    inputs = (x, layer.gamma, layer.beta, layer.tau)
    got, expected = layer(x), frn_by_definition(*inputs, 1e-6)
    assert (expected == layer.tau).any()
    assert (expected > layer.tau).any()
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad((got * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def swish_by_definition(x, residual, gamma, beta, tau):
    z = frn_by_definition(x, gamma, beta, tau, 1e-6) + (0 if residual is None else residual)
    return z * torch.sigmoid(z)


@given(
    batch=st.integers(1, 4),
    channels=st.integers(1, 6),
    side=st.integers(1, 5),
    with_residual=st.booleans(),
    channels_last=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60)
def test_frn_with_swish_and_residual_equals_its_definition(batch, channels, side, with_residual, channels_last, seed):
    layer = random_frn(channels, seed)
    layer.swish = True
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    x, residual, weight = (
        normal(batch, channels, side, side, seed=seed + k, dtype=torch.float64)
        .contiguous(memory_format=memory_format)
        .requires_grad_()
        for k in (5, 6, 7)
    )
    given_residual = residual if with_residual else None
    inputs = (x, layer.gamma, layer.beta, layer.tau) + ((residual,) if with_residual else ())
    got, expected = layer(x, given_residual), swish_by_definition(x, given_residual, *inputs[1:4])
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, given_residual), expected.detach(), rtol=1e-10, atol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad((got * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


def test_frn_with_swish_keeps_three_maps_for_its_backward_pass():
    kept = []
    layer, x = FRN(8, swish=True), normal(4, 8, 16, 16).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(x)
    assert sum(t.numel() >= x.numel() for t in kept) == 3


def test_batchnorm_with_relu_and_residual_equals_its_parts():
    fused, plain = BatchNormReLU(4), nn.BatchNorm2d(4)
    x, residual = normal(6, 4, 3, 3, seed=1).requires_grad_(), normal(6, 4, 3, 3, seed=2).requires_grad_()
    for mode in (True, False):
        fused.train(mode)
        plain.train(mode)
        for given_residual in (None, residual):
            expected = torch.relu(plain(x) + (0 if given_residual is None else given_residual))
            got = fused(x, given_residual)
            assert torch.equal(got, expected)
            (mine,), (theirs,) = (
                torch.autograd.grad(got.square().sum(), x),
                torch.autograd.grad(expected.square().sum(), x),
            )
            torch.testing.assert_close(mine, theirs)
    assert torch.equal(residual, normal(6, 4, 3, 3, seed=2))


@pytest.mark.parametrize(
    ("kernel", "stride", "side", "padding"),
    [
        pytest.param(3, 2, 8, (0, 1, 0, 1), id="even: bottom and right only"),
        pytest.param(3, 2, 7, (1, 1, 1, 1), id="odd: both sides"),
        pytest.param(3, 1, 8, (1, 1, 1, 1), id="stride 1"),
        pytest.param(1, 2, 8, (0, 0, 0, 0), id="1x1"),
        pytest.param(7, 2, 8, (2, 3, 2, 3), id="7x7 stem"),
    ],
)
def test_same_padding(kernel, stride, side, padding):
    conv, x = SameConv2d(3, 4, kernel, stride), normal(2, 3, side, side)
    expected = F.conv2d(F.pad(x, padding), conv.weight, conv.bias, stride)
    torch.testing.assert_close(conv(x), expected)
    assert conv(x).shape[-1] == math.ceil(side / stride)


# --------------------------------------------------------------------------------------------------- classifiers


@pytest.mark.parametrize("norm", ["frn", "batchnorm"])
@pytest.mark.parametrize(("name", "stem"), [("resnet8", "3x3"), ("resnet14", "7x7"), ("resnet34", "3x3")])
def test_every_split_recomposes_exactly(name, stem, norm):
    spec = NetworkSpec(name=name, width=1, channels=2, norm=norm, stem=stem)
    network, x = classifier(spec, 5), torch.rand(2, 3, 16, 16, generator=generator(seed=2))
    blocks = sum(spec.stages)
    with torch.no_grad():
        expected = network(x)
        for at in range(blocks + 1):
            features, head = network.split(f"block{at}")
            assert torch.equal(head(features(x)), expected)
    with pytest.raises(SpecError, match=f"block{blocks + 1}"):
        network.split(f"block{blocks + 1}")


def test_images_are_normalised_inside_the_network():
    plain = Classifier(RESNET8, 4, 3, (0.0,) * 3, (1.0,) * 3).eval()
    shifted = Classifier(RESNET8, 4, 3, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)).eval()
    assert plain.state_dict().keys() == shifted.state_dict().keys()
    shifted.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 8, 8, generator=generator(seed=3))
    by_hand = torch.stack([(x[:, 0] - 0.1) / 0.5, (x[:, 1] - 0.2) / 0.25, (x[:, 2] - 0.3) / 2.0], 1)
    torch.testing.assert_close(shifted(x), plain(by_hand))


def test_batchnorm_variant_uses_relu_and_running_statistics():
    spec = NetworkSpec(name="resnet8", width=1, channels=4, norm="batchnorm")
    network, x = classifier(spec, 5), torch.rand(16, 3, 8, 8, generator=generator(seed=4))
    kinds = {type(module) for module in network.modules()}
    assert {nn.BatchNorm2d, BatchNormReLU} <= kinds  # a projected shortcut has no ReLU
    assert not {FRN, nn.SiLU} & kinds
    with torch.no_grad():
        alone, together = network(x[:1]), network(x)[:1]
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)  # evaluation: the batch plays no part
        before = network(x)
        network.train()(x)
        assert not torch.allclose(network.eval()(x), before)  # training moved the statistics
    frn = NetworkSpec(name="resnet8", width=1, channels=4)
    norms = sum(module.num_features for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    assert size(classifier(frn, 5)) - size(network) == norms  # 3 against 2 parameters a channel


# ------------------------------------------------------------------------------------------------ initialisation


@pytest.mark.parametrize("kind", ["classifier", "score", "bridge"])
def test_initialisation_depends_on_its_generator_alone(kind):
    def build(global_seed, seed):
        torch.manual_seed(global_seed)
        network = {
            "classifier": lambda: Classifier(RESNET8, 5, 3, (0.5,) * 3, (0.2,) * 3),
            "score": lambda: ScoreNetwork(8, 5, "mini", sees_state=True),
            "bridge": lambda: BridgeHead(RESNET8, 5, "block2"),
        }[kind]()
        state = torch.get_rng_state()
        initialise_(network, generator(seed=seed))
        assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn from the global state
        return network.state_dict()

    one, same, other = build(0, 7), build(1, 7), build(0, 8)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_classifier_weights_are_truncated_he_normal_with_zero_bias():
    network = classifier(R32X2, 10)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            std = math.sqrt(2 / fan_in)
            count = module.weight.numel()
            assert module.weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(count))
            assert abs(module.weight.mean().item()) < 5 * std / math.sqrt(count)
            assert module.weight.abs().max() <= 2 * std / 0.8796 * 1.001
            assert module.bias.eq(0).all()


def test_score_network_mixes_he_and_lecun_normal():
    network = ScoreNetwork(64, 100, "v1.1.8", 2)
    initialise_(network, generator(seed=1))
    he = [network.stem[0], network.out, network.time.linear, *network.stage_conditions]
    lecun = [m for part in (network.stages, network.head) for m in part.modules() if isinstance(m, nn.Conv2d)]
    assert len(lecun) == 2 + 9 * 3 + 1  # one block without, nine with expansion, and the last 1x1
    for gain, modules in ((2, he), (1, lecun)):
        for module in modules:
            count = module.weight.numel()
            expected = math.sqrt(gain / module.weight[0].numel())
            assert module.weight.std().item() == pytest.approx(expected, rel=6 / math.sqrt(count))


# ------------------------------------------------------------------------------------------------- score network


def score_network(sees_state, classes=6, seed=0):
    network = ScoreNetwork(8, classes, "mini", sees_state=sees_state)
    initialise_(network, generator(seed=seed))
    return network


def test_time_embedding_is_cosines_then_sines_of_the_unscaled_time():
    embedding = TimeEmbedding(8, 3)
    seen = []
    embedding.linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    out = embedding(torch.tensor([0.0, 0.4, 1.0]))
    for row, tau in enumerate((0.0, 0.4, 1.0)):
        angles = [tau * 10000 ** (-i / 4) for i in range(4)]
        expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert seen[0][row].tolist() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(out, F.silu(embedding.linear(seen[0])))


def test_dead_logit_encoder_learns_nothing_but_its_last_bias():
    network = score_network(False).train()
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    last_bias = list(network.logits.parameters())[-1]
    for step in range(4):
        h, z = normal(8, 8, 8, 8, seed=step), 5 * normal(8, 6, seed=step + 50)
        loss = (network(h, z, torch.rand(8, generator=generator(seed=step))) - z).square().mean()
        optimizer.zero_grad()
        loss.backward()
        for parameter in network.logits.parameters():
            if parameter is last_bias:
                assert parameter.grad.abs().max() > 0
            else:
                assert parameter.grad.eq(0).all()
        optimizer.step()
    assert last_bias.ne(0).all()
    network.eval()
    h, tau = normal(4, 8, 8, 8), torch.ones(4)
    with torch.no_grad():
        assert torch.equal(network(h, normal(4, 6), tau), network(h, 100 * normal(4, 6, seed=1), tau))
        assert not torch.equal(network(h, normal(4, 6), tau), network(h.flip(0), normal(4, 6), tau))
        assert not torch.equal(network(h, normal(4, 6), tau), network(h, normal(4, 6), 0.2 * tau))


def test_a_network_that_sees_its_state_depends_on_every_logit_but_not_on_their_common_offset():
    network = score_network(True).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.01)
    h, z, tau = normal(8, 8, 8, 8), 5 * normal(8, 6, seed=1), torch.full((8,), 0.6)
    (network(h, z, tau) - z).square().mean().backward()
    optimizer.step()
    network.eval()
    with torch.no_grad():
        before = network(h, z, tau)
        for k in range(6):
            changed = z.clone()
            changed[:, k] += 1
            assert (network(h, changed, tau) - before).abs().amax(1).min() > 1e-5
        torch.testing.assert_close(network(h, z + 7, tau), before, rtol=1e-4, atol=1e-4)


def test_live_logit_path_to_the_output_starts_at_zero():
    network = score_network(True)
    pooled = network.head[0].out_channels
    assert network.out.weight[:, pooled:].eq(0).all()
    assert network.out.weight[:, :pooled].std().item() == pytest.approx(math.sqrt(2 / network.out.in_features), rel=0.3)
