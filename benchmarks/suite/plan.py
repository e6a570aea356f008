"""The plan: which artefacts a suite needs, and what each of them depends on.

A *cell* is one (method, size, repetition).  Its *nodes* are the members, the parts, the predictions and the cost that
it needs.  The key of a node is the hash of its recipe (:mod:`benchmarks.suite.keys`); cells share nodes of one key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.suite.facts import DataFacts as DataFacts
from benchmarks.suite.keys import cost_recipe, member_recipe, part_recipe, prediction_recipe, views_recipe
from benchmarks.suite.schema import Suite, naming_method
from benchmarks.suite.specs import on_unseen, view_count
from dbn_core.errors import DataError, PluginError
from dbn_core.methods.method import Method, Part
from dbn_core.methods.registry import canonical
from dbn_core.rng import digest, seed_for
from dbn_core.tasks.base import task_named

TRAINED = ("member", "views", "part")


def priority(kind: str) -> int:
    """Order of ready nodes: those that take a second (0), predictions on shifted images (1), trainings (2)."""
    return 2 if kind in TRAINED else int(kind == "shifts")


@dataclass(frozen=True)
class Node:
    """One artefact to make.

    Attributes:
        kind: ``member``, ``views`` (a member's logits on them), ``part``, ``predictions``, ``shifts`` (predictions on
            shifted images) or ``cost``.
        key: hash of the recipe.
        title: its name in progress messages.
        recipe: JSON that is hashed, and stored with the result.
        needs: keys of the nodes it reads, with their kinds.
        payload: what the worker needs in addition; not part of the key.
    """

    kind: str
    key: str
    title: str
    recipe: dict[str, Any]
    needs: tuple[tuple[str, str], ...]
    payload: dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One (method, size, repetition) and the artefacts that hold its results."""

    method: Method
    spec: str  # with its teachers, where the suite's entry has others than the suite
    label: str
    size: int
    repetition: int
    predictions: str
    terms: int | None  # how many terms of the stored predictions count; None: all
    cost: str
    parts: tuple[str, ...]
    members: tuple[str, ...]  # all it was made from, teachers included
    views: tuple[str, ...]  # the members' stored logits that taught its parts
    shifts: tuple[str, ...] = ()  # predictions on shifted images, whose terms follow one another; as ``terms`` says

    @property
    def results(self) -> tuple[str, ...]:
        """Keys of the artefacts that hold its results."""
        return self.predictions, self.cost, *self.shifts

    @property
    def is_reference(self) -> bool:
        """Whether its method is the reference of the task, for classification the deep ensemble."""
        return self.method.name == task_named(self.method.task).reference

    @property
    def title(self) -> str:
        """For messages: ``DBN size 3, repetition 2``."""
        return f"{self.label} size {self.size}, repetition {self.repetition + 1}"


@dataclass
class Plan:
    """All nodes in an order in which they can be made, and all cells."""

    suite: Suite
    data: DataFacts
    nodes: dict[str, Node] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    members: dict[tuple[int, int], str] = field(default_factory=dict)  # keys by repetition and position
    notes: list[str] = field(default_factory=list)  # what the report should say of how it was planned
    command: str = ""  # that makes the suite, for error messages
    edited: str = ""  # a sentence on plugin files that have changed since the last run, for error messages

    def __post_init__(self) -> None:
        self.command = self.command or f"dbn-bench run {self.suite.name}"

    def remedy(self, makes: str = "makes them", options: str = "") -> str:
        """Which command makes what is missing, and why it may be: the end of an error message."""
        return f"`{self.command}{options}` {makes}." + (f" {self.edited}" if self.edited else "")


@dataclass(frozen=True)
class _Use:
    """A method as an entry of the suite uses it; keys of its planned parts and costs by size and repetition."""

    method: Method
    label: str
    teachers: str
    precision: str
    parts: dict[tuple[int, int], dict[str, str]] = field(default_factory=dict)
    costs: dict[tuple[int, int], str] = field(default_factory=dict)


