"""Alignment: channels change places, the function stays, and what was permuted is found again."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from dbn_core.errors import SpecError
from dbn_core.nets import NetworkSpec
from dbn_core.nets.align import Channels, align, correlate, match, permute, stream_of_blocks
from dbn_core.nets.init import initialise_
from dbn_core.nets.norms import FRN
from dbn_core.nets.resnet import Classifier
from dbn_core.rng import generator

# Width 1: the stem and the first stage are one stream; width 2: a projection parts them.
CASES = pytest.mark.parametrize(
    ("norm", "spec"),
    [
        pytest.param("frn", {"name": "resnet8", "width": 1}, id="joined stem"),
        pytest.param("batchnorm", {"name": "resnet14", "width": 2}, id="two blocks a stage"),
        pytest.param("frn", {"name": "resnet8", "width": 2, "bias": False}, id="no bias"),
        pytest.param("batchnorm", {"name": "resnet8", "width": 1, "stem": "7x7"}, id="7x7"),
        pytest.param("frn", {"name": "resnet8", "width": 2, "stem": "3x3/2"}, id="3x3/2"),
        pytest.param("batchnorm", {"name": "resnet34", "width": 1}, id="four stages"),
    ],
)


def network(seed, norm="frn", **spec):
    """A network in which no two channels are alike, in its norm layers neither."""
    found = Classifier(NetworkSpec(channels=6, norm=norm, **spec), 5, 3, (0.5,) * 3, (0.2,) * 3)
    g = generator(seed=seed)
    initialise_(found, g)
    with torch.no_grad():
        for module in found.modules():
            if isinstance(module, FRN | nn.BatchNorm2d):
                for parameter in module.parameters():
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # statistics of the one batch below
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.normal_(0, 0.1, generator=g)
        found.train()(images(seed=9).float() / 255)
    return found.eval()


def images(count=24, seed=0):
    return torch.randint(0, 256, (count, 3, 32, 32), generator=generator(seed=seed), dtype=torch.uint8)


def logits(model, x):
    with torch.no_grad():
        return model(x.float() / 255)


def shuffled(model, seed):
    g, channels = generator(seed=seed), [block.conv1.out_channels for block in model.blocks[1:]]
    of_stream = dict(zip(stream_of_blocks(model), [model.blocks[0][1].out_channels, *channels], strict=True))
    order = Channels(
        [torch.randperm(count, generator=g) for count in of_stream.values()],
        [torch.randperm(count, generator=g) for count in channels],
    )
    return permute(model, order)


@CASES
def test_an_aligned_network_computes_the_same_function(spec, norm):
    model, reference = network(1, norm, **spec), network(2, norm, **spec)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    aligned = align(model, reference, images())
    torch.testing.assert_close(logits(aligned, images(seed=1)), logits(model, images(seed=1)), rtol=1e-5, atol=1e-5)
    after = aligned.state_dict()
    changed = {name.rpartition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    # Every layer really moved, its norm and the classifier's inputs too, and the network given stayed as it was.
    assert changed == {name.rpartition(".")[0] for name, value in before.items() if value.ndim}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@CASES
def test_a_permuted_network_is_recovered_exactly(spec, norm):
    original = network(3, norm, **spec)
    permuted = shuffled(original, 4)
    torch.testing.assert_close(logits(permuted, images()), logits(original, images()), rtol=1e-5, atol=1e-5)
    expected, got = original.state_dict(), align(permuted, original, images()).state_dict()
    assert any(not torch.equal(permuted.state_dict()[name], expected[name]) for name in expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_alignment_raises_the_correlation_of_every_layer():
    spec = {"name": "resnet14", "width": 2}
    model, reference = network(1, "batchnorm", **spec), network(2, "batchnorm", **spec)
    before = correlate(model, reference, images())
    after = correlate(align(model, reference, images()), reference, images())
    for old, new in zip(before.streams + before.inner, after.streams + after.inner, strict=True):
        best = old[torch.arange(len(old)), match(old)].sum()
        assert new.trace() > old.trace()
        assert new.trace().item() == pytest.approx(best.item(), abs=1e-4)


def test_correlations_are_pearsons_over_images_and_pixels():
    model, reference = network(1, name="resnet14", width=1), network(2, name="resnet14", width=1)
    found = correlate(model, reference, images(130))  # more than one batch
    x = images(130).float() / 255

    def pearson(a, b):
        a, b = (h.double().transpose(0, 1).flatten(1) for h in (a, b))
        return torch.corrcoef(torch.cat((a, b)))[: len(a), len(a) :]

    def after(at):
        return [each.split(f"block{at}")[0](x) for each in (reference, model)]

    with torch.no_grad():
        inside = [
            each.blocks[2].norm1(each.blocks[2].conv1(h)) for each, h in zip((reference, model), after(1), strict=True)
        ]
        torch.testing.assert_close(found.inner[1], pearson(*inside), rtol=1e-3, atol=1e-3)
        # Width 1: the stem and both blocks of the first stage write to one stream.
        first = sum(pearson(*after(at)) for at in (0, 1, 2))
        torch.testing.assert_close(found.streams[0], first, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("width", "name", "streams"),
    [(1, "resnet14", [0, 0, 0, 1, 1, 2, 2]), (2, "resnet14", [0, 1, 1, 2, 2, 3, 3]), (1, "resnet8", [0, 0, 1, 2])],
)
def test_blocks_joined_by_identity_shortcuts_share_a_stream(width, name, streams):
    assert stream_of_blocks(network(0, name=name, width=width)) == streams


def test_the_assignment_is_the_best_of_all():
    correlation = torch.randn(5, 5, generator=generator(seed=0), dtype=torch.float64)

    def total(order):
        return sum(correlation[row, column] for row, column in enumerate(order))

    assert tuple(match(correlation).tolist()) == max(itertools.permutations(range(5)), key=total)


def test_a_dead_channel_correlates_with_nothing():
    model, reference = (
        network(1, "batchnorm", name="resnet8", width=1),
        network(2, "batchnorm", name="resnet8", width=1),
    )
    with torch.no_grad():
        model.blocks[1].norm1.weight[2] = 0
        model.blocks[1].norm1.bias[2] = -1  # the activation is zero everywhere
    found = correlate(model, reference, images())
    assert found.inner[0][:, 2].abs().max() == 0
    assert all(torch.isfinite(matrix).all() for matrix in found.streams + found.inner)


def test_networks_of_other_shapes_are_refused():
    with pytest.raises(SpecError, match="one architecture"):
        align(network(1, name="resnet8", width=1), network(1, name="resnet8", width=2), images())
