"""Looking after the store: what gc removes, and that a bundle reproduces a report elsewhere."""

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
from benchmarks.report.load import load_results
from benchmarks.results.external.cells import Entry, StatedCost, add_external
from benchmarks.run import plan_suite, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.store.bundle import export_suite, import_bundle
from benchmarks.store.storage import cleaning, collect, remove, verify_store
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import Plan
from benchmarks.work.make import Options
from dbn_core.errors import ArtefactError, SpecError, StoreError
from dbn_core.files import atomic_write
from tests.support import tiny

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


def command(*words: object, answer: str = "") -> Result:
    return CliRunner().invoke(application("store"), ["store", *map(str, words)], input=answer)


def gc(store: Path, *words: object, answer: str = "") -> Result:
    return command("gc", "--store", store, *words, answer=answer)


def yesterday(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (path.stat().st_mtime - 90_000,) * 2)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_bundle_reproduces_the_report_without_training(finished: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = finished
    store, bundle, elsewhere = Store(folder / "store"), tmp_path / "bundle.zip", tmp_path / "elsewhere"
    count = export_suite(plan, store, folder / "rows", bundle)
    suite, new, rows = import_bundle(bundle, Store(elsewhere / "store"), elsewhere / "rows")
    assert (suite, new) == ("storage", count)
    assert import_bundle(bundle, Store(elsewhere / "store"), elsewhere / "rows")[1] == 0  # nothing is new
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


def test_a_bundle_carries_predictions_that_were_made_elsewhere(copy: Path, tmp_path: Path) -> None:
    store, elsewhere = Store(copy / "store"), Store(tmp_path / "elsewhere")
    plan = plan_suite(load_suite(str(copy / "storage.toml")), store)
    cell = next(cell for cell in plan.cells if cell.size == 1)
    arrays = store.arrays("predictions", cell.predictions)
    given = {name: array[:1] if array.ndim == 3 else array for name, array in arrays.items()}
    add_external(plan, store, Entry("Mine", 1, 0, StatedCost(macs=7)), given)
    export_suite(plan, store, copy / "rows", tmp_path / "b.zip")
    lines: list[str] = []
    import_bundle(tmp_path / "b.zip", elsewhere, tmp_path / "rows", report=lines.append)
    assert "1 external 'Mine' of 'storage', data 'Handwritten digits (8x8)'" in lines
    ((_, key),) = elsewhere.own("external")
    assert elsewhere.value("external", key) == store.value("external", key)


def test_an_export_does_not_write_through_links(finished: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = finished
    (tmp_path / "victim").write_text("mine")
    (tmp_path / ".b.zip.tmp").symlink_to(tmp_path / "victim")
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "b.zip")
    assert zipfile.is_zipfile(tmp_path / "b.zip")
    assert (tmp_path / "victim").read_text() == "mine"


def zipped(file: Path, contents: dict[str, bytes], suite: str = "storage") -> Path:
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


def test_importing_says_what_comes_and_replaces_rows_when_asked(finished: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = finished
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "b.zip")
    mine = tmp_path / "rows"
    shutil.copytree(folder / "rows", mine)
    (mine / "records.csv").write_text("my records")
    before = files(mine)
    words = ("import", tmp_path / "b.zip", "--store", tmp_path / "store", "--rows", mine)
    refused = command(*words)
    assert "holds other result rows" in str(refused.exception)
    assert "--replace-rows" in str(refused.exception)
    assert files(mine) == before
    assert not (tmp_path / "store").exists()
    said = command(*words, "--replace-rows")
    assert said.exit_code == 0
    assert "rows of the suite storage" in said.output
    assert "2 predictions, data 'Handwritten digits" in said.output
    assert not (mine / "records.csv").exists()
    assert command(*words).exit_code == 0  # they are the same rows


def test_a_bundle_whose_artefacts_are_not_of_their_keys_is_refused(finished: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = finished
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "good.zip")
    good, key = contents_of(tmp_path / "good.zip"), "cd" * 20
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


def test_a_bundle_is_measured_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, number and sizes are checked from the table of contents alone."""
    large = {"rows/rows.csv": bytes(2**26)}
    strange = {"anything/you like": b""}
    packed = {f"store/member/ab/ab{'0' * 38}.safetensors": bytes(2**20)}
    opened: list[object] = []
    monkeypatch.setattr("benchmarks.store.bundle._LIMIT", 2**25, raising=False)
    for contents, sentence in ((large, "unpacks to more than 32 MiB"), (strange, "damaged"), (packed, "damaged")):
        with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in {"manifest.json": b"{}", **contents}.items():
                archive.writestr(name, content)
        with monkeypatch.context() as patch:
            patch.setattr(zipfile.ZipFile, "open", lambda *args, **options: opened.append(args))
            with pytest.raises(ArtefactError, match=sentence):
                import_bundle(tmp_path / "bomb.zip", Store(tmp_path / "store"), tmp_path / "rows")
    assert not opened


def test_gc_waits_for_an_import(finished: tuple[Path, Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tensors and their description there is nothing yet that names them."""
    folder, plan = finished
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "b.zip", weights=True)
    store = Store(tmp_path / "store")
    refusals = []

    def write_slowly(path: Path, content: bytes) -> None:
        atomic_write(path, content)
        yesterday(path)  # unpacked with its time
        refusals.append(gc(store.root, "--yes"))

    monkeypatch.setattr("benchmarks.store.bundle.atomic_write", write_slowly)
    import_bundle(tmp_path / "b.zip", store, tmp_path / "rows")
    assert refusals
    assert all("is in use" in str(refused.exception) for refused in refusals)
    assert files(store.root / "predictions") == files(folder / "store" / "predictions")
    assert files(store.root / "member") == files(folder / "store" / "member")
    verify_store(store)
    assert not store.damaged


