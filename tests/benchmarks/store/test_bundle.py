"""Bundles: results of a suite in one file, which reproduces its report elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.cli import application
from benchmarks.report import render
from benchmarks.report.load import read_results
from benchmarks.results.external.cells import Entry, StatedCost, add_external
from benchmarks.store.artefacts import Store
from benchmarks.store.bundle import export_suite, import_bundle
from benchmarks.store.storage import verify_store
from benchmarks.suite.plan import Plan
from dbn_core.errors import ArtefactError, SpecError, StoreError
from dbn_core.files import atomic_write
from tests.support import tiny

SUITE = tiny.HEAD + tiny.DE + tiny.ED


@pytest.fixture
def bundle(tiny_run: tuple[Path, Plan], tmp_path: Path) -> Path:
    """A bundle of the suite, without weights."""
    folder, plan = tiny_run
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "b.zip")
    return tmp_path / "b.zip"


def command(*words: object, answer: str = "") -> Result:
    return CliRunner().invoke(application("store"), ["store", *map(str, words)], input=answer)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_bundle_reproduces_the_report_without_training(
    tiny_run: tuple[Path, Plan], bundle: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    suite, new, rows = import_bundle(bundle, Store(elsewhere / "store"), elsewhere / "rows")
    assert suite == "tiny"
    assert new == len([name for name in contents_of(bundle) if name.startswith("store/") and name.endswith(".json")])
    assert import_bundle(bundle, Store(elsewhere / "store"), elsewhere / "rows")[1] == 0  # nothing is new
    render(rows, elsewhere / "reports" / "tiny")
    assert files(elsewhere / "reports") == files(tiny_run[0] / "reports")
    # The predictions are there too: analysed again, they give the same rows, and nothing is trained.
    assert not list((elsewhere / "store").glob("member/*/*.safetensors"))
    before = files(rows)
    assert not tiny.run(elsewhere).outcome.made
    after = files(rows)
    assert {n: c for n, c in after.items() if n != "meta.json"} == {n: c for n, c in before.items() if n != "meta.json"}


def test_a_bundle_with_weights_can_be_built_upon(tiny_run: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = tiny_run
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "all.zip", weights=True)
    import_bundle(tmp_path / "all.zip", Store(tmp_path / "x" / "store"), tmp_path / "x" / "rows")
    result = tiny.run(tmp_path / "x", SUITE + tiny.TS)
    assert {node.kind for node in result.outcome.made} == {"part", "predictions", "cost"}


def test_weights_that_are_not_at_hand_are_left_out_and_damaged_ones_are_not(
    tiny_run: tuple[Path, Plan], tmp_path: Path
) -> None:
    folder, plan = tiny_run
    store = Store(shutil.copytree(folder / "store", tmp_path / "store"))
    gone, kept = list(store.own("member"))[:2]
    store.tensors_path(*gone).unlink()
    export_suite(plan, store, folder / "rows", tmp_path / "all.zip", weights=True)
    import_bundle(tmp_path / "all.zip", there := Store(tmp_path / "there"), tmp_path / "rows")
    assert there.described(*gone)
    assert not there.has(*gone)
    assert there.has(*kept)
    store.tensors_path(*kept).write_bytes(b"damage")
    with pytest.raises(ArtefactError, match="damaged"):
        export_suite(plan, store, folder / "rows", tmp_path / "again.zip", weights=True)


def test_a_bundle_carries_predictions_that_were_made_elsewhere(tiny_run: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = tiny_run
    store, elsewhere = Store(shutil.copytree(folder / "store", tmp_path / "store")), Store(tmp_path / "elsewhere")
    cell = next(cell for cell in plan.cells if cell.size == 1)
    arrays = store.arrays("predictions", cell.predictions)
    given = {name: array[:1] if array.ndim == 3 else array for name, array in arrays.items()}
    add_external(plan, store, Entry("Mine", 1, 0, StatedCost(macs=7)), given)
    export_suite(plan, store, folder / "rows", tmp_path / "b.zip")
    lines: list[str] = []
    import_bundle(tmp_path / "b.zip", elsewhere, tmp_path / "rows", report=lines.append)
    assert "1 external" in lines
    ((_, key),) = elsewhere.own("external")
    assert elsewhere.value("external", key) == store.value("external", key)


def test_an_export_does_not_write_through_links(tiny_run: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = tiny_run
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".b.zip.tmp").symlink_to(tmp_path / "victim")
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "b.zip")
    assert zipfile.is_zipfile(tmp_path / "b.zip")
    assert (tmp_path / "victim").read_text() == "mine"


def zipped(file: Path, contents: dict[str, bytes], suite: str = "tiny") -> Path:
    """A bundle of these contents, with their checksums."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"format": 1, "suite": suite, "sha256": sums}))
        for name, content in contents.items():
            archive.writestr(name, content, None if name.endswith(".safetensors") else zipfile.ZIP_DEFLATED)
    return file


