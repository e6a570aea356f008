"""Measure a GPU: ceilings, training steps, trainings side by side, prediction.

``python benchmarks/perf/gpu.py`` takes some minutes and writes the table ``results/perf/gpu.md``.  Speeds are medians
of rounds of the suite's own training loop on random images.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dbn_core.bridge.denoiser import Denoiser
from dbn_core.bridge.schedule import step_variances
from dbn_core.data.dataset import Dataset, Split
from dbn_core.measure.cost import count_in_torch
from dbn_core.measure.deploy import deployable
from dbn_core.methods.context import FitContext
from dbn_core.methods.predictors import BridgedSource, Mixture
from dbn_core.nets.score import ScoreNetwork
from dbn_core.nets.spec import NetworkSpec
from dbn_core.train.loop import train
from dbn_core.train.recipe import Recipe

BATCH = 128
CALLS = 20  # of a predictor, in each round
NETWORKS = {
    "ResNet-8, 32 channels, stem 3x3/2": NetworkSpec(
        name="resnet8", channels=32, width=1.0, norm="batchnorm", bias=False, stem="3x3/2"
    ),
    "ResNet-14, 32 channels, stem 3x3/2": NetworkSpec(
        name="resnet14", channels=32, width=1.0, norm="batchnorm", bias=False, stem="3x3/2"
    ),
    "ResNet-20, 16 channels": NetworkSpec(name="resnet20", width=1.0, norm="batchnorm", bias=False),
    "ResNet-32 x2, FRN": NetworkSpec(),
}
SIDE_BY_SIDE = "ResNet-14, 32 channels, stem 3x3/2"


def context(spec: NetworkSpec, device: torch.device, images: int) -> FitContext:
    """Random images on the device, and the suite's network."""
    draw = torch.Generator().manual_seed(0)
    split = Split(
        torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=draw), torch.arange(images) % 10
    ).to(device)
    names = tuple("abcdefghij")
    data = Dataset("random", "random", split, split, split, names, (0.5,) * 3, (0.25,) * 3, True)
    return FitContext(data, spec, device, {})


def timed(work: Callable[[], object], device: torch.device, rounds: int = 5) -> float:
    """Median seconds of a round, the device's queue emptied before and after."""
    seconds = []
    for _ in range(rounds):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ceilings(device: torch.device, size: int = 8192) -> Iterator[list[str]]:
    """Arithmetic of a matrix product, and bytes read and written by a copy."""
    for precision in ("bf16", "fp32"):
        rate = matrix_rate(precision, device, size)
        yield [f"matrix product, {precision}", f"{rate / 1e12:,.0f} TFLOP/s"]
    yield ["copy", f"{copy_rate(device, 4 * size * size) / 1e9:,.0f} GB/s"]


def matrix_rate(precision: str, device: torch.device, size: int = 8192, rounds: int = 5) -> float:
    """Operations a second of a matrix product of float32 or bf16 numbers."""
    a, b = torch.randn(2, size, size, device=device).to(torch.bfloat16 if precision == "bf16" else torch.float32)
    torch.mm(a, b)
    return 2 * size**3 / timed(lambda: torch.mm(a, b), device, rounds)


def copy_rate(device: torch.device, count: int) -> float:
    """Bytes a second, read and written, of a copy of ``count`` float32 numbers in memory."""
    source, target = torch.ones(2, count, device=device)
    target.copy_(source)
    return 2 * source.nbytes / timed(lambda: target.copy_(source), device)


def training(device: torch.device, steps: int = 60, rounds: int = 3) -> Iterator[list[str]]:
    """Images a second of a member's training, augmentation and optimiser included."""
    peak = matrix_rate("bf16", device)
    for name, spec in NETWORKS.items():
        work, plain = context(spec, torch.device("cpu"), 8), None
        macs = count_in_torch(work.new_network(), torch.rand(1, 3, 32, 32)).macs
        for precision, path in (("fp32", "eager"), ("bf16", "eager"), ("bf16", "CUDA graph")):
            if path == "eager" or device.type == "cuda":
                epoch = member_epoch(spec, precision, path, device, steps)
                speed = BATCH * steps / timed(epoch, device, rounds)
                plain = plain or speed
                share = 6 * macs * speed / peak  # forward, and twice as many backward
                yield [name, precision, path, f"{speed:,.0f}", f"{speed / plain:.2f}", f"{share:.2%}"]


