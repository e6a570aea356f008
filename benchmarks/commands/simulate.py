"""``simulate``: how long a suite takes on many workers, from a stated speed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.common import Plugins, Set, SuiteName, echo, load_plugins, overrides
from benchmarks.commands.display import print_table
from dbn_core.errors import SpecError

if TYPE_CHECKING:
    from benchmarks.suite.plan import DataFacts
    from benchmarks.suite.schema import Suite

# Data that need not be here, by title or source: official training and test images, classes, channels and image size.
_KNOWN: dict[str, tuple[int, int, int, int, tuple[int, int]]] = {
    "cifar10": (50_000, 10_000, 10, 3, (32, 32)),
    "cifar100": (50_000, 10_000, 100, 3, (32, 32)),
    "CIFAR-10 (JPEG)": (50_000, 10_000, 10, 3, (32, 32)),
    "TinyImageNet": (100_000, 10_000, 200, 3, (64, 64)),
    "ImageNet 64x64": (1_281_167, 50_000, 1000, 3, (64, 64)),
}


def simulate(
    suite: SuiteName,
    workers: Annotated[int, typer.Option(help="How many nodes run at once: GPUs, or processes.", min=1)],
    tflops: Annotated[float, typer.Option(help="TFLOP/s that one worker sustains in training.")],
    plugin: Plugins = None,
    set_: Set = None,
) -> None:
    """Simulate a suite on many workers: how long it takes, and what limits it.

    It trains nothing, and needs no data of CIFAR, TinyImageNet and ImageNet.  docs/scaling.md describes the model.
    """
    from benchmarks.suite.load import load_suite
    from benchmarks.suite.plan import build_plan
    from benchmarks.work.estimate import network_cost, node_work
    from benchmarks.work.order import longest_chain, makespan

    if not 0 < tflops < float("inf"):
        raise SpecError(f"--tflops {tflops}: write a positive number.")
    load_plugins(plugin)
    chosen = load_suite(suite, overrides(set_, None, False))
    plan = build_plan(chosen, facts_of_suite(chosen))
    cost, counts, nodes = network_cost(plan), plan.data.counts, plan.nodes
    seconds = {key: node_work(plan, node).forward * cost.flops / tflops / 1e12 for key, node in nodes.items()}
    kinds = dict.fromkeys(node.kind for node in nodes.values())
    of_kind = {kind: [seconds[key] for key, node in nodes.items() if node.kind == kind] for kind in kinds}
    chain, work = longest_chain(nodes, seconds), sum(seconds.values())
    longest, scaling = sum(seconds[key] for key in chain), []
    for number in sorted({*(8**i for i in range(8) if 8**i < workers), workers, 8 * workers}):
        took, least = makespan(nodes, seconds, number), max(work / number, longest)
        gain = work / took
        scaling.append([f"{number:,}", _hours(took), _hours(least), f"{gain:.1f}", f"{100 * gain / number:.0f}"])
        if number == workers:
            limit = "longest chain" if longest > work / number else "workers"
            bottleneck = f"Bottleneck: the {limit} ({100 * least / took:.0f} % of the time)."
    images = " + ".join(f"{counts[split]:,}" for split in ("train", "validation", "test"))
    size = f"{cost.macs / 1e9:.2f} GMACs, {cost.params / 1e6:.1f} million parameters"
    summary = [[kind, f"{len(each):,}", _hours(sum(each))] for kind, each in of_kind.items()]
    along = [*([nodes[key].title, _hours(seconds[key])] for key in chain), ["together", _hours(longest)]]
    echo(f"{chosen.title}: {images} images, {size}\n")
    for columns, rows in (
        (["work", "nodes", "computing, h"], summary),
        (["workers", "makespan, h", "lower bound, h", "speed-up", "efficiency, %"], scaling),
        (["longest chain", "h"], along),
    ):
        print_table(columns, rows)
        echo("")
    echo(bottleneck)


def facts_of_suite(suite: Suite) -> DataFacts:
    """What planning needs to know of the data: as known of large data sets, else of the data themselves.

    Raises:
        DataError: the data cannot be read.
    """
    from benchmarks.suite.plan import DataFacts
    from benchmarks.work.planning import data_facts
    from dbn_core.data.sources import ImageSource

    source = suite.data
    known = _KNOWN.get(getattr(source, "title", None) or source.source) or _KNOWN.get(source.source)
    if known is None or not isinstance(source, ImageSource):
        return data_facts(source.for_repetition(0, suite.seed).load())
    train, test, classes, channels, image_size = known
    validation = source._validation_count(train)
    counts = {
        "train": min(train - validation, source.train_limit or train),
        "validation": validation,
        "test": min(test, source.test_limit or test),
    }
    unseen = "simulated" if source.unseen_limit else None
    counts |= {"unseen": source.unseen_limit} if source.unseen_limit else {}
    names = tuple(map(str, range(classes)))
    return DataFacts("simulated", source.title or source.source, channels, image_size, names, counts, unseen)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f}" if seconds >= 360 else f"{seconds / 3600:.2g}"
