"""Packed-Ensembles, BatchEnsemble, Masksembles and MIMO against networks of their own, and published sizes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from dbn_core.errors import SpecError
from dbn_core.measure.cost import measure_cost
from dbn_core.nets import NetworkSpec
from dbn_core.nets.init import initialise_
from dbn_core.nets.one_network import (
    Masked,
    MultiInput,
    PackedNetwork,
    RankOne,
    batch_ensemble,
    draw_masks,
    masksemble,
    shuffled_rows,
)
from dbn_core.nets.resnet import Classifier
from dbn_core.rng import generator
from tests.support.fitting import RECIPE, fit, fresh, images, spec

R14C40 = NetworkSpec(name="resnet14", channels=40, width=1, norm="batchnorm", bias=False, stem="3x3/2")
PARAMS, MACS = 1_087_090, 41_238_080
NORMS = pytest.mark.parametrize("norm", ["frn", "batchnorm"])


def released(classes=10, channels=3):
    return Classifier(R14C40, classes, channels, (0.5,) * channels, (0.2,) * channels)


def cost(network):
    return measure_cost(network, torch.zeros(1, 3, 32, 32))


def ready(module, seed=0):
    initialise_(module, generator(seed=seed))
    return module.eval().requires_grad_(False)


# ----------------------------------------------------------------------------------------------------------- packed


@NORMS
def test_one_packed_member_is_the_network_bit_for_bit(norm):
    network, packed = fresh(norm), PackedNetwork(fresh(norm), 1, 1.0, 1).eval()
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("head")}
    packed.blocks.load_state_dict({name.removeprefix("blocks."): tensor for name, tensor in state.items()})
    packed.weight.data = network.head.linear.weight.data[None]
    packed.bias.data = network.head.linear.bias.data[None, None]
    assert torch.allclose(packed(images())[0], network(images()), atol=1e-6)


@NORMS
def test_as_wide_as_all_members_it_is_these_networks_one_by_one(norm):
    members, packed = [fresh(norm, seed=seed) for seed in range(3)], PackedNetwork(fresh(norm), 3, 3.0, 1).eval()
    states = [member.state_dict() for member in members]
    wide = {
        name: tensor if tensor.ndim == 0 else torch.cat([state[name] for state in states])
        for name, tensor in states[0].items()
        if not name.startswith("head")
    }
    packed.blocks.load_state_dict({name.removeprefix("blocks."): tensor for name, tensor in wide.items()})
    packed.weight.data = torch.stack([member.head.linear.weight.data for member in members])
    packed.bias.data = torch.stack([member.head.linear.bias.data for member in members])[:, None]
    assert torch.allclose(packed(images()), torch.stack([member(images()) for member in members]), atol=1e-5)


def test_a_packed_member_depends_on_its_own_groups_alone():
    packed = ready(PackedNetwork(fresh(), 2, 2.0, 1))
    before = packed(images())
    second = packed.blocks[2].conv1.weight
    second[len(second) // 2 :] += 1.0
    after = packed(images())
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1], atol=1e-3)


def test_packed_networks_have_the_sizes_of_the_formula():
    one = cost(PackedNetwork(released(), 4, 2.0, 1))
    assert (one.macs, one.params) == (41_516_160, 1_092_600)
    half = cost(PackedNetwork(released(), 4, 2.0, 2))
    assert (half.macs / MACS, half.params / PARAMS) == pytest.approx((0.510, 0.508), abs=0.002)
    with pytest.raises(SpecError, match="4 channels times alpha = 1 do not divide into 3"):
        PackedNetwork(fresh(), 3, 1.0, 1)


# --------------------------------------------------------------------------------------------------- batch ensemble


@NORMS
def test_members_have_the_weights_times_their_factors(norm):
    network, x = batch_ensemble(fresh(norm), 3), images()
    base = fresh(norm)
    for layer in network.modules():
        if isinstance(layer, RankOne) and layer.b is not None:
            layer.b.data += 0.1  # as the biases of the base below
    for name, parameter in base.named_parameters():
        if name.endswith("bias") and "norm" not in name and parameter.ndim == 1 and parameter.numel() > 0:
            module = base.get_submodule(name.rpartition(".")[0])
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                parameter.data += 0.1
    assert all(torch.allclose(term, base(x), atol=1e-5) for term in network.eval()(x))
    draws = generator(seed=1)
    layers = [layer for layer in network.modules() if isinstance(layer, RankOne)]
    plain = [layer for layer in base.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    for layer, own in zip(layers, plain, strict=True):
        layer.r.data, layer.s.data = (1 + 0.5 * torch.randn(t.shape, generator=draws) for t in (layer.r, layer.s))
        outer = layer.s[1][:, None] * layer.r[1]
        own.weight.data *= outer.view(*outer.shape, *[1] * (own.weight.ndim - 2))
    assert torch.allclose(network(x)[1], base(x), atol=1e-4)
    order = torch.tensor([2, 0, 1])
    before = network(x)
    for layer in layers:
        for fast in (layer.r, layer.s, layer.b):
            if fast is not None:
                fast.data = fast.data[order]
    assert torch.allclose(network(x), before[order], atol=1e-5)


def test_batch_ensemble_has_the_size_of_the_formula():
    made = cost(batch_ensemble(released(), 4))
    assert (made.macs, made.params) == (4 * MACS, 1_097_892)


def test_a_piece_of_the_batch_teaches_its_own_member():
    network = batch_ensemble(fresh().requires_grad_(True), 3)
    F.cross_entropy(network(images(), pieces=True)[1], torch.tensor([0, 1])).backward()
    layers = [layer for layer in network.modules() if isinstance(layer, RankOne)]
    for layer in layers:
        assert torch.equal(layer.r.grad[[0, 2]], torch.zeros_like(layer.r[[0, 2]]))
        assert layer.layer.weight.grad.abs().max() > 0
    assert all(layer.r.grad[1].abs().max() > 0 for layer in layers)


def test_factors_have_no_weight_decay():
    decayed, free = (
        fit("batch-ensemble[epochs=1]", 2, recipe=RECIPE.replace(weight_decay=decay, lr=1e-3, batch_size=64))[
            "network-2"
        ]
        for decay in (0.5, 0.0)
    )
    name = "network.head.linear"
    assert torch.allclose(decayed[f"{name}.r"], free[f"{name}.r"], atol=1e-6)
    assert not torch.allclose(decayed[f"{name}.layer.weight"], free[f"{name}.layer.weight"], atol=1e-4)


# ------------------------------------------------------------------------------------------------------- masksembles


@pytest.mark.parametrize(("channels", "scale", "ones"), [(160, 2.0, 85), (40, 2.0, 21), (64, 3.0, None)])
def test_masks_use_all_channels_and_overlap_as_they_should(channels, scale, ones):
    overlaps = []
    for seed in range(20):
        masks = draw_masks(4, channels, scale, generator(seed=seed))
        assert masks.any(0).all()
        assert len(set(masks.sum(1).tolist())) == 1
        assert ones in (None, int(masks[0].sum()))
        for a, b in itertools.combinations(masks.bool(), 2):
            overlaps.append(float((a & b).sum() / (a | b).sum()))
    assert sum(overlaps) / len(overlaps) == pytest.approx(1 / (2 * scale - 1), abs=0.03)


@pytest.mark.parametrize(("members", "channels"), [(8, 11), (2, 4), (4, 16), (1, 8)])
def test_masks_of_few_channels_are_found(members, channels):
    masks = draw_masks(members, channels, 2.0, generator(seed=0))
    assert masks.shape == (members, channels)
    assert masks.any(0).all()


def test_without_masks_all_members_are_the_network_and_with_them_they_ignore_what_is_masked():
    network = fresh()
    alike = masksemble(fresh(), 3, 1.0)
    assert all(torch.allclose(term, network(images()), atol=1e-5) for term in alike(images()))
    masked = ready(masksemble(fresh(), 2, 2.0))
    layer = next(layer for layer in masked.modules() if isinstance(layer, Masked))
    before = masked(images())
    alone = (layer.masks[0] == 1) & (layer.masks[1] == 0)
    layer.layer.weight[:, alone] += 1.0
    after = masked(images())
    assert torch.equal(before[1], after[1])
    assert not torch.allclose(before[0], after[0], atol=1e-3)


# -------------------------------------------------------------------------------------------------------------- mimo


def mimo(members, base=None):
    network = Classifier(spec(), 4 * members, members, (0.5,) * members, (0.3,) * members)
    initialise_(network, generator(seed=5))
    if base is not None:  # the first member is the base, the others read nothing
        state = {name: t for name, t in base.state_dict().items() if "head" not in name and name != "blocks.0.1.weight"}
        network.load_state_dict(state, strict=False)
        stem, head = network.blocks[0][1].weight.data, network.head.linear
        stem.zero_()[:, :1] = base.blocks[0][1].weight.data
        head.weight.data[:4], head.bias.data[:4] = base.head.linear.weight.data, base.head.linear.bias.data
    return MultiInput(network, members, 1).eval()


def test_the_first_member_reads_its_own_image_where_the_stem_says_so():
    base, x = fresh(), images()
    assert torch.allclose(mimo(1, base)(x)[0], base(x), atol=1e-6)
    network = mimo(3, base)
    others = torch.cat([x, 1 - x, x.flip(0)], 1)
    assert torch.allclose(network(others)[0], base(x), atol=1e-5)
    assert torch.equal(network(x), network(x.repeat(1, 3, 1, 1)))


def test_mimo_has_the_size_of_the_formula():
    made = cost(MultiInput(released(30, 9), 3, 3))
    assert (made.macs / MACS, made.params / PARAMS) == pytest.approx((1.0135, 1.0049), abs=1e-4)


def test_every_member_sees_every_image_equally_often():
    free = shuffled_rows(10, 3, 4, generator(seed=0))
    assert all(order.bincount().tolist() == [4] * 10 for order in free)
    assert not torch.equal(free[0], free[1])
