"""The deployable form of predictors: the same function, with what is constant computed beforehand."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from dbn_core.bridge.denoiser import Denoiser
from dbn_core.bridge.schedule import step_variances
from dbn_core.measure.deploy import deployable, draws_numbers
from dbn_core.methods.predictors import BridgedSource, DirichletMean, FeatureMixture, Mixture, PairMixture, Tempered
from dbn_core.nets.heads import BridgeHead
from dbn_core.nets.init import initialise_
from dbn_core.nets.logit_flow import FlowingLogits, LogitFlow
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.score import ScoreNetwork
from dbn_core.nets.spec import NetworkSpec

GENERATOR = torch.Generator().manual_seed(0)


def alive(module: Any) -> Any:
    """Random weights, and statistics and affine parameters of norms that are not the identity."""
    initialise_(module, GENERATOR)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            with torch.no_grad():
                norm.weight.copy_(torch.rand(norm.num_features, generator=GENERATOR) + 0.5)
                norm.bias.copy_(torch.randn(norm.num_features, generator=GENERATOR) * 0.3)
                norm.running_mean.copy_(torch.randn(norm.num_features, generator=GENERATOR) * 0.3)
                norm.running_var.copy_(torch.rand(norm.num_features, generator=GENERATOR) + 0.5)
    return module.eval().requires_grad_(False)


def network(norm: str = "batchnorm") -> Classifier:
    spec = NetworkSpec(name="resnet8", channels=12, width=1.0, norm=norm, bias=norm == "frn")
    return alive(Classifier(spec, 5, 3, [0.5] * 3, [0.25] * 3))


def dbn(steps: int = 1, bridges: int = 1, noise: Any = "none", temperature: float | None = 2.0, **score: Any) -> Any:
    source, variances = network(), step_variances(steps, 1e-4, 1e-4)
    denoisers = []
    for _ in range(bridges):
        denoiser = alive(Denoiser(ScoreNetwork(12, 5, score.pop("architecture", "mini"), **score), variances))
        if not denoiser.network.sees_state:
            denoiser.network.logits.layers[-1].bias.fill_(0.7)  # what it learns
        denoisers.append(denoiser)
    return BridgedSource(source, "block1", denoisers, temperature, noise).eval().requires_grad_(False)


def edfm() -> FlowingLogits:
    source = network()
    flow = alive(LogitFlow(5, source.last_layer()[1].in_features, width=16))
    return FlowingLogits(source, flow, torch.randn(4, 5, generator=GENERATOR), 3).eval().requires_grad_(False)


def heads(count: int, sources: int = 1) -> list[nn.Module]:
    spec = network().spec
    return [alive(BridgeHead(spec, 5, "block1", 2.0, sources)) for _ in range(count)]


PREDICTORS = {
    "single": lambda: Mixture([network()]),
    "de": lambda: Mixture([network(), network(), network()]),
    "de, frn": lambda: Mixture([network("frn"), network("frn")]),
    "ts": lambda: Tempered(network(), 1.7),
    "end2": lambda: DirichletMean(network(), 2.0),
    "bn": lambda: FeatureMixture(network(), "block1", heads(2)),
    "bn, type 2": lambda: PairMixture([network(), network()], "block1", heads(1, 2)),
    **{f"dbn, {name}": lambda name=name: dbn(architecture=name) for name in ("mini", "compact", "v1.1.8")},
    "edfm": edfm,
    "dbn, two bridges": lambda: dbn(bridges=2),
    "dbn, five steps": lambda: dbn(steps=5),
    "dbn, live": lambda: dbn(steps=3, sees_state=True),
}


def example(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PREDICTORS)
def test_the_deployable_form_is_the_same_function(name: str) -> None:
    plain = PREDICTORS[name]()
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    folded = deployable(plain, example())
    assert folded is not plain
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    for count in (1, 7):  # other images than those that were watched
        images = example(count).flip(0)
        torch.testing.assert_close(folded(images), plain(images), atol=1e-4, rtol=0)
    assert all(torch.equal(plain.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("architecture", ["compact", "v1.1.8"])
def test_what_a_known_time_makes_constant_is_gone(architecture: str) -> None:
    folded = deployable(dbn(architecture=architecture), example())
    kinds = {type(module).__name__ for module in folded.denoisers.modules()}
    assert not kinds & {"TimeEmbedding", "DeadLogitEncoder"}
    widths = [m.out_channels for m in folded.denoisers.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert widths
    assert not [width for width in widths if width % 16]


def test_noise_is_found_and_stays() -> None:
    for noisy in (dbn(noise="posterior", steps=2), dbn(temperature=None), nn.Sequential(nn.Dropout())):
        assert draws_numbers(noisy, example())
    noisy = dbn(noise="posterior", steps=2)
    torch.testing.assert_close(deployable(noisy, example())(example()), noisy(example()), atol=1e-4, rtol=0)
    assert not draws_numbers(dbn(), example())


class TwoReaders(nn.Module):
    """A convolution whose output is read by a norm and by a sum: nothing may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        h = self.conv(images)
        return (h + self.norm(h)).mean((2, 3)).log_softmax(-1)


class SharedConvolution(nn.Module):
    """A convolution that runs twice, with a norm for each time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5), nn.BatchNorm2d(5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        terms = [norm(self.conv(images)).mean((2, 3)).log_softmax(-1) for norm in (self.one, self.two)]
        return torch.stack(terms)


@pytest.mark.parametrize("kind", [TwoReaders, SharedConvolution])
def test_a_strangers_module_that_cannot_be_folded_stays_right(kind: type[nn.Module]) -> None:
    plain = alive(kind())
    torch.testing.assert_close(deployable(plain, example())(example(5)), plain(example(5)), atol=1e-4, rtol=0)


def test_what_cannot_be_copied_is_deployed_as_it_is() -> None:
    plain = alive(TwoReaders())
    plain.session = threading.Lock()  # as the sessions of other libraries
    assert deployable(plain, example()) is plain
