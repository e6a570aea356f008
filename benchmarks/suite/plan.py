"""The plan: which artefacts a suite needs, and what each of them depends on.

A *cell* is one (method, size, repetition).  Its *nodes* are the members, the parts, the predictions and the cost that
it needs; cells share nodes wherever they agree on what makes them.  Keys are hashes of recipes alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.suite.schema import Suite, naming_method
from benchmarks.suite.specs import on_unseen, view_count
from dbn_core.errors import DataError, PluginError
from dbn_core.methods.method import Method, Part, options_key
from dbn_core.methods.registry import canonical
from dbn_core.rng import digest, seed_for
from dbn_core.tasks.base import task_named

# Raise it when training or storing changes what an unchanged recipe gives.
FORMAT = 1
TRAINED = ("member", "views", "part")


def priority(kind: str) -> int:
    """Which ready nodes begin first: those that take a second, then predictions on shifted images, then trainings."""
    return 2 if kind in TRAINED else int(kind == "shifts")


@dataclass(frozen=True)
class DataFacts:
    """What planning must know of the data without loading them."""

    fingerprint: str
    title: str
    channels: int
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    counts: dict[str, int]
    unseen: str | None = None  # fingerprint of the images that no member is trained on

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DataFacts:
        """Inverse of ``dataclasses.asdict`` through JSON."""
        return cls(**{**value, "image_size": tuple(value["image_size"]), "classes": tuple(value["classes"])})


@dataclass(frozen=True)
class Node:
    """One artefact to make.

    Attributes:
        kind: ``member``, ``views`` (a member's logits on them), ``part``, ``predictions``, ``shifts`` (predictions on
            shifted images) or ``cost``.
        key: hash of the recipe.
        title: what progress calls it.
        recipe: JSON that is hashed and stored beside the result.
        needs: keys of the nodes it reads, with their kinds.
        payload: what the worker must know; never part of the key.
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
        """Keys of what is measured of it."""
        return self.predictions, self.cost, *self.shifts

    @property
    def is_reference(self) -> bool:
        """Whether it is of the method that others are measured by: a deep ensemble."""
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

    def __post_init__(self) -> None:
        self.command = self.command or f"dbn-bench run {self.suite.name}"


@dataclass(frozen=True)
class _Use:
    """A method as an entry of the suite uses it, and what has been planned of it: keys of parts by size, repetition."""

    method: Method
    label: str
    teachers: str
    precision: str
    parts: dict[tuple[int, int], dict[str, str]] = field(default_factory=dict)
    costs: dict[int, str] = field(default_factory=dict)


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
        for repetition in range(suite.repetitions_of(entry)):
            for size in sorted(set(entry.sizes)):
                largest = max(entry.sizes) if method.nested else size
                with naming_method(method):
                    predictions, cost = _predictions(plan, use, largest, repetition), _cost(plan, use, size)
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
    members = list(range(suite.pool.members))
    # While there are enough members, each repetition has another source; the others follow in random order.
    source = permuted(members, seed_for(seed=suite.seed, purpose="sources"))[repetition % suite.pool.members]
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


def _base(plan: Plan, repetition: int) -> dict[str, Any]:
    suite = plan.suite
    return {
        "format": FORMAT,
        "data": plan.data.fingerprint,
        "network": suite.network.key(),
        "recipe": suite.recipe.key(),
        "seed": suite.seed,
        **_task(suite),
        **_split(suite, repetition),
    }


def _task(suite: Suite) -> dict[str, Any]:
    """What the artefacts of a task have in their keys; those of classification are older than tasks."""
    return {} if suite.task.name == "classification" else {"task": suite.task.key()}


