"""The work of a plan before it runs: what is trained and predicted, and roughly how long it takes.

Work is counted in forward passes of one example through the suite's network; each method states what its parts take
(``Method.training_cost``).  The time of a pass comes from a few training steps on random images; ``dbn-bench simulate``
takes it from a stated speed instead.  Left out are validation between epochs, decoding of images, the store, failures,
and the scoring and timing at the end of a run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.environment import computes_bf16
from benchmarks.suite.plan import TRAINED, DataFacts, Node, Plan
from benchmarks.suite.schema import Suite, naming_method
from benchmarks.work.executors import worker_count
from benchmarks.work.order import makespan
from dbn_core.methods.method import TrainingCost
from dbn_core.methods.registry import parse_method
from dbn_core.train.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from dbn_core.measure.cost import Cost
    from dbn_core.nets.spec import NetworkOptions

# A training step in forward passes: the backward pass takes about two.
STEP_PASSES = 3
# Seconds that timing takes at most, but for two steps of a very large network.
TIMING_SECONDS = 2.0
# Speed-up of several processes on one GPU over one, at most (measured by ``benchmarks/perf/gpu.py``).
GPU_SPEEDUP = 3


@dataclass(frozen=True)
class Work:
    """What one artefact takes, or several.

    Attributes:
        passes: training examples, each epoch counted.
        teacher_passes: examples that frozen members see so that a student learns from them.
        forward: all work, in forward passes of one example through the suite's network.
    """

    passes: int = 0
    teacher_passes: int = 0
    forward: float = 0.0

    def __add__(self, other: Work) -> Work:
        """The work of both."""
        passes, taught = self.passes + other.passes, self.teacher_passes + other.teacher_passes
        return Work(passes, taught, self.forward + other.forward)


def total_work(plan: Plan, nodes: Iterable[Node]) -> Work:
    """The work of all ``nodes``."""
    return sum((node_work(plan, node) for node in nodes), Work())


def node_work(plan: Plan, node: Node) -> Work:
    """The work of one node; counting a cost is none.

    Raises:
        PluginError: a method cannot state what its parts take.
    """
    counts, recipe = plan.data.counts, plan.suite.recipe
    examples = counts["unseen" if "unseen" in node.recipe else "train"]
    if node.kind == "member" and not is_trained(node):  # given: it predicts validation once
        return Work(forward=counts["validation"])
    if node.kind == "member":
        passes = _passes(examples, recipe.epochs, recipe.batch_size)
        return Work(passes, 0, STEP_PASSES * passes)
    if node.kind == "views":
        share = sum(_shares(plan, [node.recipe["member"]]))
        return Work(0, node.recipe["count"] * examples, node.recipe["count"] * examples * share)
    if node.kind == "part":
        cost = part_cost(plan, node)
        passes = _passes(examples, cost.epochs, cost.batch_size)
        taught = 0 if node.payload["views"] else passes * cost.teachers
        shares = _shares(plan, node.payload["members"]) or [1.0]
        return Work(passes, taught, STEP_PASSES * cost.share * passes + taught * sum(shares) / len(shares))
    images = {"predictions": counts.get("validation", 0) + counts["test"], "shifts": shifted_images(node)}
    trained = (part_cost(plan, part).share for part in predicting_parts(plan, node))
    networks = sum(_shares(plan, node.payload["members"].values())) + sum(trained)
    return Work(forward=images.get(node.kind, 0) * (networks or 1.0))


def _shares(plan: Plan, members: Iterable[str]) -> list[float]:
    """A forward pass of each member in passes of the suite's network; 1, unless a pool mixes networks."""
    suite = plan.suite
    if not suite.mixes_networks:
        return [1.0 for _ in members]
    own = _counted(suite, plan.data, suite.network).macs
    networks = (suite.network_of(plan.nodes[key].recipe["index"]) for key in members)
    return [_counted(suite, plan.data, network).macs / own for network in networks]


def is_trained(node: Node) -> bool:
    """Whether making a node takes training, or the teachers' predictions for it; a given member is only read."""
    return node.kind in TRAINED and "checkpoint" not in node.recipe


def part_cost(plan: Plan, node: Node) -> TrainingCost:
    """What a method states of the part that a node trains."""
    method = parse_method(node.payload["spec"])
    with naming_method(method):
        part = next(part for part in method.parts(node.payload["size"]) if part.name == node.payload["part"])
        cost = method.training_cost(part, plan.suite.recipe, plan.suite.students.epochs)
        if not isinstance(cost, TrainingCost):
            raise TypeError(f"training_cost() returns {type(cost).__name__}")
        return cost


def predicting_parts(plan: Plan, node: Node) -> list[Node]:
    """The parts that a predictor runs: those from which no other of its parts was made."""
    parts = [plan.nodes[key] for key in node.payload["parts"].values()]
    used = {need for part in parts for _, need in part.needs}
    return [part for part in parts if part.key not in used]


def shifted_images(node: Node) -> int:
    """How many shifted images a node predicts; 0 for kinds other than ``shifts``."""
    shift = node.recipe.get("shift")
    if not shift:
        return 0
    return shift["images"] * (len(shift["corruptions"]) * len(shift["levels"]) + len(shift["ood"]))


