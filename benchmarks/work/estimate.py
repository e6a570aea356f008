"""What a run is about to train and about how long that takes, before it starts.

Counts come from the plan; the time from a few training steps of the suite's network on random images.  Both are rough
where a method keeps its budget to itself: a plugin's part counts as a student with the suite's budget.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.environment import computes_bf16
from benchmarks.suite.plan import TRAINED, DataFacts, Node, Plan
from benchmarks.suite.schema import Suite
from benchmarks.work.executors import worker_count
from dbn_core.train.recipe import Recipe

# Work on a bridge for one example, in training steps of the network.  Measured on one CPU core: 0.27 to 0.30 for the
# score networks of the DBN paper, 0.17 to 0.26 for medium Bridge Network bridges.
BRIDGE_SHARE = 0.3
# A training step in forward passes: the backward pass takes about two.
STEP_PASSES = 3
# Seconds that timing may take; one step of a very large network may exceed them.
TIMING_SECONDS = 2.0
_STUDENTS = ("onestep", "branches")  # of a bridge of more steps
_BRIDGES = ("bridge", *_STUDENTS)
_UNTRAINED = ("aligned", "point", "temperature")  # computed from weights alone, or from predictions on validation


@dataclass(frozen=True)
class Work:
    """What is to be trained.

    Attributes:
        members, parts: how many.
        passes: examples that go through a network in training, each epoch counted anew.
        teacher_passes: examples that go through a frozen member for a student to learn from.
        steps: ``passes``, those of a bridge weighted with :data:`BRIDGE_SHARE`.
    """

    members: int = 0
    parts: int = 0
    passes: int = 0
    teacher_passes: int = 0
    steps: float = 0.0


@dataclass(frozen=True)
class Speed:
    """Seconds an example: one training step of the suite's network, and one forward pass."""

    step_s: float
    forward_s: float


def count_work(plan: Plan, nodes: Mapping[str, Node]) -> Work:
    """Add up the trainings among ``nodes``, those that the store lacks."""
    members = parts = passes = teacher_passes = 0
    steps = 0.0
    for node in nodes.values():
        members, parts = members + (node.kind == "member"), parts + (node.kind == "part")
        own, taught, share = node_passes(plan, node)
        passes, teacher_passes, steps = passes + own, teacher_passes + taught, steps + share * own
    return Work(members, parts, passes, teacher_passes, steps)


def node_passes(plan: Plan, node: Node) -> tuple[int, int, float]:
    """Training passes, teacher passes, and the weight of a training pass of one node; zeros for what trains nothing."""
    suite, examples = plan.suite, plan.data.counts["unseen" if "unseen" in node.recipe else "train"]
    if node.kind == "member":
        return _passes(examples, suite.recipe.epochs, suite.recipe.batch_size), 0, 1.0
    if node.kind == "part":
        return _part(node, suite, examples)
    return 0, node.recipe["count"] * examples if node.kind == "views" else 0, 0.0


def node_work(plan: Plan, node: Node) -> float:
    """What one node trains, teaches or predicts on shifted images, in forward passes of the suite's network."""
    own, taught, share = node_passes(plan, node)
    return STEP_PASSES * share * own + taught + shifted_passes(node)


def shifted_images(node: Node) -> int:
    """On how many images a node of the kind ``shifts`` predicts; 0 for any other."""
    shift = node.recipe.get("shift")
    if not shift:
        return 0
    return shift["images"] * (len(shift["corruptions"]) * len(shift["levels"]) + len(shift["outside"]))


def shifted_passes(node: Node) -> int:
    """The same in passes through networks; a method without members is taken for one network."""
    return shifted_images(node) * max(1, len(node.payload.get("members", ())))


def network_share(node: Node) -> float:
    """Work of a pass through what a part trains, in passes through the suite's network."""
    return BRIDGE_SHARE if str(node.recipe["part"]).startswith(_BRIDGES) else 1.0


def _part(node: Node, suite: Suite, examples: int) -> tuple[int, int, float]:
    """Training passes, teacher passes, and the weight of a training pass of one part.

    Read from the settings that the built-in methods use; whatever is not there is the suite's budget.
    """
    settings, name = node.recipe.get("settings") or {}, str(node.recipe["part"])
    if name.startswith(_UNTRAINED):
        return 0, 0, 0.0
    curve, bridge = name.startswith("curve"), name.startswith(_BRIDGES)
    if curve:
        epochs = _count(settings.get("curve_epochs"), suite.recipe.epochs)
    else:
        own_length = "bridge_epochs" if "bridge_epochs" in settings else "epochs"  # the other is its source's
        epochs = _count(settings.get(own_length), suite.students.epochs)
    share = settings.get("distill_share")
    if bridge and isinstance(share, float) and 0 < share < 1:
        short = max(1, round(epochs * share))
        epochs = short if name.startswith(_STUDENTS) else max(1, epochs - short)
    own = _passes(examples, epochs, _count(settings.get("batch_size"), suite.recipe.batch_size))
    # A curve only starts at its members; teachers whose logits are stored do not run again.
    teachers = 0 if curve or node.payload.get("views") else len(node.payload.get("members", ()))
    return own, own * teachers, network_share(node)


