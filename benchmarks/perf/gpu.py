"""What a GPU gives: ceilings, training steps, trainings side by side, prediction.

``python benchmarks/perf/gpu.py`` measures piece by piece, each under a minute but for those that compile, and keeps
what it has in ``results/perf/gpu.jsonl``; run again, it goes on with what is missing, and writes the table
``results/perf/gpu.md``.  Speeds are medians of rounds of the suite's own training loop on random images.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
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
# NVIDIA's multi-process service (`nvidia-cuda-mps-control -d`) lets kernels of several processes run at once.
MPS = ", MPS" if os.environ.get("CUDA_MPS_PIPE_DIRECTORY") else ""
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
    data = Dataset("random", "random", split, split, split, names, (0.5,) * 3, (0.25,) * 3, True, "random")
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


def ceilings(device: torch.device, size: int = 8192) -> Iterator[dict[str, Any]]:
    """Arithmetic of a matrix product, and bytes read and written by a copy."""
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        product = partial(torch.mm, a, b)
        product()
        yield {
            "what": f"matrix product, {name}",
            "TFLOP_per_s": 2 * size**3 / timed(product, device) / 1e12,
        }
    x = torch.randn(size * size * 4, device=device)
    y = torch.empty_like(x)
    y.copy_(x)
    yield {"what": "copy", "GB_per_s": 2 * x.nbytes / timed(lambda: y.copy_(x), device) / 1e9}


def training(
    name: str, precision: str, path: str, device: torch.device, steps: int = 60, rounds: int = 3
) -> Iterator[dict[str, Any]]:
    """Images a second of a member's training, augmentation and optimiser included."""
    epoch = member_epoch(NETWORKS[name], precision, path, device, steps)
    yield {"images_per_s": BATCH * steps / timed(epoch, device, rounds)}


def member_epoch(
    spec: NetworkSpec, precision: str, path: str, device: torch.device, steps: int
) -> Callable[[], object]:
    """An epoch of a member's training, ready: kernels are set up."""
    work = context(spec, device, BATCH * steps)
    recipe = Recipe(epochs=1, batch_size=BATCH, lr=0.01, precision=precision)
    network, draws = work.new_network(), work.generator("train")
    called: Any = network
    if path == "compiled":
        called = torch.compile(network)
    elif path == "CUDA graph":
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


