"""Write a suite's results to one file, and read them on another machine without training.

A bundle is a zip archive of artefacts, as in the store, of result rows, and of a manifest with their checksums.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.environment import versions
from benchmarks.store.artefacts import KINDS, Store
from benchmarks.store.released import opened
from benchmarks.store.rows import ROWS, SOME_ROWS, write_rows
from benchmarks.suite.plan import TRAINED, Plan
from benchmarks.suite.schema import is_name
from dbn_core.errors import ArtefactError, SpecError, StoreError
from dbn_core.files import atomic_write, replacing
from dbn_core.rng import digest

_FORMAT = 1
_MANIFEST = "manifest.json"
# Only files with these names are written to disk.
_NAME = re.compile(
    rf"store/({'|'.join(KINDS)})/([0-9a-f]{{2}})/\2[0-9a-f]{{38}}\.(json|safetensors)|rows/("
    + "|".join(map(re.escape, (*ROWS, *SOME_ROWS)))
    + ")"
)


def export_suite(plan: Plan, store: Store, rows: Path, file: Path, weights: bool = False) -> int:
    """Write predictions, costs, timings, sidecars of trainings, and the suite's result rows.

    Args:
        rows: folder of the suite's result rows.
        file: the archive; replaced when it exists.
        weights: also write trained weights and stored logits; those that the store lacks are left out.

    Returns:
        Number of artefacts.

    Raises:
        SpecError: the suite has not been run, or the name of the file does not end in ``.zip``.
        ArtefactError: an artefact is damaged.
    """
    if file.suffix != ".zip":
        raise SpecError(f"'{file}': give a bundle a name that ends in .zip.")
    missing = [name for name in ROWS if not (rows / name).is_file()]
    if missing:
        raise SpecError(f"There is no {missing[0]} in '{rows}': run `dbn-bench run {plan.suite.name}` first.")
    wanted = [(node.kind, node.key) for node in plan.nodes.values() if store.described(node.kind, node.key)]
    wanted += [(kind, key) for kind in ("data", "latency") for _, key in store.artefacts(kind)]
    wanted += [
        (kind, key)
        for kind, key in store.artefacts("external")
        if store.value(kind, key)["value"]["recipe"]["suite"] == plan.suite.name
    ]
    there = [*ROWS, *(name for name in SOME_ROWS if (rows / name).is_file())]
    contents = {f"rows/{name}": (rows / name).read_bytes() for name in there}
    for kind, key in dict.fromkeys(wanted):
        contents[f"store/{kind}/{key[:2]}/{key}.json"] = store.sidecar(kind, key)
        if (kind not in TRAINED or (weights and _at_hand(store, kind, key))) and (content := store.content(kind, key)):
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


def _at_hand(store: Store, kind: str, key: str) -> bool:
    """Whether an artefact has its tensors, be they damaged: a release may have the description alone."""
    return store.has(kind, key) or store.tensors_path(kind, key).is_file()


def import_bundle(
    file: Path,
    store: Store,
    rows: Path | None = None,
    replace_rows: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[str, int, Path]:
    """Import a bundle; all of it is checked before anything is written.

    Args:
        rows: folder for the result rows; None: ``results/runs/<suite>``.
        replace_rows: whether other rows there may be replaced.
        report: called with each line of a summary, before anything is written.

    Returns:
        Name of the suite, number of new artefacts, folder of the rows.

    Raises:
        ArtefactError: the file is no bundle or damaged, or an artefact does not belong to its key.
        SpecError: there is no such file, or the folder has other rows.
        StoreError: a run is making one of the artefacts, ``store gc`` runs, or a file cannot be written.
    """
    if not file.is_file():
        raise SpecError(f"There is no file '{file}': give the path of a bundle that `dbn-bench store export` wrote.")
    suite, contents, described = _read(file)
    folder = rows or Path("results/runs") / suite
    result_files = {name.removeprefix("rows/"): c for name, c in contents.items() if name.startswith("rows/")}
    there = {name: (folder / name).read_bytes() for name in (*ROWS, *SOME_ROWS) if (folder / name).is_file()}
    if there.items() - result_files.items() and not replace_rows:
        raise SpecError(
            f"'{folder}' holds other result rows, which those of the bundle would replace: choose another folder with "
            "--rows, or allow it with --replace-rows."
        )
    report(f"The bundle holds rows of the suite {suite}, and these artefacts:")
    for kind, count in Counter(kind for kind, _ in described).items():
        report(f"{count} {kind}")
    new = 0
    with store.in_use(), zipfile.ZipFile(file) as archive:
        for (kind, key), with_tensors in described.items():
            name = _name(kind, key)
            with store.locked(key) as mine:
                if store.has(kind, key):
                    continue
                if not mine:
                    raise StoreError(f"A run makes the artefact {kind}/{key}: import '{file}' when it has ended.")
                new += not store.described(kind, key)
                # The sidecar last: an artefact with a sidecar is complete.
                if with_tensors:
                    atomic_write(store.tensors_path(kind, key), archive.read(name + ".safetensors"))
                atomic_write(store.sidecar_path(kind, key), contents[name + ".json"])
        write_rows(folder, result_files)
    return suite, new, folder


def _name(kind: str, key: str) -> str:
    return f"store/{kind}/{key[:2]}/{key}"


def _read(file: Path) -> tuple[str, dict[str, bytes], dict[tuple[str, str], bool]]:
    """Name of the suite, small files by name, and for each artefact whether its tensors are there; all verified."""
    damaged = ArtefactError(f"The bundle '{file}' is damaged or no bundle: export it again.")
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read(_MANIFEST))
            if manifest["format"] != _FORMAT:
                raise ArtefactError(
                    f"The bundle '{file}' has format {manifest['format']}, this version reads {_FORMAT}: use the "
                    "version of dbn-bench that wrote it."
                )
            names = set(archive.namelist()) - {_MANIFEST}
            if not all(map(_NAME.fullmatch, names)) or not names >= {f"rows/{name}" for name in ROWS}:
                raise damaged
            contents, sums = dict[str, bytes](), dict[str, str]()
            for name in sorted(names):
                with archive.open(name) as stream:
                    if name.startswith("store/") and name.endswith(".safetensors"):  # may be large
                        sums[name] = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
                    else:
                        contents[name] = stream.read()
                        sums[name] = hashlib.sha256(contents[name]).hexdigest()
        suite, described = manifest["suite"], dict[tuple[str, str], bool]()
        if not is_name(suite) or sums != manifest["sha256"]:
            raise damaged
        for name, sidecar in contents.items():
            if name.startswith("store/"):
                _, kind, _, leaf = name.split("/")
                meta = opened(sidecar, kind, key := leaf.removesuffix(".json"))
                tensors = sums.get(_name(kind, key) + ".safetensors")
                described[kind, key] = tensors is not None
                of_its_key = kind == "data" or digest({"kind": kind, **meta["value"]["recipe"]}) == key
                if tensors not in (None, meta["sha256"]) or not of_its_key:
                    raise ArtefactError(
                        f"The bundle '{file}' holds {kind}/{key}, whose recipe or tensors do not belong to that key: "
                        "export it again."
                    )
    except ArtefactError:
        raise
    except Exception as error:  # zipfile, zlib and json raise errors of many types for damaged bytes
        raise damaged from error
    return suite, contents, described
