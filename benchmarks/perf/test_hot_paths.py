"""Speed of the functions in which a suite spends its time: ``tox -e perf``.  Compare runs of one machine only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.environment import computes_bf16
from benchmarks.perf.gpu import context as random_context
from benchmarks.results.equivalents import equivalent
from benchmarks.statistics import Means
from dbn_core.bridge.denoiser import Denoiser
from dbn_core.bridge.schedule import step_variances
from dbn_core.data.augment import crop, draw_offsets, mix_images, mixup_coefficients
from dbn_core.data.views import Augmentation, Views
from dbn_core.measure.cost import count_in_torch
from dbn_core.measure.runtimes import Runtime, prepare, why_missing
from dbn_core.methods.context import freeze
from dbn_core.methods.predictors import BridgedSource, Mixture
from dbn_core.methods.registry import parse_method
from dbn_core.metrics.calibration import expected_calibration_error, fit_temperature
from dbn_core.nets.init import initialise_
from dbn_core.nets.norms import FRN
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.score import ScoreNetwork
from dbn_core.nets.spec import NetworkSpec
from dbn_core.train.recipe import Recipe

torch.set_num_threads(1)
NETWORKS = {
    "digits": (NetworkSpec(name="resnet8", channels=16, width=1.0), (1, 8, 8), "mini", "block2"),
    "cifar": (NetworkSpec(name="resnet32", width=2.0), (3, 32, 32), "v1.1.8", "block1"),
    "cifar10-cpu": (
        NetworkSpec(name="resnet14", channels=40, width=1.0, norm="batchnorm", bias=False, stem="3x3/2"),
        (3, 32, 32),
        "compact",
        "block1",
    ),
}


def network(kind: str, classes: int = 10) -> Classifier:
    spec, shape, _, _ = NETWORKS[kind]
    built = Classifier(spec, classes, shape[0], [0.5] * shape[0], [0.25] * shape[0])
    initialise_(built, torch.Generator().manual_seed(0))
    return built.to(memory_format=torch.channels_last)


def images(kind: str, count: int) -> torch.Tensor:
    shape = NETWORKS[kind][1]
    drawn = torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))
    return drawn.contiguous(memory_format=torch.channels_last)


def frn_by_autograd(layer: FRN, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
    """What the layer computes, without its own backward pass."""
    x = x.float()
    y = layer.gamma * x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + layer.eps) + layer.beta
    y = torch.maximum(y, layer.tau)
    y = y if residual is None else y + residual
    return F.silu(y) if layer.swish else y


def needs_bf16(precision: str) -> None:
    if precision == "bf16" and computes_bf16() is False:
        pytest.skip("this processor has no bf16 arithmetic: it would be emulated")


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize(
    ("path", "precision"), [("plain", "fp32"), ("own backward pass", "fp32"), ("own backward pass", "bf16")]
)
def test_training_step(benchmark: Any, monkeypatch: pytest.MonkeyPatch, path: str, precision: str, kind: str) -> None:
    needs_bf16(precision)
    if path == "plain":
        monkeypatch.setattr(FRN, "forward", frn_by_autograd)
    net, x = network(kind), images(kind, 128 if kind == "cifar10-cpu" else 32)
    labels = torch.arange(len(x)) % 10
    optimizer = torch.optim.SGD(net.parameters(), 0.1, 0.9)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = F.cross_entropy(net(x), labels)
        loss.backward()
        optimizer.step()

    benchmark.extra_info["macs"] = 3 * len(x) * count_in_torch(net, x[:1]).macs  # forward, and twice as many backward
    net.train()
    benchmark.pedantic(step, rounds=10, warmup_rounds=2)


@pytest.mark.parametrize("shape", [(32, 32, 32, 32), (32, 64, 16, 16), (32, 128, 8, 8), (32, 16, 8, 8)])
@pytest.mark.parametrize("path", ["plain", "own backward pass"])
def test_frn_with_swish(benchmark: Any, path: str, shape: tuple[int, int, int, int]) -> None:
    layer, drawn = FRN(shape[1], swish=path != "plain"), torch.randn(shape, generator=torch.Generator().manual_seed(3))
    x = drawn.contiguous(memory_format=torch.channels_last).requires_grad_()

    def both_ways() -> None:
        y = layer(x) if layer.swish else F.silu(layer(x))
        torch.autograd.grad(y, (x, *layer.parameters()), drawn)

    benchmark.extra_info["bytes"] = 5 * x.nbytes  # x and y; then x, the gradient of y and that of x
    benchmark.pedantic(both_ways, rounds=20, warmup_rounds=3)


def predict(benchmark: Any, predictor: torch.nn.Module, x: torch.Tensor) -> None:
    """Time predictions of a batch."""
    predictor.eval()
    benchmark.extra_info["macs"] = len(x) * count_in_torch(predictor, x[:1]).macs
    with torch.inference_mode():
        benchmark.pedantic(predictor, (x,), rounds=10, warmup_rounds=2)


def bridged(kind: str, classes: int = 10, size: int | None = None) -> BridgedSource:
    _, shape, architecture, at = NETWORKS[kind]
    net = network(kind, classes)
    channels = net.split(at)[0](torch.zeros(1, shape[0], size or shape[1], size or shape[2])).shape[1]
    score = Denoiser(ScoreNetwork(channels, classes, architecture, sees_state=True), step_variances(1, 1e-4, 1e-4))
    return BridgedSource(net, at, [score.to(memory_format=torch.channels_last)], 2.0)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("method", ["single", "de-3", "dbn"])
def test_prediction(benchmark: Any, kind: str, method: str) -> None:
    members = 3 if method == "de-3" else 1
    predict(
        benchmark,
        bridged(kind) if method == "dbn" else Mixture([network(kind) for _ in range(members)]),
        images(kind, 16),
    )


@pytest.mark.parametrize("batch", [1, 128])
@pytest.mark.parametrize("runtime", ["eager", "compiled", "onnxruntime"])
@pytest.mark.parametrize("method", ["single", "de-3", "dbn"])
def test_inference(benchmark: Any, method: str, runtime: Runtime, batch: int) -> None:
    """One prediction in each runtime."""
    if reason := why_missing(runtime, torch.device("cpu")):
        pytest.skip(reason)
    kind, members = "cifar10-cpu", 3 if method == "de-3" else 1
    predictor = freeze(bridged(kind) if method == "dbn" else Mixture(network(kind) for _ in range(members)))
    ready = prepare(runtime, predictor, torch.rand(2, 3, 32, 32), threads=1)
    x = images(kind, batch)
    benchmark.extra_info["macs"] = batch * count_in_torch(predictor, x[:1]).macs
    with torch.inference_mode():
        benchmark.pedantic(ready, (x.contiguous() if runtime == "onnxruntime" else x,), rounds=20, warmup_rounds=2)


# How cost grows: each with a network of the papers' size, at batch 16.


@pytest.mark.parametrize("members", [1, 2, 4, 8, 16])
def test_growth_with_members(benchmark: Any, members: int) -> None:
    predict(benchmark, Mixture([network("cifar") for _ in range(members)]), images("cifar", 16))


@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize("kind_of", ["one network", "DBN"])
def test_growth_with_classes(benchmark: Any, kind_of: str, classes: int) -> None:
    predictor = bridged("cifar", classes) if kind_of == "DBN" else Mixture([network("cifar", classes)])
    predict(benchmark, predictor, images("cifar", 16))


@pytest.mark.parametrize("size", [32, 64, 96])
@pytest.mark.parametrize("kind_of", ["one network", "DBN"])
def test_growth_with_image_size(benchmark: Any, kind_of: str, size: int) -> None:
    x = torch.rand(16, 3, size, size, generator=torch.Generator().manual_seed(1))
    predictor = bridged("cifar", size=size) if kind_of == "DBN" else Mixture([network("cifar")])
    predict(benchmark, predictor, x.contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
@pytest.mark.parametrize("method", ["single", "dbn"])
def test_growth_with_batch(benchmark: Any, method: str, batch: int) -> None:
    predict(benchmark, bridged("cifar") if method == "dbn" else Mixture([network("cifar")]), images("cifar", batch))


@pytest.mark.parametrize("teachers", [3, 8])
@pytest.mark.parametrize("taught", ["online", "stored"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bridge_epoch(benchmark: Any, precision: str, taught: str, teachers: int) -> None:
    """An epoch of a one-step bridge on 512 images, with M teachers that run, or whose logits are stored."""
    needs_bf16(precision)
    count = 512
    spec = NetworkSpec(name="resnet8", channels=48, width=1.0, norm="batchnorm", bias=False, stem="3x3/2")
    context = random_context(spec, torch.device("cpu"), count)
    context.recipe = Recipe(crop_pad=0, precision=precision)
    context.members = [context.new_network(f"member {m}").eval() for m in range(teachers)]
    if taught == "stored":
        context.stored_views = Views(context.data.train, Augmentation(0, True, 0.4), 1, {})
        context.stored_logits = [torch.randn(1, count, 10).half() for _ in range(teachers)]
    bridge = parse_method(f"direct[epochs=2,members_per_bridge={teachers},score_network=compact,sees_state=false]")
    part = bridge.parts(teachers)[0]
    benchmark.extra_info["epochs"] = 2
    benchmark.pedantic(bridge.fit, (part, context), rounds=3, warmup_rounds=1)


def test_augmentation(benchmark: Any) -> None:
    x, generator = images("cifar", 128), torch.Generator().manual_seed(0)

    def augment() -> torch.Tensor:
        cropped = crop(x, 4, draw_offsets(len(x), 4, generator))
        return mix_images(cropped, cropped[torch.randperm(128)], mixup_coefficients(128, 0.4, generator, True))

    benchmark.extra_info["bytes"] = 5 * x.nbytes  # read and written cropped; then two read, and one written
    benchmark(augment)


def predictions(n: int = 10_000, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, k)) * 3
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), rng.integers(0, k, n)


def test_calibration_error(benchmark: Any) -> None:
    benchmark(expected_calibration_error, *predictions())


def test_temperature(benchmark: Any) -> None:
    benchmark(fit_temperature, *predictions())


def test_equivalent_with_its_interval(benchmark: Any) -> None:
    """Of one method, with eight ensembles, three repetitions and 10,000 examples."""
    gaps = np.random.default_rng(0).normal(np.linspace(-0.01, 0.01, 8)[:, None, None], size=(8, 3, 10_000))
    benchmark(lambda: equivalent(Means(gaps), range(1, 9)))