def member_epoch(
    spec: NetworkSpec, precision: str, path: str, device: torch.device, steps: int
) -> Callable[[], object]:
    """An epoch of a member's training, ready: kernels are set up."""
    work = context(spec, device, BATCH * steps)
    recipe = Recipe(epochs=1, batch_size=BATCH, lr=0.01, precision=precision)
    network, draws = work.new_network(), work.generator("train")
    called: Any = network
    if path == "CUDA graph":
        sample = torch.rand(BATCH, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
            called = torch.cuda.make_graphed_callables(network, (sample,))
    step = work.task.member_step(called, recipe, draws)
    epoch = partial(train, network, step, work.data.train, recipe, flip=True, generator=draws, device=device)
    epoch()
    return epoch


def _worker(gate: Any, results: Any, device: torch.device, steps: int) -> None:
    torch.set_num_threads(1)
    epoch = member_epoch(NETWORKS[SIDE_BY_SIDE], "bf16", "eager", device, steps)
    wait(device)
    gate.wait()
    started = time.perf_counter()
    epoch()
    wait(device)
    results.put((started, time.perf_counter()))


def side_by_side(
    device: torch.device, steps: int = 400, counts: Iterable[int] = (1, 2, 4, 8, 14)
) -> Iterator[list[str]]:
    """Images a second of trainings in as many processes, all together."""
    spawn, one = multiprocessing.get_context("spawn"), None
    for count in counts:
        gate, results = spawn.Barrier(count), spawn.Queue()
        workers = [spawn.Process(target=_worker, args=(gate, results, device, steps)) for _ in range(count)]
        for worker in workers:
            worker.start()
        spans = [results.get(timeout=300) for _ in workers]
        for worker in workers:
            worker.join()
        speed = count * BATCH * steps / (max(end for _, end in spans) - min(start for start, _ in spans))
        one = one or speed
        yield [str(count), f"{speed:,.0f}", f"{speed / one:.2f}"]


def prediction(device: torch.device, batches: Iterable[int] = (1, 128, 1024)) -> Iterator[list[str]]:
    """Milliseconds of a batch, as deployed, eager and as a CUDA graph: one network, three, and a DBN of three."""
    for name in (SIDE_BY_SIDE, "ResNet-32 x2, FRN"):
        work = context(NETWORKS[name], device, 8)
        networks = [work.new_network(f"member {m}") for m in range(3)]
        channels = networks[0].split("block1")[0](torch.rand(1, 3, 32, 32, device=device)).shape[1]
        bridge = Denoiser(ScoreNetwork(channels, 10, "v1.1.8"), step_variances(1, 1e-4, 1e-4)).to(device)
        methods: dict[str, nn.Module] = {
            "one network": Mixture(networks[:1]),
            "DE-3": Mixture(networks),
            "DBN-3": BridgedSource(networks[0], "block1", [bridge], 2.0),
        }
        for batch in batches:
            images = torch.rand(batch, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
            single: dict[str, float] = {}
            for method, predictor in methods.items():
                macs = count_in_torch(predictor, images[:1]).macs
                single.setdefault("macs", macs)
                for path, seconds in predictions_of(predictor, images).items():
                    ratio, flops = seconds / single.setdefault(path, seconds), macs / single["macs"]
                    yield [name, str(batch), method, path, f"{1e3 * seconds:.3f}", f"{ratio:.2f}", f"{flops:.2f}"]


@torch.inference_mode()
def predictions_of(predictor: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """Seconds of a prediction of a batch, by path."""
    ready, device = deployable(predictor, images[:1]), images.device
    for _ in range(5):
        ready(images)
    found = {"eager": timed(partial(_often, ready, images), device) / CALLS}
    if device.type == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            ready(images)
        found["CUDA graph"] = timed(partial(_often, graph.replay), device) / CALLS
    return found


def _often(call: Callable[..., object], *arguments: object) -> None:
    for _ in range(CALLS):
        call(*arguments)


# Title, columns, and the function that measures the rows.
SECTIONS: tuple[tuple[str, str, Callable[[torch.device], Iterator[list[str]]]], ...] = (
    ("Ceilings", "what | measured", ceilings),
    (
        f"A training step, batch {BATCH}",
        "network | precision | path | images/s | against fp32, eager | share of the bf16 matrix product",
        training,
    ),
    (
        f"Trainings side by side on one GPU ({SIDE_BY_SIDE}, bf16, eager)",
        "processes | images/s, all together | against one",
        side_by_side,
    ),
    (
        "Prediction, fp32, BatchNorms folded",
        "network | batch | method | path | ms | against one network | FLOPs",
        prediction,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/perf/gpu.md"), help="the table to write")
    parser.add_argument("--device", default="cuda")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    torch.backends.cudnn.allow_tf32 = False  # as in a run
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    lines = [f"# {name}, torch {torch.__version__}"]
    for title, columns, measure in SECTIONS:
        lines += ["", f"## {title}", "", f"| {columns} |", "|---" * (columns.count("|") + 1) + "|"]
        for row in measure(device):
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text("\n".join(lines) + "\n\nMade by `python benchmarks/perf/gpu.py`.\n", encoding="utf-8")


if __name__ == "__main__":
    main()
