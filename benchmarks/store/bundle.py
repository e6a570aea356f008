"""A suite's results in one file: written on one machine, read on another, where nothing is trained again.

A bundle is a zip archive: artefacts as they lie in the store, result rows, and a manifest with a checksum of each file.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.environment import versions
from benchmarks.store.artefacts import Store
from benchmarks.suite.plan import TRAINED, Plan
from benchmarks.suite.schema import is_name
from dbn_core.errors import ArtefactError, SpecError, StoreError
from dbn_core.files import atomic_write, replacing

_FORMAT = 1
_MANIFEST = "manifest.json"
_ROWS = ("rows.csv", "summary.csv", "comparisons.csv", "reliability.csv", "meta.json")
_SOME_ROWS = ("records.csv", "shifts.csv", "exhibits.safetensors")  # which not every suite has
# Nothing else is ever written to disk, whatever an archive calls its files.
_NAME = re.compile(
    r"store/[a-z]+/[0-9a-f]{2}/[0-9a-f]{40}\.(json|safetensors)|rows/("
    + "|".join(map(re.escape, (*_ROWS, *_SOME_ROWS)))
    + ")"
)


def export_suite(plan: Plan, store: Store, rows: Path, file: Path, weights: bool = False) -> int:
    """Write predictions, costs, timings, and what is known of the trainings, with the suite's result rows.

    Args:
        rows: folder of the suite's result rows.
        file: the archive; replaced when it exists.
        weights: trained weights and stored logits too.

    Returns:
        How many artefacts went in.

    Raises:
        SpecError: the suite has not been run, or the name of the file does not end in ``.zip``.
        ArtefactError: an artefact is damaged.
    """
    if file.suffix != ".zip":
        raise SpecError(f"'{file}': give a bundle a name that ends in .zip.")
    missing = [name for name in _ROWS if not (rows / name).is_file()]
    if missing:
        raise SpecError(f"There is no {missing[0]} in '{rows}': run `dbn-bench run {plan.suite.name}` first.")
    wanted = [(node.kind, node.key) for node in plan.nodes.values() if store.described(node.kind, node.key)]
    wanted += [(kind, key) for kind in ("data", "latency") for _, key in store.artefacts(kind)]
    wanted += _external(plan, store)
    there = [*_ROWS, *(name for name in _SOME_ROWS if (rows / name).is_file())]
    contents = {f"rows/{name}": (rows / name).read_bytes() for name in there}
    for kind, key in dict.fromkeys(wanted):
        contents[f"store/{kind}/{key[:2]}/{key}.json"] = store.sidecar(kind, key)
        if (kind not in TRAINED or weights) and (content := store.content(kind, key)):
            contents[f"store/{kind}/{key[:2]}/{key}.safetensors"] = content
    manifest = {
        "format": _FORMAT,
        "suite": plan.suite.name,
        "definition": plan.suite.model_dump(mode="json"),
        "versions": versions(),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    try:
        with replacing(file) as target, zipfile.ZipFile(target, "w") as archive:
            archive.writestr(_MANIFEST, json.dumps(manifest, indent=1))
            for name, content in contents.items():
                compression = zipfile.ZIP_STORED if name.endswith(".safetensors") else zipfile.ZIP_DEFLATED
                archive.writestr(name, content, compression)
    except OSError as error:
        raise StoreError(f"Cannot write '{file}': {error.strerror or error}.") from error
    return len(dict.fromkeys(wanted))


def _external(plan: Plan, store: Store) -> list[tuple[str, str]]:
    """Predictions that were made elsewhere and joined this suite."""
    found: list[tuple[str, str]] = []
    for kind, key in store.artefacts("external"):
        value = store.value(kind, key)["value"]
        if value["suite"] == plan.suite.name:
            found += [(kind, key), ("predictions", value["predictions"]), ("cost", value["cost"])]
    return found


def import_bundle(file: Path, store: Store, rows: Path | None = None) -> tuple[str, int, Path]:
    """Take over a bundle; nothing is written before every checksum is verified.

    Args:
        rows: where the result rows go; None: ``results/runs/<suite>``.

    Returns:
        Name of the suite, number of artefacts that the store did not have, folder of the rows.

    Raises:
        ArtefactError: the file is no bundle, or is damaged.
        SpecError: there is no such file.
    """
    if not file.is_file():
        raise SpecError(f"There is no file '{file}': give the path of a bundle that `dbn-bench store export` wrote.")
    manifest, contents = _read(file)
    suite: str = manifest["suite"]
    folder = rows or Path("results/runs") / suite
    new = 0
    # Tensors before their description: an artefact with a description is whole.
    for name in sorted(contents, key=lambda name: name.endswith(".json")):
        if name.startswith("rows/"):
            continue
        kind, _, leaf = name.removeprefix("store/").split("/")
        key, suffix = leaf.split(".")
        if store.has(kind, key):
            continue
        new += suffix == "json" and not store.described(kind, key)
        atomic_write(store.root / kind / key[:2] / leaf, contents[name])
    for name in (*_SOME_ROWS, *_ROWS):  # meta.json last: it says that the others are complete
        if f"rows/{name}" in contents:
            atomic_write(folder / name, contents[f"rows/{name}"])
        else:
            (folder / name).unlink(missing_ok=True)
    return suite, new, folder


def _read(file: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    damaged = ArtefactError(f"The bundle '{file}' is damaged or no bundle: export it again.")
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read(_MANIFEST))
            contents = {name: archive.read(name) for name in archive.namelist() if name != _MANIFEST}
        if manifest["format"] != _FORMAT:
            raise ArtefactError(
                f"The bundle '{file}' has format {manifest['format']}, this version reads {_FORMAT}: use the version "
                "of dbn-bench that wrote it."
            )
        expected = manifest["sha256"]
        if not is_name(manifest["suite"]):
            raise damaged
    except ArtefactError:
        raise
    except Exception as error:  # zipfile, zlib and json each have errors of their own for bytes that went wrong
        raise damaged from error
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if sums != expected or not all(_NAME.fullmatch(name) for name in contents):
        raise damaged
    if not all(f"rows/{name}" in contents for name in _ROWS):
        raise damaged
    return manifest, contents
