"""Wide residual networks and ResNets with pre-activation, against published sizes and a network written from the paper.

The reference calls torch's functions on the tensors of our state, block by block as in Zagoruyko and Komodakis, 2016,
but for the padding of strided convolutions, which is "SAME" in all built-in networks.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import baselines as baselines  # adds the methods to the table
from dbn_core.errors import PluginError, SpecError
from dbn_core.measure.cost import measure_cost
from dbn_core.measure.deploy import deployable
from dbn_core.methods.predictors import Mixture
from dbn_core.methods.registry import parse_method
from dbn_core.nets.heads import BridgeHead
from dbn_core.nets.init import initialise_
from dbn_core.nets.plugins import register_network
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.spec import NetworkSpec, classifier_spec

NARROW = {"name": "wrn10-2", "channels": 4}
THIN = {"name": "resnet8", "channels": 4, "width": 1.0, "preactivation": True, "norm": "batchnorm", "bias": False}


def network(options: dict, classes: int = 5) -> Classifier:
    """Random weights, and norms that are not the identity."""
    built, draws = Classifier(classifier_spec(options), classes, 3, (0.4,) * 3, (0.2,) * 3), torch.Generator()
    initialise_(built, draws.manual_seed(0))
    for name, tensor in built.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=draws) + 0.5)
    return built.eval()


def images(count: int = 3, side: int = 12) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def by_the_paper(state: dict[str, torch.Tensor], x: torch.Tensor, blocks: int, stages: int = 3) -> torch.Tensor:
    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    def convolve(x: torch.Tensor, weight: torch.Tensor, stride: int = 1) -> torch.Tensor:
        before = 1 if stride == 1 else 0
        return F.conv2d(F.pad(x, (before, 1, before, 1)), weight, stride=stride)

    x = convolve((x - 0.4) / 0.2, state["blocks.0.1.weight"])
    index = 0
    for stage in range(stages):
        for position in range(blocks):
            index += 1
            stride, at = 2 if stage and not position else 1, f"blocks.{index}"
            out = F.relu(norm(x, f"{at}.norm1"))
            y = convolve(out, state[f"{at}.conv1.weight"], stride)
            y = convolve(F.relu(norm(y, f"{at}.norm2")), state[f"{at}.conv2.weight"])
            projection = state.get(f"{at}.shortcut.weight")
            x = y + (x if projection is None else F.conv2d(out, projection, stride=stride))
    x = F.relu(norm(x, f"blocks.{index}.out_norm"))
    return F.linear(x.mean((2, 3)), state["head.linear.weight"], state["head.linear.bias"])


@pytest.mark.parametrize("options", [NARROW, THIN, {"name": "wrn16-1", "channels": 4}], ids=lambda o: o["name"])
def test_logits_are_those_of_the_paper_s_network(options: dict) -> None:
    built, x = network(options), images()
    with torch.no_grad():
        expected = by_the_paper(built.state_dict(), x, built.spec.stages[0])
        torch.testing.assert_close(built(x), expected, rtol=1e-4, atol=1e-5)


def test_wrn_28_10_has_the_published_size_and_cost() -> None:
    spec = classifier_spec({"name": "wrn28-10"})
    with torch.device("meta"):
        built = Classifier(spec, 10, 3, (0.5,) * 3, (0.2,) * 3)
    assert sum(p.numel() for p in built.parameters()) == 36_479_194  # published: 36.5 M
    # Width scales both sides of nearly every convolution: 1/10 of the channels is 1/100 of the cost but for the ends.
    narrow = measure_cost(Classifier(spec.scaled(0.25), 10, 3, (0.5,) * 3, (0.2,) * 3), torch.zeros(1, 3, 32, 32))
    convolutions = 27 * 1024 * 16  # of the stem, which alone is scaled on one side
    head = 640 * 10
    assert (narrow.macs - (convolutions + head) / 4) * 16 + convolutions + head == 5_243_328_768  # published: 5.2 G


def test_the_name_says_the_form_and_the_rest_is_free() -> None:
    spec = classifier_spec({"name": "wrn28-10"})
    assert (spec.width, spec.norm, spec.bias, spec.preactivation) == (10.0, "batchnorm", False, True)
    assert NetworkSpec.model_validate(spec.model_dump()) == spec
    assert classifier_spec({"name": "wrn16-4", "norm": "frn"}).norm == "frn"
    assert spec.label == "WRN-28-10 (BN-ReLU, stem 16)"
    assert "preactivation" not in NetworkSpec(name="resnet20").key()
    for options, words in (
        ({"width": 5.0}, "says width = 10"),
        ({"preactivation": False}, "says preactivation = true"),
        ({"name": "wrn27-10"}, "unknown network 'wrn27-10'"),
        ({"name": "wrn28"}, "unknown network 'wrn28'"),
    ):
        with pytest.raises((SpecError, ValueError), match=words):
            classifier_spec({"name": "wrn28-10"} | options)
    with pytest.raises(PluginError, match="reserved"):
        register_network("wrn-of-mine")


@pytest.mark.parametrize("options", [NARROW, THIN | {"norm": "frn"}], ids=lambda o: o["name"])
def test_every_split_recomposes_exactly_and_takes_a_bridge(options: dict) -> None:
    built, x = network(options), images()
    for index in range(len(built.blocks)):
        features, head = built.split(f"block{index}")
        h = features(x)
        assert torch.equal(head(h), built(x))
        assert h.shape[1] == built.spec.feature_channels(f"block{index}")
    bridge = BridgeHead(built.spec, 5, "block1")
    own = [p.shape for p in built.split("block1")[1].parameters()]
    assert [p.shape for p in bridge.parameters()] == own
    assert bridge(built.split("block1")[0](x)).shape == (3, 5)


def test_a_norm_is_not_folded_into_a_convolution_that_a_residual_reads_too() -> None:
    plain, x = Mixture([network(THIN)]), images()
    folded = deployable(plain, x)
    assert folded is not plain
    torch.testing.assert_close(folded(x), plain(x), rtol=1e-4, atol=1e-4)
    norms = [name for name, module in folded.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms == [f"networks.0.blocks.{i}.norm1" for i in (1, 2, 3)] + ["networks.0.blocks.3.out_norm"]


def test_alignment_is_refused_beforehand() -> None:
    with pytest.raises(SpecError, match="align=true permutes channels of networks without pre-activation"):
        parse_method("bn[align=true,split_at=block2]").check_network(classifier_spec(NARROW))