def contents_of(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}


def artefact(folder: Path, kind: str, key: str, value: dict[str, object], content: bytes = b"") -> dict[str, bytes]:
    """Its files, as they lie in a bundle."""
    Store(folder).put(kind, key, value, content)
    return {f"store/{name}": content for name, content in files(folder).items()}


def test_importing_says_what_comes_and_replaces_rows_when_asked(
    tiny_run: tuple[Path, Plan], bundle: Path, tmp_path: Path
) -> None:
    mine = shutil.copytree(tiny_run[0] / "rows", tmp_path / "rows")
    (mine / "records.csv").write_text("my records")
    before = files(mine)
    words = ("import", bundle, "--store", tmp_path / "store", "--rows", mine)
    refused = command(*words)
    assert "holds other result rows" in str(refused.exception)
    assert "--replace-rows" in str(refused.exception)
    assert files(mine) == before
    assert not (tmp_path / "store").exists()
    said = command(*words, "--replace-rows")
    assert said.exit_code == 0
    assert "rows of the suite tiny" in said.output
    assert "2 predictions" in said.output
    assert not (mine / "records.csv").exists()
    assert command(*words).exit_code == 0  # they are the same rows


def test_a_bundle_whose_artefacts_are_not_of_their_keys_is_refused(bundle: Path, tmp_path: Path) -> None:
    good, key = contents_of(bundle), "cd" * 20
    forged = [
        artefact(tmp_path / "1", "cost", key, {"recipe": {"nonsense": 1}, "macs": 1}),
        artefact(tmp_path / "2", "predictions", key, {"recipe": {"identity": {}}}, b"x"),
        artefact(tmp_path / "3", "external", key, {"recipe": {"suite": "storage", "label": "x"}}),
        *(artefact(tmp_path / kind, kind, key, {}) for kind in ("locks", "runs", "checkpoints")),
    ]
    for extra in forged:
        with pytest.raises(ArtefactError, match=r"bad\.zip"):
            import_bundle(zipped(tmp_path / "bad.zip", good | extra), Store(tmp_path / "in"), tmp_path / "rows")
    assert not (tmp_path / "in").exists()
    import_bundle(zipped(tmp_path / "same.zip", good), Store(tmp_path / "in"), tmp_path / "rows")