def side_by_side(count: int, device: torch.device, steps: int = 400) -> Iterator[dict[str, Any]]:
    """Images a second of ``count`` trainings in as many processes, all together."""
    spawn = multiprocessing.get_context("spawn")
    gate, results = spawn.Barrier(count), spawn.Queue()
    workers = [spawn.Process(target=_worker, args=(gate, results, device, steps)) for _ in range(count)]
    for worker in workers:
        worker.start()
    spans = [results.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    seconds = max(end for _, end in spans) - min(start for start, _ in spans)
    yield {"images_per_s": count * BATCH * steps / seconds}


def prediction(name: str, batch: int, device: torch.device) -> Iterator[dict[str, Any]]:
    """Milliseconds of a batch, as deployed, eager and as a CUDA graph; a DBN of three beside one network and three."""
    work = context(NETWORKS[name], device, 8)
    images = torch.rand(batch, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    networks = [work.new_network(f"member {m}") for m in range(3)]
    channels = networks[0].split("block1")[0](images[:1]).shape[1]
    bridge = Denoiser(ScoreNetwork(channels, 10, "v1.1.8"), step_variances(1, 1e-4, 1e-4)).to(device)
    methods: dict[str, nn.Module] = {
        "one network": Mixture(networks[:1]),
        "DE-3": Mixture(networks),
        "DBN-3": BridgedSource(networks[0], "block1", [bridge], 2.0),
    }
    for method, predictor in methods.items():
        counted = count_in_torch(predictor, images[:1])
        ready = deployable(predictor, images[:1])
        with torch.inference_mode():
            for _ in range(5):
                ready(images)
            row = {"method": method, "macs": counted.macs}
            yield row | {"path": "eager", "ms": 1e3 * timed(partial(_often, ready, images), device) / CALLS}
            if device.type == "cuda":
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    ready(images)
                seconds = timed(partial(_often, graph.replay), device) / CALLS
                yield row | {"path": "CUDA graph", "ms": 1e3 * seconds}


def _often(call: Callable[..., object], *arguments: object) -> None:
    for _ in range(CALLS):
        call(*arguments)


def pieces(device: torch.device, compiled: bool) -> dict[str, Callable[[], Iterator[dict[str, Any]]]]:
    """Every piece by its name, in the order of measurement."""
    found: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {"ceilings": partial(ceilings, device)}
    paths = [
        ("fp32", "eager"),
        ("bf16", "eager"),
        ("bf16", "CUDA graph"),
        *([("bf16", "compiled")] if compiled else []),
    ]
    for name in NETWORKS:
        for precision, path in paths:
            piece = f"training | {name} | {precision} | {path}"
            found[piece] = partial(training, name, precision, path, device)
    for count in (1, 2, 4, 8, 14):
        found[f"side by side{MPS} | {count}"] = partial(side_by_side, count, device)
    for name in (SIDE_BY_SIDE, "ResNet-32 x2, FRN"):
        for batch in (1, 128, 1024):
            found[f"prediction | {name} | {batch}"] = partial(prediction, name, batch, device)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, each with its ratio to the plain path or to one network."""
    plain = {r["piece"].split(" | ")[1]: r["images_per_s"] for r in rows if r["piece"].endswith("fp32 | eager")}
    one = next((r["images_per_s"] for r in rows if r["piece"] == "side by side | 1"), None)
    bf16 = next((r["TFLOP_per_s"] for r in rows if r.get("what") == "matrix product, bf16"), None)
    lines = [f"# {rows[0]['device']}, torch {rows[0]['torch']}", "", "## Ceilings", ""]
    lines += ["| what | measured |", "|---|---|"]
    for row in rows:
        if row["piece"] == "ceilings":
            unit = "TFLOP_per_s" if "TFLOP_per_s" in row else "GB_per_s"
            lines.append(f"| {row['what']} | {row[unit]:,.0f} {unit.replace('_per_', '/')} |")
    lines += ["", f"## A training step, batch {BATCH}", ""]
    lines += ["| network | precision | path | images/s | against fp32, eager | share of the bf16 matrix product |"]
    lines += ["|---|---|---|---|---|---|"]
    for row in rows:
        if row["piece"].startswith("training"):
            _, name, precision, path = row["piece"].split(" | ")
            ratio = row["images_per_s"] / plain[name] if name in plain else float("nan")
            share = f"{6e-12 * row['macs'] * row['images_per_s'] / bf16:.2%}" if bf16 else ""
            lines.append(f"| {name} | {precision} | {path} | {row['images_per_s']:,.0f} | {ratio:.2f} | {share} |")
    lines += ["", f"## Trainings side by side on one GPU ({SIDE_BY_SIDE}, bf16, eager)", ""]
    lines += ["| processes | images/s, all together | against one |", "|---|---|---|"]
    for row in rows:
        if row["piece"].startswith("side by side"):
            what, count = row["piece"].split(" | ")
            ratio = row["images_per_s"] / one if one else float("nan")
            lines.append(f"| {count}{what.removeprefix('side by side')} | {row['images_per_s']:,.0f} | {ratio:.2f} |")
    lines += ["", "## Prediction, fp32, BatchNorms folded", ""]
    lines += ["| network | batch | method | path | ms | against one network | FLOPs |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        if row["piece"].startswith("prediction"):
            _, name, batch = row["piece"].split(" | ")
            single = next(
                r for r in rows
                if r["piece"] == row["piece"] and r["path"] == row["path"] and r["method"] == "one network"
            )  # fmt: skip
            lines.append(
                f"| {name} | {batch} | {row['method']} | {row['path']} | {row['ms']:.3f} "
                f"| {row['ms'] / single['ms']:.2f} | {row['macs'] / single['macs']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/perf/gpu.jsonl"), help="what is measured so far")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too: a minute or more for each network")
    parser.add_argument("--only", default="", help="pieces whose name has this in it")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no piece after so long")
    chosen = parser.parse_args()
    device, started = torch.device(chosen.device), time.monotonic()
    torch.backends.cudnn.allow_tf32 = False  # as in a run
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    lines = chosen.out.read_text(encoding="utf-8").splitlines() if chosen.out.is_file() else []
    rows = [json.loads(line) for line in lines]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    known = {row["piece"] for row in rows}
    for piece, measure in pieces(device, chosen.compiled).items():
        if piece in known or chosen.only not in piece or time.monotonic() - started > chosen.seconds:
            continue
        common: dict[str, Any] = {"piece": piece, "device": name, "torch": torch.__version__}
        if piece.startswith("training"):
            common["macs"] = macs(piece.split(" | ")[1])
        try:
            found = [common | row for row in measure()]
        except RuntimeError as error:  # of one path; the others can be measured
            print(f"failed: {piece}: {' '.join(str(error).split())[:300]}", flush=True)
            continue
        with chosen.out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
        rows += found
        print(f"{time.monotonic() - started:6.1f} s  {piece}", flush=True)
    text = table(rows) + f"\nMade by `python benchmarks/perf/gpu.py{' --compiled' * chosen.compiled}`.\n"
    chosen.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def macs(name: str) -> float:
    """Multiply-adds of one image."""
    work = context(NETWORKS[name], torch.device("cpu"), 8)
    return count_in_torch(work.new_network(), torch.rand(1, 3, 32, 32)).macs


if __name__ == "__main__":
    main()
