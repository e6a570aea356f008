"""The command ``dbn-bench simulate``: what a suite would take on many workers, from stated numbers alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.commands.common import Plugins, Set, SuiteName, load_plugins, overrides
from dbn_core.errors import SpecError

if TYPE_CHECKING:
    from benchmarks.suite.plan import DataFacts, Plan
    from benchmarks.suite.schema import Suite
    from benchmarks.work.simulate import Demand, Timeline

# By title, or by source: official training and test images, classes, channels and size of an image.
_KNOWN: dict[str, tuple[int, int, int, str]] = {
    "cifar10": (50_000, 10_000, 10, "3x32x32"),
    "cifar100": (50_000, 10_000, 100, "3x32x32"),
    "CIFAR-10 (JPEG)": (50_000, 10_000, 10, "3x32x32"),
    "TinyImageNet": (100_000, 10_000, 200, "3x64x64"),
    "ImageNet 64x64": (1_281_167, 50_000, 1000, "3x64x64"),
}


def simulate(
    suite: SuiteName,
    workers: Annotated[int, typer.Option(help="How many nodes run at once: GPUs, or processes.")],
    tflops: Annotated[float, typer.Option(help="TFLOP/s that one worker sustains in training.")],
    store_gb_per_s: Annotated[float, typer.Option(help="GB/s of the store, all workers together.")] = 1.0,
    overhead_ms: Annotated[float, typer.Option(help="Milliseconds of the scheduler for one node.")] = 3.0,
    train: Annotated[int | None, typer.Option(help="Training images, validation included.", min=1)] = None,
    test: Annotated[int | None, typer.Option(help="Test images.", min=1)] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.", min=2)] = None,
    image: Annotated[str | None, typer.Option(help="Channels and size of an image, for example 3x64x64.")] = None,
    plugin: Plugins = None,
    set_: Set = None,
) -> None:
    """Simulate a suite on many workers: how long it takes, and what the bottleneck is.

    Needs no data and trains nothing; docs/scaling.md describes the model.
    """
    from benchmarks.suite.load import load_suite
    from benchmarks.suite.plan import build_plan
    from benchmarks.work.simulate import Machine, data_bytes, demands, network_size
    from benchmarks.work.simulate import simulate as run

    load_plugins(plugin)
    machine = Machine(workers, tflops * 1e12, store_gb_per_s * 1e9, overhead_ms / 1e3)
    chosen = load_suite(suite, overrides(set_, None, False))
    plan = build_plan(chosen, data_facts(chosen, train, test, classes, image))
    (params, macs), loaded = network_size(plan), data_bytes(plan)
    demand, counts = demands(plan, params, macs), plan.data.counts
    sizes = sorted({*(8**i for i in range(8) if 8**i < workers), workers, 8 * workers})
    runs = {number: run(plan.nodes, demand, replace(machine, workers=number), loaded) for number in sizes}
    result = runs[workers]
    moved = f"{_gigabytes(result.read_bytes)} GB read, {_gigabytes(result.written_bytes)} GB written"
    reader = max(demand, key=lambda key: demand[key].read_bytes)
    writer = max(demand, key=lambda key: demand[key].write_bytes)
    chain = [[plan.nodes[key].title, _hours(demand[key].seconds(machine))] for key in result.chain]
    chain.append(["together", _hours(result.bounds_s["longest chain"])])
    busy = {name: 100 * result.bounds_s[name] / (result.makespan_s or 1.0) for name in ("store", "scheduler")}
    lines = [
        f"{chosen.title}: {counts['train']:,} + {counts['validation']:,} + {counts['test']:,} images, "
        f"{macs / 1e9:.2f} GMACs, {params / 1e6:.1f} million parameters",
        f"{workers} workers of {tflops:g} TFLOP/s, store {store_gb_per_s:g} GB/s, scheduler {overhead_ms:g} ms a node",
        "",
        _work(plan, demand, machine.flops_per_s),
        "",
        _scaling(runs),
        "",
        _table(["longest chain", "h"], chain),
        "",
        f"Workers: {100 * result.utilisation:.0f} % of their time is computing.",
        f"Store: {moved}, busy for {busy['store']:.2g} % of the time; the scheduler for {busy['scheduler']:.2g} %.",
        f"Memory: each worker holds {_gigabytes(loaded)} GB of images; the most that a node reads are "
        f"{_gigabytes(demand[reader].read_bytes)} GB ({plan.nodes[reader].title}), and that it writes "
        f"{_gigabytes(demand[writer].write_bytes)} GB ({plan.nodes[writer].title}).",
        result.bottleneck,
    ]
    typer.echo("\n".join(lines))


def data_facts(suite: Suite, train: int | None, test: int | None, classes: int | None, image: str | None) -> DataFacts:
    """What planning needs to know of data that are not here: as stated, or as known of the suites' data sets.

    Args:
        train: official training images; the suite's validation is part of them.

    Raises:
        SpecError: a number is neither given nor known, or the image size is not ``CxHxW``.
    """
    from benchmarks.suite.plan import DataFacts
    from dbn_core.data.sources import ImageSource

    source, stated = suite.data, {"--train": train, "--test": test, "--classes": classes, "--image": image}
    if not isinstance(source, ImageSource):
        if any(stated.values()):
            raise SpecError(f"The data '{source.source}' have a fixed size: leave out {', '.join(stated)}.")
        data = source.load()
        sizes = {name: len(split) for name, split in data.splits.items()}
        return DataFacts("simulated", data.title, data.channels, data.image_size, data.classes, sizes)
    title = source.title or source.source
    known = _KNOWN.get(title) or _KNOWN.get(source.source) or (None,) * 4
    sizes_of: dict[str, Any] = {name: given or own for (name, given), own in zip(stated.items(), known, strict=True)}
    if missing := [name for name, value in sizes_of.items() if not value]:
        raise SpecError(f"The size of the data '{title}' is not known here: give {', '.join(missing)}.")
    shape = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", sizes_of["--image"])
    if shape is None:
        raise SpecError(f"--image {sizes_of['--image']}: write channels, height and width, for example 3x64x64.")
    validation = source._validation_count(sizes_of["--train"])
    kept = min(sizes_of["--train"] - validation, source.train_limit or sizes_of["--train"])
    tested = min(sizes_of["--test"], source.test_limit or sizes_of["--test"])
    counts = {"train": kept, "validation": validation, "test": tested}
    counts |= {"unseen": source.unseen_limit} if source.unseen_limit else {}
    channels, height, width = map(int, shape.groups())
    names = tuple(map(str, range(sizes_of["--classes"])))
    unseen = "simulated" if source.unseen_limit else None
    return DataFacts("simulated", title, channels, (height, width), names, counts, unseen)


def _work(plan: Plan, demand: Mapping[str, Demand], flops_per_s: float) -> str:
    """What there is to do, by kind of node."""
    rows = []
    for kind in dict.fromkeys(node.kind for node in plan.nodes.values()):
        chosen = [demand[key] for key, node in plan.nodes.items() if node.kind == kind]
        hours = _hours(sum(one.flops for one in chosen) / flops_per_s)
        moved = [_gigabytes(sum(one.read_bytes for one in chosen)), _gigabytes(sum(one.write_bytes for one in chosen))]
        rows.append([kind, f"{len(chosen):,}", hours, *moved])
    return _table(["work", "nodes", "computing, h", "read, GB", "written, GB"], rows)


def _scaling(runs: Mapping[int, Timeline]) -> str:
    """Makespan by number of workers."""
    rows = []
    for workers, result in runs.items():
        gain = runs[1].makespan_s / (result.makespan_s or 1.0)
        hours = [_hours(result.makespan_s), _hours(result.lower_bound_s)]
        rows.append([f"{workers:,}", *hours, f"{gain:.1f}", f"{100 * gain / workers:.0f}"])
    return _table(["workers", "makespan, h", "lower bound, h", "speed-up", "efficiency, %"], rows)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f}" if seconds >= 360 else f"{seconds / 3600:.2g}"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.1f}" if size >= 1e9 else f"{size / 1e9:.2g}"


def _table(headers: list[str], rows: list[list[str]]) -> str:
    from tabulate import tabulate

    align = ["left"] + ["right"] * (len(headers) - 1)
    return tabulate(rows, headers, tablefmt="simple", colalign=align, disable_numparse=True)