def build_plan(suite: Suite, data: DataFacts) -> Plan:
    """Plan a suite.

    Raises:
        SpecError: methods, options or sizes that do not exist.
        PluginError: a method's planning calls fail.
    """
    plan = Plan(suite, data)
    for entry, method, label in suite.entries():
        use = _Use(method, label, suite.teachers(entry), suite.precision(entry))
        spec = canonical(method) + (f" | {entry.teachers}" if entry.teachers else "")
        counts = {size: suite.repetitions_of(entry, size) for size in sorted(set(entry.sizes))}
        for repetition in range(max(counts.values())):
            for size in (size for size, count in counts.items() if repetition < count):
                largest = max(entry.sizes) if method.nested else size
                with naming_method(method):
                    predictions, cost = _predictions(plan, use, largest, repetition), _cost(plan, use, size, repetition)
                    made_from = _ingredients(plan, use, size, repetition)
                    terms = method.terms(size) if method.nested else None
                    shifts = _shifts(plan, use, largest, repetition)[:size] if suite.shift else ()
                identity = (method, spec, label, size, repetition)
                plan.cells.append(Cell(*identity, predictions, terms, cost, *made_from, shifts))
    return plan


def member_identity(suite: Suite, repetition: int, position: int) -> tuple[int, int]:
    """(pool, index) of the member at a position of a repetition's pool; position 0 is the source."""
    if suite.pool.sharing == "independent":
        return repetition, position
    members, sources = list(range(suite.pool.members)), suite.sources
    # While there are enough members, each repetition has another source; the others follow in random order.
    source = permuted(sources, seed_for(seed=suite.seed, purpose="sources"))[repetition % len(sources)]
    members.remove(source)
    partners = permuted(members, seed_for(seed=suite.seed, repetition=repetition, purpose="partners"))
    return 0, [source, *partners][position]


def sha256_of(file: str) -> str:
    """Of a file's content; computed again when its size or time of change differs.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        stat = Path(file).stat()
        return _sha256(file, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise DataError(
            f"The weights file {file} cannot be read ({error.strerror}): check [pool] checkpoints."
        ) from error


@lru_cache(maxsize=1000)
def _sha256(file: str, size: int, changed: int) -> str:
    with Path(file).open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def permuted(items: Iterable[int], seed: int) -> list[int]:
    """The items in random order, by Fisher-Yates with bounds that are drawn by masking and rejection.

    NumPy guarantees the raw numbers of PCG64, but not ``Generator.permutation``: its results may change with the
    version of NumPy.  This function keeps those of NumPy 1.17 to 2.4.
    """
    from numpy.random import PCG64

    raw = PCG64(seed)
    halves = (half for word in iter(raw.random_raw, None) for half in (word & 0xFFFFFFFF, word >> 32))
    order = list(items)
    for last in range(len(order) - 1, 0, -1):
        mask = (1 << last.bit_length()) - 1
        chosen = next(value for half in halves if (value := half & mask) <= last)
        order[last], order[chosen] = order[chosen], order[last]
    return order


def _add(
    plan: Plan,
    kind: str,
    title: str,
    recipe: dict[str, Any],
    needs: Iterable[tuple[str, str]] = (),
    payload: dict[str, Any] | None = None,
) -> str:
    key = digest({"kind": kind, **recipe})
    if key not in plan.nodes:
        plan.nodes[key] = Node(kind, key, title, recipe, tuple(needs), payload or {})
    return key


def _member(plan: Plan, repetition: int, position: int) -> str:
    if (repetition, position) not in plan.members:
        pool, index = member_identity(plan.suite, repetition, position)
        recipe = member_recipe(plan.suite, plan.data, repetition, pool, index)
        payload = {}
        if plan.suite.pool.checkpoints:  # given: the content of its file is part of the key
            file = plan.suite.pool.checkpoints[index].path
            recipe["checkpoint"], payload = sha256_of(file), {"file": file}
        plan.members[repetition, position] = _add(
            plan, "member", f"member {index + 1} of pool {pool + 1}", recipe, payload=payload
        )
    return plan.members[repetition, position]


def _parts(plan: Plan, use: _Use, size: int, repetition: int) -> dict[str, str]:
    """Keys of all parts of a method at one size, by name."""
    if (size, repetition) not in use.parts:
        keys: dict[str, str] = {}
        for part in use.method.parts(size):
            keys[part.name] = _part(plan, use, size, part, keys, repetition)
        use.parts[size, repetition] = keys
    return use.parts[size, repetition]


def _part(plan: Plan, use: _Use, size: int, part: Part, made: dict[str, str], repetition: int) -> str:
    members = [_member(plan, repetition, position) for position in part.members]
    missing = [name for name in part.needs if name not in made]
    if missing:
        raise PluginError(
            f"Method '{use.method.name}': part '{part.name}' needs '{missing[0]}': list that one before it in parts()."
        )
    needs = {name: made[name] for name in part.needs}
    views = _views(plan, use, members, part, repetition)
    recipe = part_recipe(plan.suite, plan.data, repetition, use.method, part, use.precision)
    recipe |= {"members": members, "needs": needs}
    if views:
        recipe |= {"teachers": use.teachers} | ({"unseen": plan.data.unseen} if on_unseen(use.teachers) else {})
    payload = {"spec": canonical(use.method), "size": size, "members": members, "parts": needs}
    payload |= {"views": views, "view_count": view_count(use.teachers), "part": part.name}
    title = f"{use.label}: {part.name}, repetition {repetition + 1}"
    sources = [("member", key) for key in members] + [("part", key) for key in needs.values()]
    sources += [("views", key) for key in views]
    return _add(plan, "part", title, recipe, sources, payload)


def _views(plan: Plan, use: _Use, members: list[str], part: Part, repetition: int) -> list[str]:
    """Keys of the stored logits of a part's teachers; none where they run online or do not teach."""
    count = view_count(use.teachers)
    if not count or part.teacher_mixup is None:
        return []
    unseen = plan.data.unseen if on_unseen(use.teachers) else None
    recipe = views_recipe(plan.suite, plan.data, repetition, part, use.precision, count, unseen)
    keys = []
    for member in members:
        title = f"logits of {plan.nodes[member].title} on {count} views" + (" of unseen images" if unseen else "")
        keys.append(_add(plan, "views", title, recipe | {"member": member}, [("member", member)]))
    return keys