def test_gc_waits_for_an_import(tiny_run: tuple[Path, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tensors and their description there is nothing yet that names them."""
    folder, plan = tiny_run
    export_suite(plan, Store(folder / "store"), folder / "rows", bundle := tmp_path / "b.zip", weights=True)
    store = Store(tmp_path / "store")
    refusals = []

    def write_slowly(path: Path, content: bytes) -> None:
        atomic_write(path, content)
        os.utime(path, (path.stat().st_mtime - 90_000,) * 2)  # unpacked with its time
        refusals.append(command("gc", "--store", store.root, "--yes"))

    monkeypatch.setattr("benchmarks.store.bundle.atomic_write", write_slowly)
    import_bundle(bundle, store, tmp_path / "rows")
    assert refusals
    assert all("is in use" in str(refused.exception) for refused in refusals)
    assert files(store.root / "predictions") == files(folder / "store" / "predictions")
    assert files(store.root / "member") == files(folder / "store" / "member")
    verify_store(store)
    assert not store.damaged


def test_an_import_does_not_mix_with_a_run(tiny_run: tuple[Path, Plan], bundle: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    node = next(n for n in tiny_run[1].nodes.values() if n.kind == "predictions")
    with store.locked(node.key), pytest.raises(StoreError, match=f"A run makes the artefact predictions/{node.key}"):
        import_bundle(bundle, store, tmp_path / "rows")
    assert not (tmp_path / "rows").exists()
    import_bundle(bundle, store, tmp_path / "rows")


KILLED = """
import os, signal, sys
from pathlib import Path
from benchmarks.store.artefacts import Store
from benchmarks.store.bundle import import_bundle
replace, left = Path.replace, [int(sys.argv[3])]
def replace_or_die(path, target):
    if Path(target).parent == Path(sys.argv[2]):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)
Path.replace = replace_or_die
import_bundle(Path(sys.argv[1]), Store(Path(sys.argv[2]).parent / "store"), Path(sys.argv[2]), True)
"""


@pytest.mark.parametrize("after", [1, 4])
def test_an_import_that_is_killed_leaves_no_mixture(tiny_run: tuple[Path, Plan], tmp_path: Path, after: int) -> None:
    mine = shutil.copytree(tiny_run[0] / "rows", tmp_path / "rows")
    theirs = {f"rows/{name}": content.replace(b"tiny", b"them") for name, content in files(mine).items()}
    theirs_zipped = zipped(tmp_path / "theirs.zip", theirs)
    words = [sys.executable, "-c", KILLED, str(theirs_zipped), str(mine)]
    assert subprocess.run([*words, str(after)], check=False).returncode == -signal.SIGKILL
    with pytest.raises(ArtefactError, match=r"meta\.json is missing"):
        read_results(mine)
    import_bundle(theirs_zipped, Store(tmp_path / "store"), mine, True)
    read_results(mine)
    assert {f"rows/{name}": content for name, content in files(mine).items() if ".tmp" not in name} == theirs


@pytest.mark.parametrize("damage", ["altered", "outside", "from the future", "incomplete"])
def test_a_bad_bundle_changes_nothing(bundle: Path, tmp_path: Path, damage: str) -> None:
    contents = contents_of(bundle)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if damage == "altered":
        name = next(name for name in contents if name.endswith(".safetensors"))
        contents[name] = contents[name][:-1] + bytes([contents[name][-1] ^ 1])
    elif damage == "outside":
        contents["../evil.json"] = b"{}"
        sums["../evil.json"] = hashlib.sha256(b"{}").hexdigest()
    elif damage == "incomplete":
        del contents["rows/meta.json"], sums["rows/meta.json"]
    manifest = {"format": 99 if damage == "from the future" else 1, "suite": "tiny", "sha256": sums}
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(ArtefactError, match=r"bad\.zip"):
        import_bundle(tmp_path / "bad.zip", Store(tmp_path / "in" / "store"), tmp_path / "in" / "rows")
    assert not list(tmp_path.rglob("evil.json"))
    assert not (tmp_path / "in").exists()


def test_what_is_no_bundle_is_one_sentence(tiny_run: tuple[Path, Plan], bundle: Path, tmp_path: Path) -> None:
    folder, plan = tiny_run
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(ArtefactError, match="damaged or no bundle"):
        import_bundle(tmp_path / "text.zip", Store(tmp_path / "store"))
    with pytest.raises(SpecError, match="no file"):
        import_bundle(tmp_path / "absent.zip", Store(tmp_path / "store"))
    with pytest.raises(SpecError, match=r"ends in \.zip"):
        export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "bundle")
    with pytest.raises(SpecError, match="dbn-bench run tiny"):
        export_suite(plan, Store(folder / "store"), tmp_path / "nowhere", bundle)
