"""Looking after the store: what gc removes, what it leaves, and what verify finds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from benchmarks.cli import application
from benchmarks.run import plan_suite
from benchmarks.store.artefacts import Store
from benchmarks.store.storage import cleaning, collect, remove, verify_store
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import Plan
from dbn_core.errors import StoreError
from tests.support import tiny

SUITE = tiny.HEAD + tiny.DE + tiny.ED


@pytest.fixture
def copy(tiny_run: tuple[Path, Plan], tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run[0], tmp_path / "copy")


def gc(store: Path, *words: object, answer: str = "") -> Result:
    words = ("store", "gc", "--store", store, *words)
    return CliRunner().invoke(application("store"), [*map(str, words)], input=answer)


def yesterday(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (path.stat().st_mtime - 90_000,) * 2)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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
    assert not tiny.run(copy).outcome.made


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
    without = tiny.HEAD + tiny.DE
    (copy / "kept.toml").write_text(without)
    plan = plan_suite(load_suite(str(copy / "kept.toml")), store)
    remove(collect(store, (each for each in [plan])))  # a generator is read once
    kinds = [kind for kind, _ in store.artefacts()]
    assert "part" not in kinds
    assert kinds.count("member") == 2
    assert not tiny.run(copy, without).outcome.made


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
    (folder / "tiny.toml").write_text(text)
    return plan_suite(load_suite(str(folder / "tiny.toml"), overrides, bf16), Store(folder / "store"))


def test_gc_keeps_both_precisions_and_what_options_added(tmp_path: Path) -> None:
    """Artefacts of another processor, of --set and of --add, as a plan names them."""
    store = Store(tmp_path / "store")
    auto = SUITE.replace("crop_pad = 0", 'crop_pad = 0\nprecision = "auto"')
    suite = tmp_path / "tiny.toml"
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
