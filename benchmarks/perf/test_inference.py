"""How long one prediction takes in each runtime: ``tox -e perf``; ``ratio`` is to a single network beside it."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.suite.load import load_suite
from dbn_core.bridge.denoiser import Denoiser
from dbn_core.bridge.schedule import step_variances
from dbn_core.measure.cost import measure_cost
from dbn_core.measure.latency import measure_latency
from dbn_core.measure.runtimes import Network, Runtime, prepare, why_missing
from dbn_core.methods.context import freeze
from dbn_core.methods.predictors import BridgedSource, Mixture
from dbn_core.nets.init import initialise_
from dbn_core.nets.resnet import Classifier
from dbn_core.nets.score import ScoreNetwork

torch.set_num_threads(1)
RUNTIMES: tuple[Runtime, ...] = ("eager", "compiled", "onnxruntime")


def drawn(module: Any, seed: int) -> Any:
    initialise_(module, torch.Generator().manual_seed(seed))
    return module.to(memory_format=torch.channels_last)


def member(seed: int) -> Classifier:
    spec: Any = load_suite("cifar10-small").network
    return drawn(Classifier(spec, 10, 3, [0.5] * 3, [0.25] * 3), seed)


@cache
def predictor(method: str) -> nn.Module:
    """On the network of cifar10-small, with random weights."""
    if method != "DBN":
        return freeze(Mixture(member(seed) for seed in range(3 if method == "DE-3" else 1)))
    score = ScoreNetwork(32, 10, "compact", 0.65)
    return freeze(BridgedSource(member(0), "block1", [drawn(Denoiser(score, step_variances(1, 1e-4, 1e-4)), 1)], 2.0))


@cache
def prepared(runtime: Runtime, method: str) -> Network:
    return prepare(runtime, predictor(method), torch.rand(2, 3, 32, 32), threads=1)


@pytest.mark.parametrize("batch", [1, 128])
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("method", ["single", "DE-3", "DBN"])
def test_inference(benchmark: Any, method: str, runtime: Runtime, batch: int) -> None:
    if reason := why_missing(runtime, torch.device("cpu")):
        pytest.skip(reason)
    network, unit, example = prepared(runtime, method), prepared(runtime, "single"), torch.zeros(1, 3, 32, 32)
    images = torch.rand(batch, 3, 32, 32)
    if runtime != "onnxruntime":
        images = images.contiguous(memory_format=torch.channels_last)
    beside = measure_latency({"unit": unit, "method": network}, "unit", images, repeats=100 if batch == 1 else 20)
    benchmark.extra_info["ratio"] = round(beside["method"].ratio, 3)
    benchmark.extra_info["flops_ratio"] = round(
        measure_cost(predictor(method), example).macs / measure_cost(predictor("single"), example).macs, 3
    )
    with torch.inference_mode():
        benchmark.pedantic(network, (images,), rounds=20, warmup_rounds=2)