def _passes(examples: int, epochs: int, batch_size: int) -> int:
    """Examples seen in ``epochs`` epochs of whole batches."""
    batch = min(batch_size, examples)
    return epochs * (examples // batch) * batch


def network_cost(plan: Plan) -> Cost:
    """Parameters of the suite's network, and multiply-adds of one forward pass of one image."""
    return _counted(plan.suite, plan.data, plan.suite.network)


_COUNTED: dict[str, Cost] = {}


def _counted(suite: Suite, data: DataFacts, spec: NetworkOptions) -> Cost:
    """As :func:`network_cost`, of any network; counted once."""
    import torch

    from dbn_core.measure.cost import count_in_torch

    key = f"{suite.task!r} {spec!r} {data.channels} {data.image_size} {len(data.classes)}"
    if key not in _COUNTED:
        example = torch.zeros(1, data.channels, *data.image_size)
        _COUNTED[key] = count_in_torch(_network(suite, data, spec), example)
    return _COUNTED[key]


def _network(suite: Suite, data: DataFacts, spec: NetworkOptions) -> nn.Module:
    """A network for the suite's data; its constants of normalisation do not matter here."""
    statistics = (0.5,) * data.channels, (0.25,) * data.channels
    return suite.task.new_network(spec, data.channels, data.image_size, len(data.classes), *statistics)


def seconds_per_pass(suite: Suite, recipe: Recipe, data: DataFacts, device: str, threads: int) -> float:
    """Seconds of one forward pass of one example, from the time of a training step.

    Raises:
        RuntimeError: the device fails, for example for lack of memory.
    """
    import torch

    from dbn_core.data.batch import Batch
    from dbn_core.train.loop import make_optimizer

    place = torch.device(device)
    generator = torch.Generator().manual_seed(0)
    network = _network(suite, data, suite.network)
    member_step = suite.task.member_step(network, recipe, generator)
    network.to(place).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, recipe)

    def seconds(batch: int) -> float:
        images = torch.rand(batch, data.channels, *data.image_size, generator=generator).to(place)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.zeros(batch, dtype=torch.int64, device=place)
        started = time.perf_counter()
        with torch.autocast(place.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = member_step(Batch(images, labels, labels, torch.zeros(batch, 1, device=place), labels))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        return time.perf_counter() - started

    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        batch = min(2, recipe.batch_size)
        seconds(batch)  # the first step also loads kernels
        trained = seconds(batch)
        while batch < recipe.batch_size and trained < TIMING_SECONDS / 8:  # two steps of twice the batch, and so on
            batch = min(2 * batch, recipe.batch_size)
            trained = min(seconds(batch), seconds(batch))
        return trained / batch / STEP_PASSES
    finally:
        torch.set_num_threads(threads_before)


def announce(plan: Plan, nodes: Mapping[str, Node], jobs: int, threads: int, device: str) -> str | None:
    """One sentence on what a run is about to train; None when it trains nothing and predicts no shifted images.

    Args:
        nodes: what the store lacks.
        jobs: worker processes, 0 for this one, -1 see :func:`benchmarks.work.executors.worker_count`.
        threads: torch threads of each.
        device: ``auto``, ``cpu``, ``cuda`` (all GPUs) or ``cuda:N``.
    """
    trained = [node for node in nodes.values() if is_trained(node)]
    images = sum(map(shifted_images, nodes.values()))
    if not (trained or images):
        return None
    kinds = Counter(node.kind for node in nodes.values())
    if not plan.suite.task.trains_members:
        return f"Fitting {_several(kinds['part'], 'part')}"
    work = {key: node_work(plan, node) for key, node in nodes.items()}
    members, precisions, words = sum(node.kind == "member" for node in trained), Counter[str](), []
    for node in trained:
        if node.kind != "views":
            precisions[Recipe.model_validate(node.recipe["recipe"]).precision] += round(work[node.key].forward)
    if trained:
        total = sum(work.values(), Work())
        made = f"{_several(members, 'member')} and {_several(kinds['part'], 'part')}"
        words.append(f"Training {made} in {' and '.join(sorted(precisions))}: {_large(total.passes)} example-passes")
        words.append(f"{_large(total.teacher_passes)} more by teachers")
    if images:
        words.append(("and p" if trained else "Nothing to train; p") + f"redicting {_large(images)} shifted images")
    text = ", ".join(words)
    precision = max(precisions, key=precisions.__getitem__, default=plan.suite.recipe.precision)
    device, workers, place = _workers(jobs, device)
    try:
        recipe = plan.suite.recipe.replace(precision=precision)
        one = seconds_per_pass(plan.suite, recipe, plan.data, device, threads)
    except RuntimeError:  # the run itself reports it
        return text
    text += f"; roughly {duration(makespan(nodes, {k: one * w.forward for k, w in work.items()}, workers))} on {place}"
    if trained and precision == "bf16" and device == "cpu" and computes_bf16() is False:
        table = "recipe" if members else "students"
        text += f" (it emulates bf16: --set {table}.precision=fp32 trains something else, and faster)"
    return text


def _workers(jobs: int, device: str) -> tuple[str, int, str]:
    """The device of a run, its number of workers as far as they speed it up, and where they are, in words."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    gpus = (1 if ":" in device else max(1, torch.cuda.device_count())) if device.startswith("cuda") else 0
    jobs = max(1, worker_count(jobs, gpus))
    if not gpus:
        return device, jobs, _several(jobs, "process", "processes")
    return device, gpus * max(1, min(GPU_SPEEDUP, jobs // gpus)), "the GPU" if gpus == 1 else f"{gpus} GPUs"


def _several(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _large(number: float) -> str:
    """``718``, ``43,200``, ``1.2 million`` or ``3.4 billion``."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:,.1f} {word}"
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """A time span in the largest unit of which it has at least two."""
    for size, unit in ((365 * 86_400, "years"), (86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"