def test_an_import_does_not_mix_with_a_run(finished: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = finished
    export_suite(plan, Store(folder / "store"), folder / "rows", tmp_path / "b.zip")
    store, node = Store(tmp_path / "store"), next(n for n in plan.nodes.values() if n.kind == "predictions")
    with store.locked(node.key), pytest.raises(StoreError, match=f"A run makes the artefact predictions/{node.key}"):
        import_bundle(tmp_path / "b.zip", store, tmp_path / "rows")
    assert not (tmp_path / "rows").exists()
    import_bundle(tmp_path / "b.zip", store, tmp_path / "rows")


KILLED = """
import os, signal, sys
from pathlib import Path
import dbn_core.files
from benchmarks.store.artefacts import Store
from benchmarks.store.bundle import import_bundle
from benchmarks.store.rows import write_rows
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


@pytest.mark.parametrize("after", [1, 3, 5])
def test_an_import_that_is_killed_leaves_no_mixture(finished: tuple[Path, Plan], tmp_path: Path, after: int) -> None:
    folder, _ = finished
    mine = tmp_path / "rows"
    shutil.copytree(folder / "rows", mine)
    theirs = {f"rows/{name}": content.replace(b"storage", b"theirs") for name, content in files(mine).items()}
    zipped(tmp_path / "b.zip", theirs)
    words = [sys.executable, "-c", KILLED, str(tmp_path / "b.zip"), str(mine)]
    assert subprocess.run([*words, str(after)], check=False).returncode == -signal.SIGKILL
    with pytest.raises(ArtefactError, match=r"meta\.json is missing"):
        load_results(mine)
    assert subprocess.run([*words, "99"], check=False).returncode == 0
    load_results(mine)
    assert {f"rows/{name}": content for name, content in files(mine).items() if ".tmp" not in name} == theirs


def altered(manifest: dict[str, object], contents: dict[str, bytes]) -> None:
    name = next(name for name in contents if name.endswith(".safetensors"))
    contents[name] = contents[name][:-1] + bytes([contents[name][-1] ^ 1])


def outside(manifest: dict[str, object], contents: dict[str, bytes]) -> None:
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


# ------------------------------------------------------------------------------------------------------------ cleaning


def test_gc_removes_litter_and_leaves_what_is_needed(copy: Path) -> None:
    store = Store(copy / "store")
    before = set(store.artefacts())
    base = store.root / "member" / "ab"
    base.mkdir(parents=True, exist_ok=True)
    litter = [
        base / (".ab" + "2" * 38 + ".safetensors.x1.tmp"),
        base / ("ab" + "0" * 38 + ".json.damaged"),
        base / ("ab" + "1" * 38 + ".safetensors"),
    ]
    key = next(store.artefacts("member"))[1]
    (store.root / "checkpoints").mkdir(exist_ok=True)
    unfinished = store.root / "checkpoints" / ("cd" + "0" * 38 + ".train.safetensors")
    for path in [*litter, store.checkpoint_path(key).with_suffix(".train.safetensors"), unfinished]:
        path.write_bytes(b"x")
    yesterday(*litter)
    with cleaning(store):
        remove(collect(store))
    assert not any(path.exists() for path in litter)
    assert [path.name for path in (store.root / "checkpoints").glob("*")] == [unfinished.name]
    assert not list((store.root / "runs").glob("*"))
    assert set(store.artefacts()) == before
    go(copy, made_nothing=True)


def test_gc_spares_young_files_that_no_description_names(copy: Path) -> None:
    store = Store(copy / "store")
    key = "ab" + "1" * 38
    tensors = store.tensors_path("member", key)
    young = [tensors, tensors.with_name(f".{key}.json.x1.tmp")]
    tensors.parent.mkdir(parents=True, exist_ok=True)
    for path in young:
        path.write_bytes(b"x")
    remove(collect(store, []))
    assert all(path.exists() for path in young)
    yesterday(*young)
    remove(collect(store, []))
    assert not any(path.exists() for path in young)


FOREIGN = [
    *("runs/events.out.tfevents", "runs/exp1/model.json", "checkpoints/best.pt", "locks/door.lock", "models/x.damaged"),
    *(
        ".report.docx.tmp",
        "member/ab/notes.json.damaged",
        "runs/.x.tmp",
        "running/list.json",
        "member/ab/x.safetensors",
    ),
]


def test_gc_leaves_alone_what_is_not_of_a_store(tmp_path: Path) -> None:
    for name in FOREIGN:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
        yesterday(tmp_path / name)
    before = files(tmp_path)
    refused = gc(tmp_path, "--yes")
    assert isinstance(refused.exception, StoreError)
    assert "no file .dbn-store" in str(refused.exception)
    assert files(tmp_path) == before
    with Store(tmp_path).in_use():  # somebody used it as a store nonetheless
        pass
    assert gc(tmp_path, "--yes").exit_code == 0
    assert {name: content for name, content in files(tmp_path).items() if name in before} == before


def test_gc_keeps_what_the_kept_suites_need(copy: Path) -> None:
    store = Store(copy / "store")
    without = SUITE.replace('[[methods]]\nuse = "ed"\nsizes = [2]\n', "")
    (copy / "kept.toml").write_text(without)
    plan = plan_suite(load_suite(str(copy / "kept.toml")), store)
    remove(collect(store, (each for each in [plan])))  # a generator is read once
    kinds = [kind for kind, _ in store.artefacts()]
    assert "part" not in kinds
    assert kinds.count("member") == 2
    go(copy, without, made_nothing=True)


def test_gc_says_what_goes_and_asks(copy: Path) -> None:
    (copy / "kept.toml").write_text(tiny.HEAD + tiny.DE)
    store = Store(copy / "store")
    titles = [store.value(kind, key)["value"]["facts"]["title"] for kind, key in store.own("data")]
    before = files(copy / "store")
    artefacts = {name: content for name, content in before.items() if name.count("/") == 2}
    for words, answer in ((["--dry-run"], ""), ([], "n\n"), ([], "")):
        said = gc(copy / "store", "--keep", copy / "kept.toml", *words, answer=answer)
        assert "ED: student" in said.output
        assert str(titles[0]) in said.output
        assert (said.exit_code == 0) == bool(words)
        assert {name: content for name, content in files(copy / "store").items() if name in artefacts} == artefacts
    assert gc(copy / "store", "--keep", copy / "kept.toml", answer="y\n").exit_code == 0
    assert not list(Store(copy / "store").own("part"))
    assert len(list(Store(copy / "store").own("member"))) == 2


def plan_in(folder: Path, text: str, overrides: dict[str, object] | None = None, bf16: bool = False) -> Plan:
    (folder / "storage.toml").write_text(text)
    return plan_suite(load_suite(str(folder / "storage.toml"), overrides, bf16), Store(folder / "store"))


def test_gc_keeps_both_precisions_and_what_options_added(tmp_path: Path) -> None:
    """Artefacts of another processor, of --set and of --add, as a plan names them."""
    store = Store(tmp_path / "store")
    auto = SUITE.replace("crop_pad = 0", 'crop_pad = 0\nprecision = "auto"')
    suite = tmp_path / "storage.toml"
    with store.in_use():
        for bf16 in (True, False):
            for node in plan_in(tmp_path, auto, {"repetitions": 2}, bf16).nodes.values():
                store.put(node.kind, node.key, {"recipe": node.recipe, "title": node.title})
    made = set(store.own())
    assert gc(store.root, "--keep", suite, "--set", "repetitions=2", "--yes").exit_code == 0
    assert set(store.own()) == made
    plan_in(tmp_path, tiny.HEAD.replace("crop_pad = 0", 'crop_pad = 0\nprecision = "auto"') + tiny.DE)
    words = ("--keep", suite, "--set", "repetitions=2", "--add", "ed@2", "--yes")
    assert gc(store.root, *words).exit_code == 0
    assert set(store.own()) == made
    assert gc(store.root, *words[:-2], words[-1]).exit_code == 1, "--add without its value was to be refused"
    assert gc(store.root, *words[:2], "--yes").exit_code == 0
    assert {kind for kind, _ in made - set(store.own())} >= {"part", "member"}


def test_gc_refuses_while_anybody_works_on_the_store(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(copy / "store")
    before = files(store.root)
    for work in (store.in_use(), store.locked("ef" + "0" * 38)):
        with work:
            refused = gc(store.root, "--yes")
            assert "is in use: try again" in str(refused.exception)
    assert files(store.root).items() >= before.items()
    monkeypatch.setattr("benchmarks.store.artefacts.CLEANING_WAIT_S", 0.0)
    with cleaning(store), pytest.raises(StoreError, match="`dbn-bench store gc` is at work"), store.in_use():
        pass
    assert gc(store.root, "--yes").exit_code == 0


def test_a_run_that_was_killed_does_not_keep_gc_out(copy: Path) -> None:
    store = Store(copy / "store")
    code = "import os, sys; from benchmarks.store.artefacts import Store\nwith Store(sys.argv[1]).in_use(): os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(store.root)], check=False)
    assert [held for name, held in store.locks().items() if name.startswith("use-")] == [False]
    assert gc(store.root, "--yes").exit_code == 0
    assert not list((store.root / "locks").glob("use-*"))


def test_a_lock_has_one_holder_though_gc_looked_before(tmp_path: Path) -> None:
    store, key = Store(tmp_path), "ab" * 20
    with store.in_use(), store.locked(key):
        pass
    litter = collect(store)  # nobody holds it now
    with store.locked(key) as first:
        remove(litter)
        with Store(tmp_path).locked(key) as second:
            assert (first, second) == (True, False)


def test_verify_counts_and_names(copy: Path) -> None:
    store = Store(copy / "store")
    assert verify_store(store)["member"] == 2
    kind, key = next(store.artefacts("part"))
    path = store.tensors_path(kind, key)
    path.write_bytes(path.read_bytes()[:-3])
    assert verify_store(store)["part"] == 0
    assert store.damaged[0].startswith(f"Artefact part/{key} is damaged")


def test_verify_names_predictions_without_tensors(copy: Path) -> None:
    store = Store(copy / "store")
    kind, key = next(store.own("predictions"))
    store.tensors_path(kind, key).unlink()
    store.tensors_path(*next(store.own("member"))).unlink()  # a bundle without weights is no damage
    counts = verify_store(store)
    assert store.damaged == [f"The tensors of artefact predictions/{key} are missing: run the suite again."]
    assert (counts["member"], counts["member (described only)"]) == (1, 1)
