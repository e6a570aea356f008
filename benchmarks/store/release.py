"""Release a suite: write its artefacts to a folder that is committed (read by :mod:`benchmarks.store.released`).

A release may be incomplete: members can be released before there are results.  The same artefacts give the same
archives, byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import versions
from benchmarks.store.artefacts import Store
from benchmarks.store.released import DESCRIPTIONS, FORMAT, MANIFEST, entry, in_pieces
from benchmarks.suite.names import cells_of_method
from benchmarks.suite.plan import Node, Plan
from dbn_core.errors import SpecError, did_you_mean
from dbn_core.files import atomic_write
from dbn_core.rng import digest


@dataclass(frozen=True)
class Release:
    """What was released: by kind the number of artefacts, of those with all their data, and of planned ones; sizes.

    Attributes:
        files: bytes of each file.
    """

    counts: dict[str, tuple[int, int, int]]
    files: dict[str, int]


def release_suite(
    plan: Plan,
    store: Store,
    folder: Path,
    pools: int | None = None,
    parts: int = 1,
    without_weights: Sequence[str] = (),
) -> Release:
    """Write the released folder of a suite from a store, which may itself read released results.

    Args:
        folder: archives in it that are not part of the release are removed.
        pools: number of pools, from the first, whose weights are released; None: all.
        parts: number of repetitions, from the first, whose trained parts are released.
        without_weights: methods whose trained parts are not released, as
            :func:`~benchmarks.suite.names.cells_of_method` reads names.

    Raises:
        SpecError: the store has nothing of the suite, or the suite has no such method.
        ArtefactError, StoreError: an artefact is damaged, or the folder cannot be written to.
    """
    nodes = [node for node in plan.nodes.values() if store.described(node.kind, node.key)]
    if not nodes:
        raise SpecError(
            f"The store '{store.root}' has nothing of the suite '{plan.suite.name}': `dbn-bench run {plan.suite.name}` "
            "makes what can be released."
        )
    released_parts = _released_parts(plan, parts, without_weights)
    methods = {cell.predictions: cell.method.name for cell in reversed(plan.cells)}  # of several, the suite's first
    places = {(node.kind, node.key): _archive(node, store, pools, released_parts, methods) for node in nodes}
    places |= dict.fromkeys(_unplanned(plan, store), "")
    archives: dict[str, dict[str, bytes]] = {DESCRIPTIONS: {}}
    for (kind, key), archive in places.items():
        archives[DESCRIPTIONS][entry(kind, key, "json")] = store.sidecar(kind, key)
        if archive:
            content, files = store.content(kind, key), archives.setdefault(archive, {})
            files |= (
                in_pieces(kind, key, content) if kind == "predictions" else {entry(kind, key, "safetensors"): content}
            )
    zipped = {name: _zipped(contents) for name, contents in sorted(archives.items())}
    manifest = {
        "format": FORMAT,
        "suite": plan.suite.name,
        "definition": plan.suite.model_dump(mode="json", exclude={"data": {"root", "obtain", "download"}}),
        "commit": _commit(),
        "versions": versions(),
        "files": {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in zipped.items()
        },
        "artefacts": {f"{kind}/{key}": archive for (kind, key), archive in sorted(places.items())},
    }
    manifest["sha256"] = digest(manifest, 64)
    zipped[MANIFEST] = (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()
    for name, content in zipped.items():  # the manifest last: it lists the others
        atomic_write(folder / name, content)
    for path in folder.glob("*.zip"):
        if path.name not in zipped:
            path.unlink()
    planned = Counter(node.kind for node in plan.nodes.values())
    found = Counter(kind for kind, _ in places)
    whole = Counter(kind for (kind, _), archive in places.items() if archive is not None)
    counts = {kind: (found[kind], whole[kind], planned[kind]) for kind in planned | found}
    return Release(counts, {name: len(content) for name, content in zipped.items()})


def _released_parts(plan: Plan, repetitions: int, without: Sequence[str]) -> set[str]:
    left_out: set[str] = set()
    for name in without:
        named = {cell.spec for cell in cells_of_method(plan.cells, name)}
        if not named:
            known = dict.fromkeys(cell.label for cell in plan.cells)
            raise SpecError(f"--without-weights {name}: the suite has no such method{did_you_mean(name, known)}.")
        left_out |= named
    return {
        key for cell in plan.cells if cell.repetition < repetitions and cell.spec not in left_out for key in cell.parts
    }


def _archive(node: Node, store: Store, pools: int | None, parts: Set[str], methods: Mapping[str, str]) -> str | None:
    """The archive for the tensors of an artefact: "" if it has none, None if they are not released."""
    if node.kind == "member" and store.has(node.kind, node.key):
        pool = node.recipe["pool"]
        return f"pool-{pool + 1:02d}.zip" if pools is None or pool < pools else None
    if node.kind == "part" and node.key in parts and store.has(node.kind, node.key):
        return f"part-{node.key[:8]}.zip"  # its own file, so that a further part changes no other
    if node.kind == "predictions" and store.has(node.kind, node.key):
        return f"predictions-{methods[node.key]}.zip"  # so that a further method changes no other
    return "" if node.kind == "cost" else None


def _unplanned(plan: Plan, store: Store) -> list[tuple[str, str]]:
    """Artefacts that belong to a suite but not to its plan: facts about its data, and its largest timing.

    Of timings of as many predictors the store's own comes before a released one.
    """
    costs = {f"{cell.spec}@{cell.size}": cell.cost for cell in plan.cells}
    found = []
    for kind, key in store.artefacts("data"):
        if store.value(kind, key)["value"]["facts"]["fingerprint"] == plan.data.fingerprint:
            found.append((kind, key))
    spec, timed, own = plan.suite.latency.model_dump(mode="json"), [], set(store.own("latency"))
    for kind, key in store.artefacts("latency"):
        recipe = store.value(kind, key)["value"]["recipe"]
        if recipe["costs"].items() <= costs.items() and recipe["spec"] == spec:
            timed.append((len(recipe["costs"]), (kind, key) in own, kind, key))
    return found + [(kind, key) for _, _, kind, key in sorted(timed)[-1:]]


def _zipped(contents: Mapping[str, bytes]) -> bytes:
    """A zip archive without times and owners."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in sorted(contents.items()):
            info = zipfile.ZipInfo(name)  # of 1980
            info.create_system, info.external_attr = 3, 0o644 << 16  # on every system
            archive.writestr(info, content, zipfile.ZIP_DEFLATED, 9)
    return file.getvalue()


def _commit() -> str:
    """The commit of the code, marked where files differ from it; empty outside a repository."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