def _split(suite: Suite, repetition: int) -> dict[str, int]:
    """Which split of the data an artefact belongs to, where each repetition draws its own."""
    return {"split": repetition} if suite.data.resplits else {}


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
        recipe = _base(plan, repetition) | {"pool": pool, "index": index}
        payload = {}
        if plan.suite.pool.checkpoints:  # given: the content of its file is part of the key
            file = plan.suite.pool.checkpoints[index]
            recipe["checkpoint"], payload = sha256_of(file), {"file": file}
        if plan.suite.pool.weights != "fp32":  # part of the key only where set, so that older keys stay
            recipe["weights"] = plan.suite.pool.weights
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
            f"Method '{use.method.name}': part '{part.name}' needs '{missing[0]}': list that before it in parts()."
        )
    needs = {name: made[name] for name in part.needs}
    settings = options_key(use.method.config) if part.settings is None else dict(part.settings)
    owner = part.owner or use.method
    recipe = _base(plan, repetition) | {
        "recipe": plan.suite.recipe.replace(precision=use.precision).key(),
        "method": owner.name,
        "version": owner.version,
        "part": part.name,
        "settings": settings,
        "student_epochs": plan.suite.students.epochs,
        "members": members,
        "needs": needs,
        "repetition": repetition,
    }
    count = view_count(use.teachers)
    unseen = plan.data.unseen if on_unseen(use.teachers) else None
    views = (
        _views(plan, use, members, part, count, unseen, repetition) if count and part.teacher_mixup is not None else []
    )
    if views:
        recipe["teachers"] = use.teachers
        recipe |= {"unseen": unseen} if unseen else {}
    payload = {"spec": canonical(use.method), "size": size, "members": members, "parts": needs}
    payload |= {"views": views, "view_count": count}
    title = f"{use.label}: {part.name}, repetition {repetition + 1}"
    sources = [("member", key) for key in members] + [("part", key) for key in needs.values()]
    sources += [("views", key) for key in views]
    return _add(plan, "part", title, recipe, sources, payload | {"part": part.name})


def _views(
    plan: Plan, use: _Use, members: list[str], part: Part, count: int, unseen: str | None, repetition: int
) -> list[str]:
    """Keys of the logits of a part's teachers on ``count`` views of the training split, or of unseen images."""
    recipe = part.shown(plan.suite.recipe)
    shown: dict[str, Any] = {
        "count": count,
        "crop_pad": recipe.crop_pad,
        "flip": recipe.flip,
        "mixup": part.teacher_mixup,
    }
    shown |= {"cutmix": recipe.cutmix} if recipe.cutmix else {}
    shown |= {"precision": use.precision} if use.precision != "fp32" else {}  # as teachers that run online
    shown |= ({"unseen": unseen} if unseen else {}) | _split(plan.suite, repetition)
    keys = []
    for member in members:
        made = {"format": FORMAT, "data": plan.data.fingerprint, "seed": plan.suite.seed, "member": member, **shown}
        title = f"logits of {plan.nodes[member].title} on {count} views" + (" of unseen images" if unseen else "")
        keys.append(_add(plan, "views", title, made, [("member", member)]))
    return keys


def _ingredients(
    plan: Plan, use: _Use, size: int, repetition: int
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Keys of the parts, of all members that taught or predict, and of the stored logits that taught."""
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
    recipe = _prediction_recipe(plan, use, payload, repetition)
    return _add(plan, "predictions", title, recipe, _sources(payload), payload)


def _shifts(plan: Plan, use: _Use, size: int, repetition: int) -> tuple[str, ...]:
    """Keys of a method's predictions on shifted images.

    A deep ensemble's are those of its members one by one: repetitions that draw on one pool share them.
    """
    assert plan.suite.shift is not None
    shift = {"shift": plan.suite.shift.key(plan.data.counts["test"])}
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
            _prediction_recipe(plan, use, payload, repetition) | shift,
            _sources(payload),
            payload,
        )
        for title, payload in payloads.items()
    )


def _prediction_recipe(plan: Plan, use: _Use, payload: dict[str, Any], repetition: int) -> dict[str, Any]:
    recipe = _base(plan, repetition) | {
        "method": use.method.name,
        "version": use.method.version,
        "config": options_key(use.method.config),
        "size": payload["size"],
        "members": payload["members"],
        "parts": payload["parts"],
    }
    if plan.suite.task.draws_predictions:
        recipe["repetition"] = repetition
    if plan.suite.predictions != "fp32":
        recipe["predictions"] = plan.suite.predictions
    return recipe


def _cost(plan: Plan, use: _Use, size: int) -> str:
    """Costs do not depend on weights, so the first repetition stands for all."""
    if size in use.costs:
        return use.costs[size]
    payload = _predictor_payload(plan, use, size, 0)
    recipe = {
        "format": FORMAT,
        "method": use.method.name,
        "version": use.method.version,
        "config": options_key(use.method.config),
        "size": size,
        "network": plan.suite.network.key(),
        "image": [plan.data.channels, *plan.data.image_size],
        "classes": len(plan.data.classes),
        **_task(plan.suite),
    }
    if type(use.method).cost is not Method.cost:  # a cost that a method states may depend on the data
        recipe["data"] = plan.data.fingerprint
    use.costs[size] = _add(plan, "cost", f"cost of {use.label} size {size}", recipe, _sources(payload), payload)
    return use.costs[size]


def _sources(payload: dict[str, Any]) -> list[tuple[str, str]]:
    members = [("member", key) for key in payload["members"].values()]
    return members + [("part", key) for key in payload["parts"].values()]
