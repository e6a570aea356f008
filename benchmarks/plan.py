"""The plan: which artefacts a suite needs, and what each of them depends on.

A *cell* is one (method, size, repetition).  Its *nodes* are the members, the parts, the predictions and the cost that
it needs; cells share nodes wherever they agree on what makes them.  Keys are hashes of recipes alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.suite import Suite
from dbn_core.errors import PluginError
from dbn_core.method import Method, Part
from dbn_core.registry import canonical
from dbn_core.seeds import digest, seed_for

# Raise it when training or storing changes what an unchanged recipe gives.
FORMAT = 1
TRAINED = ("member", "part")


@dataclass(frozen=True)
class DataFacts:
    """What planning must know of the data without loading them."""

    fingerprint: str
    title: str
    channels: int
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    counts: dict[str, int]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DataFacts:
        """Inverse of ``dataclasses.asdict`` through JSON."""
        return cls(**{**value, "image_size": tuple(value["image_size"]), "classes": tuple(value["classes"])})


@dataclass(frozen=True)
class Node:
    """One artefact to make.

    Attributes:
        kind: ``member``, ``part``, ``predictions`` or ``cost``.
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
    spec: str
    label: str
    size: int
    repetition: int
    predictions: str
    terms: int | None  # how many terms of the stored predictions count; None: all
    cost: str
    parts: tuple[str, ...]
    members: tuple[str, ...]  # all it was made from, teachers included

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


def build_plan(suite: Suite, data: DataFacts) -> Plan:
    """Plan a suite; raises SpecError for methods, options or sizes that do not exist."""
    plan = Plan(suite, data)
    for entry, method, label in suite.entries():
        for repetition in range(suite.repetitions):
            for size in sorted(set(entry.sizes)):
                largest = max(entry.sizes) if method.nested else size
                predictions = _predictions(plan, method, label, largest, repetition)
                cost = _cost(plan, method, label, size)
                parts, members = _ingredients(plan, method, label, size, repetition)
                terms = method.terms(size) if method.nested else None
                plan.cells.append(
                    Cell(method, canonical(method), label, size, repetition, predictions, terms, cost, parts, members)
                )
    return plan


def member_identity(suite: Suite, repetition: int, position: int) -> tuple[int, int]:
    """(pool, index) of the member at a position of a repetition's pool; position 0 is the source."""
    if suite.pool.sharing == "independent":
        return repetition, position
    import numpy as np

    # Sources differ from repetition to repetition as long as there are members enough; the others follow at random.
    sources = np.random.default_rng(seed_for(seed=suite.seed, purpose="sources")).permutation(suite.pool.members)
    source = int(sources[repetition % suite.pool.members])
    others = [index for index in range(suite.pool.members) if index != source]
    rng = np.random.default_rng(seed_for(seed=suite.seed, repetition=repetition, purpose="partners"))
    return 0, [source, *rng.permutation(others).tolist()][position]


def _base(plan: Plan) -> dict[str, Any]:
    suite = plan.suite
    return {
        "format": FORMAT,
        "data": plan.data.fingerprint,
        "network": suite.network.key(),
        "recipe": suite.recipe.model_dump(),
        "seed": suite.seed,
    }


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
    pool, index = member_identity(plan.suite, repetition, position)
    recipe = _base(plan) | {"pool": pool, "index": index}
    return _add(plan, "member", f"member {index + 1} of pool {pool + 1}", recipe)


def _parts(plan: Plan, method: Method, label: str, size: int, repetition: int) -> dict[str, str]:
    """Keys of all parts of a method at one size, by name."""
    keys: dict[str, str] = {}
    for part in method.parts(size):
        keys[part.name] = _part(plan, method, label, size, part, keys, repetition)
    return keys


def _part(plan: Plan, method: Method, label: str, size: int, part: Part, made: dict[str, str], repetition: int) -> str:
    members = [_member(plan, repetition, position) for position in part.members]
    missing = [name for name in part.needs if name not in made]
    if missing:
        raise PluginError(
            f"Method '{method.name}': part '{part.name}' needs '{missing[0]}': list that before it in parts()."
        )
    needs = {name: made[name] for name in part.needs}
    settings = method.config.model_dump() if part.settings is None else dict(part.settings)
    recipe = _base(plan) | {
        "method": method.name,
        "version": method.version,
        "part": part.name,
        "settings": settings,
        "student_epochs": plan.suite.students.epochs,
        "members": members,
        "needs": needs,
        "repetition": repetition,
    }
    payload = {"spec": canonical(method), "size": size, "members": members, "parts": needs}
    title = f"{label}: {part.name}, repetition {repetition + 1}"
    sources = [("member", key) for key in members] + [("part", key) for key in needs.values()]
    return _add(plan, "part", title, recipe, sources, payload | {"part": part.name})


def _ingredients(
    plan: Plan, method: Method, label: str, size: int, repetition: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Keys of the parts, and of all members that taught or predict."""
    positions = sorted({*method.members(size), *(m for part in method.parts(size) for m in part.members)})
    parts = _parts(plan, method, label, size, repetition)
    return tuple(parts.values()), tuple(_member(plan, repetition, position) for position in positions)


def _predictor_payload(plan: Plan, method: Method, label: str, size: int, repetition: int) -> dict[str, Any]:
    return {
        "spec": canonical(method),
        "size": size,
        "members": {str(p): _member(plan, repetition, p) for p in method.members(size)},
        "parts": _parts(plan, method, label, size, repetition),
    }


def _predictions(plan: Plan, method: Method, label: str, size: int, repetition: int) -> str:
    payload = _predictor_payload(plan, method, label, size, repetition)
    recipe = _base(plan) | {
        "method": method.name,
        "version": method.version,
        "config": method.config.model_dump(),
        "size": size,
        "members": payload["members"],
        "parts": payload["parts"],
    }
    return _add(
        plan, "predictions", f"{label} size {size}, repetition {repetition + 1}", recipe, _sources(payload), payload
    )


def _cost(plan: Plan, method: Method, label: str, size: int) -> str:
    """Costs do not depend on weights, so the first repetition stands for all."""
    payload = _predictor_payload(plan, method, label, size, 0)
    recipe = {
        "format": FORMAT,
        "method": method.name,
        "version": method.version,
        "config": method.config.model_dump(),
        "size": size,
        "network": plan.suite.network.key(),
        "image": [plan.data.channels, *plan.data.image_size],
        "classes": len(plan.data.classes),
    }
    return _add(plan, "cost", f"cost of {label} size {size}", recipe, _sources(payload), payload)


def _sources(payload: dict[str, Any]) -> list[tuple[str, str]]:
    members = [("member", key) for key in payload["members"].values()]
    return members + [("part", key) for key in payload["parts"].values()]