def _count(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def _passes(examples: int, epochs: int, batch_size: int) -> int:
    """Examples seen in ``epochs`` epochs of whole batches."""
    batch = min(batch_size, examples)
    return epochs * (examples // batch) * batch


def measure_speed(
    suite: Suite, recipe: Recipe, data: DataFacts, device: str, threads: int, budget_s: float = TIMING_SECONDS
) -> Speed:
    """Time training steps and forward passes, in batches that grow up to the recipe's while ``budget_s`` allows it.

    Raises:
        RuntimeError: the device refuses, for example for lack of memory.
    """
    import torch

    from dbn_core.data.batch import Batch
    from dbn_core.train.loop import make_optimizer

    where = torch.device(device)
    generator = torch.Generator().manual_seed(0)
    network = suite.task.new_network(
        suite.network, data.channels, data.image_size, len(data.classes), (0.5,) * data.channels,
        (0.25,) * data.channels,
    )  # fmt: skip
    member_step = suite.task.member_step(network, recipe, generator)
    network.to(where).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network, recipe)

    def seconds(batch: int, work: Callable[[torch.Tensor], None]) -> float:
        images = torch.rand(batch, data.channels, *data.image_size, generator=generator).to(where)
        images = images.contiguous(memory_format=torch.channels_last)
        started = time.perf_counter()
        with torch.autocast(where.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            work(images)
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return time.perf_counter() - started

    def step(images: torch.Tensor) -> None:
        labels = torch.zeros(len(images), dtype=torch.int64, device=where)
        loss = member_step(Batch(images, labels, labels, torch.zeros(len(images), 1, device=where), labels))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def forward(images: torch.Tensor) -> None:
        with torch.no_grad():
            network(images)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        begun, full = time.perf_counter(), recipe.batch_size
        batch = min(2, full)
        trained = seconds(batch, step)  # sets kernels up; counts only where another step would take too long
        if trained < budget_s / 4 or where.type == "cuda":  # there the first step loads every kernel, for seconds
            trained = seconds(batch, step)
        while (larger := min(4 * batch, full)) > batch:
            if time.perf_counter() - begun + 3 * trained * larger / batch > budget_s:
                break
            batch, trained = larger, min(seconds(larger, step) for _ in range(2))
        return Speed(trained / batch, seconds(batch, forward) / batch)
    finally:
        torch.set_num_threads(before)
        if where.type == "cuda":
            del network, optimizer
            torch.cuda.empty_cache()


# How many times as fast as one process several on one GPU are at most, as measured (``benchmarks/perf/gpu.py``).
SIDE_BY_SIDE = 3


def announce(plan: Plan, nodes: Mapping[str, Node], jobs: int, threads: int, device: str) -> str | None:
    """One sentence on what a run is about to train, or None when it trains nothing and nothing is shifted.

    Args:
        nodes: what the store lacks.
        jobs: worker processes, 0 for this one, -1 see :func:`benchmarks.work.executors.worker_count`.
        threads: torch threads of each.
        device: ``auto``, ``cpu``, ``cuda`` (all GPUs) or ``cuda:N``.
    """
    trained = any(node.kind in TRAINED for node in nodes.values())
    shifted = sum(shifted_passes(node) for node in nodes.values())
    if not (trained or shifted):
        return None
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    gpus = (1 if ":" in device else max(1, torch.cuda.device_count())) if device.startswith("cuda") else 0
    jobs = worker_count(jobs, gpus)
    work = count_work(plan, nodes)
    if not plan.suite.task.trains_members:
        return f"Fitting {_several(work.parts, 'part')}"
    said, passes = [], _precisions(plan, nodes)
    if trained:
        used = " and ".join(sorted(passes))
        said += [f"Training {_several(work.members, 'member')} and {_several(work.parts, 'part')} in {used}: "]
        said[0] += f"{_large(work.passes)} example-passes, {_large(work.teacher_passes)} more by teachers"
    if shifted:
        said += [("and p" if trained else "Nothing to train; p") + f"redicting {_large(shifted)} shifted images"]
    text = ", ".join(said)
    precision = max(passes, key=passes.__getitem__) if passes else plan.suite.recipe.precision
    try:
        recipe = plan.suite.recipe.replace(precision=precision)
        speed = measure_speed(plan.suite, recipe, plan.data, device, threads)
    except RuntimeError:  # an estimate must not keep a run from starting; whatever is wrong shows there
        return text
    places, place = max(1, jobs), _several(max(1, jobs), "process", "processes")
    if gpus:
        places = gpus * max(1, min(SIDE_BY_SIDE, jobs // gpus))
        place = "the GPU" if gpus == 1 else f"{gpus} GPUs"
    workers = max(1, min(places, work.members + work.parts + sum(node.kind == "shifts" for node in nodes.values())))
    total = (work.steps * speed.step_s + (work.teacher_passes + shifted) * speed.forward_s) / workers
    text = f"{text}; roughly {duration(total)} on {place}"
    if trained and precision == "bf16" and device == "cpu" and computes_bf16() is False:
        table = "recipe" if work.members else "students"
        text += f" (it emulates bf16: --set {table}.precision=fp32 trains something else, and faster)"
    return text


def _precisions(plan: Plan, nodes: Mapping[str, Node]) -> Counter[str]:
    """Example-passes that are trained in each precision."""
    passes: Counter[str] = Counter()
    for node in nodes.values():
        if node.kind in ("member", "part"):
            own, _, share = node_passes(plan, node)
            passes[node.recipe["recipe"]["precision"]] += round(share * own)
    return passes


def _several(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _large(number: float) -> str:
    """``718``, ``43,200``, ``1.2 million`` or ``3.4 billion``."""
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:,.1f} {word}"
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """A time span in the unit that suits it."""
    for size, unit in ((365 * 86_400, "years"), (86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"
