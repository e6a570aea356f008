"""Looking after the store: what gc removes, and that a bundle reproduces a report elsewhere."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import tiny

from benchmarks.report import render
from benchmarks.run import plan_suite, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.store.bundle import export_suite, import_bundle
from benchmarks.store.storage import collect, remove, verify_store
from benchmarks.suite.plan import Plan
from benchmarks.suite.schema import load_suite
from benchmarks.work.make import Options
from dbn_core.errors import ArtefactError, SpecError

SUITE = tiny.HEAD + tiny.DE + tiny.ED


def go(folder: Path, text: str = SUITE, made_nothing: bool = False) -> Plan:
    folder.mkdir(exist_ok=True)
    (folder / "storage.toml").write_text(text)
    places = {"store": folder / "store", "rows": folder / "rows", "reports": folder / "reports"}
    result = run_suite(
        load_suite(str(folder / "storage.toml")), Options(jobs=0, device="cpu", **places), lambda event: None
    )
    assert not result.failures
    assert not (made_nothing and result.outcome.made)
    return result.plan


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, go(folder)


@pytest.fixture
def copy(finished: tuple[Path, Plan], tmp_path: Path) -> Path:
    shutil.copytree(finished[0], tmp_path / "copy")
    return tmp_path / "copy"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_bundle_reproduces_the_report_without_training(finished: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = finished
    store, bundle, elsewhere = Store(folder / "store"), tmp_path / "bundle.zip", tmp_path / "elsewhere"
    count = export_suite(plan, store, folder / "rows", bundle)
    suite, new, rows = import_bundle(bundle, Store(elsewhere / "store"), elsewhere / "rows")
    assert (suite, new) == ("storage", count)
    render(rows, elsewhere / "reports" / "storage")
    assert files(elsewhere / "reports") == files(folder / "reports")
    # The predictions are there too: analysed again, they give the same rows, and nothing is trained.
    assert not list((elsewhere / "store").glob("member/*/*.safetensors"))
    before = files(rows)
    go(elsewhere, made_nothing=True)
    after = files(rows)
    assert {n: c for n, c in after.items() if n != "meta.json"} == {n: c for n, c in before.items() if n != "meta.json"}


def test_a_bundle_with_weights_can_be_built_upon(finished: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = finished
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "all.zip", weights=True)
    import_bundle(tmp_path / "all.zip", Store(tmp_path / "x" / "store"), tmp_path / "x" / "rows")
    more = SUITE + '[[methods]]\nuse = "ts"\nsizes = [1]\n'
    (tmp_path / "x" / "storage.toml").write_text(more)
    result = run_suite(
        load_suite(str(tmp_path / "x" / "storage.toml")),
        Options(store=tmp_path / "x" / "store", rows=tmp_path / "r", reports=tmp_path / "p", jobs=0, device="cpu"),
        lambda event: None,
    )
    assert {node.kind for node in result.outcome.made} <= {"part", "predictions", "cost"}


def test_importing_twice_adds_nothing(finished: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = finished
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "b.zip")
    assert import_bundle(tmp_path / "b.zip", Store(tmp_path / "store"), tmp_path / "rows")[1] > 0
    assert import_bundle(tmp_path / "b.zip", Store(tmp_path / "store"), tmp_path / "rows")[1] == 0


def test_an_export_does_not_write_through_links(finished: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = finished
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".b.zip.tmp").symlink_to(tmp_path / "victim")
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "b.zip")
    assert zipfile.is_zipfile(tmp_path / "b.zip")
    assert (tmp_path / "victim").read_text() == "mine"


def altered(manifest: dict[str, object], contents: dict[str, bytes]) -> None:
    name = next(name for name in contents if name.endswith(".safetensors"))
    contents[name] = contents[name][:-1] + bytes([contents[name][-1] ^ 1])


def outside(manifest: dict[str, object], contents: dict[str, bytes]) -> None:
    import hashlib

    contents["../evil.json"] = b"{}"
    manifest["sha256"]["../evil.json"] = hashlib.sha256(b"{}").hexdigest()  # type: ignore[index]


def from_the_future(manifest: dict[str, object], contents: dict[str, bytes]) -> None:
    manifest["format"] = 99


def incomplete(manifest: dict[str, object], contents: dict[str, bytes]) -> None:
    del contents["rows/meta.json"], manifest["sha256"]["rows/meta.json"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("damage", [altered, outside, from_the_future, incomplete])
def test_a_bad_bundle_changes_nothing(finished: tuple[Path, Plan], tmp_path: Path, damage: object) -> None:
    folder, plan = finished
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "good.zip")
    with zipfile.ZipFile(tmp_path / "good.zip") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents.pop("manifest.json"))
    damage(manifest, contents)  # type: ignore[operator]
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps(manifest))
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(ArtefactError, match=r"bad\.zip"):
        import_bundle(tmp_path / "bad.zip", Store(tmp_path / "in" / "store"), tmp_path / "in" / "rows")
    assert not list(tmp_path.rglob("evil.json"))
    assert not (tmp_path / "in").exists()


def test_what_is_no_bundle_is_one_sentence(finished: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = finished
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(ArtefactError, match="damaged or no bundle"):
        import_bundle(tmp_path / "text.zip", Store(tmp_path / "store"))
    with pytest.raises(SpecError, match="no file"):
        import_bundle(tmp_path / "absent.zip", Store(tmp_path / "store"))
    with pytest.raises(SpecError, match=r"ends in \.zip"):
        export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "bundle")
    with pytest.raises(SpecError, match="dbn-bench run storage"):
        export_suite(plan, Store(folder / "store"), tmp_path / "nowhere", tmp_path / "b.zip")


def test_gc_removes_litter_and_leaves_what_is_needed(copy: Path) -> None:
    store = Store(copy / "store")
    before = set(store.artefacts())
    base = store.root / "member" / "ab"
    base.mkdir(parents=True, exist_ok=True)
    litter = [
        base / ".abcd.safetensors.x1.tmp",
        base / ("ab" + "0" * 38 + ".json.damaged"),
        base / ("ab" + "1" * 38 + ".safetensors"),
    ]
    key = next(store.artefacts("member"))[1]
    (store.root / "checkpoints").mkdir(exist_ok=True)
    unfinished = store.root / "checkpoints" / ("cd" + "0" * 38 + ".train.safetensors")
    for path in [*litter, store.checkpoint_path(key).with_suffix(".train.safetensors"), unfinished]:
        path.write_bytes(b"x")
    remove(collect(store))
    assert not any(path.exists() for path in litter)
    assert [path.name for path in (store.root / "checkpoints").glob("*")] == [unfinished.name]
    assert set(store.artefacts()) == before
    go(copy, made_nothing=True)


def test_gc_keeps_what_the_kept_suites_need(copy: Path) -> None:
    store = Store(copy / "store")
    without = SUITE.replace('[[methods]]\nuse = "ed"\nsizes = [2]\n', "")
    (copy / "kept.toml").write_text(without)
    plan = plan_suite(load_suite(str(copy / "kept.toml")), store)
    remove(collect(store, [plan]))
    kinds = [kind for kind, _ in store.artefacts()]
    assert "part" not in kinds
    assert kinds.count("member") == 2
    go(copy, without, made_nothing=True)


def test_gc_leaves_alone_what_a_live_run_is_making(copy: Path) -> None:
    store = Store(copy / "store")
    key = "ef" + "0" * 38
    temporary = store.root / "member" / "ef" / f".{key}.safetensors.y2.tmp"
    temporary.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_bytes(b"half")
    with store.locked(key) as mine:
        assert mine
        remove(collect(Store(store.root)))
        assert temporary.exists()
    remove(collect(store))
    assert not temporary.exists()


def test_verify_counts_and_names(copy: Path) -> None:
    store = Store(copy / "store")
    assert verify_store(store)["member"] == 2
    kind, key = next(store.artefacts("part"))
    path = store.tensors_path(kind, key)
    path.write_bytes(path.read_bytes()[:-3])
    assert verify_store(store)["part"] == 0
    assert store.damaged[0].startswith(f"Artefact part/{key} is damaged")