def _ingredients(
    plan: Plan, use: _Use, size: int, repetition: int
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Keys of the parts, of all members that teach or predict, and of the stored logits of teachers."""
    positions = sorted({*use.method.members(size), *(m for part in use.method.parts(size) for m in part.members)})
    parts = tuple(_parts(plan, use, size, repetition).values())
    views = dict.fromkeys(key for part in parts for kind, key in plan.nodes[part].needs if kind == "views")
    return parts, tuple(_member(plan, repetition, position) for position in positions), tuple(views)


def _predictor_payload(plan: Plan, use: _Use, size: int, repetition: int) -> dict[str, Any]:
    return {
        "spec": canonical(use.method),
        "size": size,
        "members": {str(p): _member(plan, repetition, p) for p in use.method.members(size)},
        "parts": _parts(plan, use, size, repetition),
    }


def _predictions(plan: Plan, use: _Use, size: int, repetition: int) -> str:
    payload = _predictor_payload(plan, use, size, repetition)
    title = f"{use.label} size {size}, repetition {repetition + 1}"
    recipe = prediction_recipe(plan.suite, plan.data, repetition, use.method, payload)
    return _add(plan, "predictions", title, recipe, _sources(payload), payload)


def _shifts(plan: Plan, use: _Use, size: int, repetition: int) -> tuple[str, ...]:
    """Keys of a method's predictions on shifted images.

    Those of a deep ensemble are its members' predictions, which repetitions with one pool share.
    """
    assert plan.suite.shift is not None
    shift = {"shift": plan.suite.shift.images_key(plan.data.counts["test"])}
    payloads = {
        f"{use.label} size {size}, repetition {repetition + 1}": _predictor_payload(plan, use, size, repetition)
    }
    if use.method.name == plan.suite.task.reference:
        members = [_member(plan, repetition, position) for position in use.method.members(size)]
        alone = {"spec": canonical(use.method), "size": 1, "parts": {}}
        payloads = {plan.nodes[key].title: {**alone, "members": {"0": key}} for key in members}
    return tuple(
        _add(
            plan,
            "shifts",
            f"{title}, on shifted images",
            prediction_recipe(plan.suite, plan.data, repetition, use.method, payload) | shift,
            _sources(payload),
            payload,
        )
        for title, payload in payloads.items()
    )


def _cost(plan: Plan, use: _Use, size: int, repetition: int) -> str:
    """Key of the cost, which does not depend on weights: that of the first repetition serves all.

    Where a pool mixes networks, repetitions run other ones.
    """
    mixed = plan.suite.mixes_networks
    repetition = repetition if mixed else 0
    if (size, repetition) in use.costs:
        return use.costs[size, repetition]
    payload = _predictor_payload(plan, use, size, repetition)
    recipe = cost_recipe(plan.suite, plan.data, use.method, size)
    title = f"cost of {use.label} size {size}"
    if mixed:
        recipe["members"] = [plan.nodes[key].recipe["network"] for key in payload["members"].values()]
        title += f", repetition {repetition + 1}"
    use.costs[size, repetition] = _add(plan, "cost", title, recipe, _sources(payload), payload)
    return use.costs[size, repetition]


def _sources(payload: dict[str, Any]) -> list[tuple[str, str]]:
    members = [("member", key) for key in payload["members"].values()]
    return members + [("part", key) for key in payload["parts"].values()]
