"""Released results: a fresh clone goes on from them, they are exact, and damage is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as float_arrays

from benchmarks.export.folder import predictor_payload
from benchmarks.run import RunResult, plan_suite, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.store.release import release_suite
from benchmarks.store.released import Released, in_pieces, piece, released_root, released_suites
from benchmarks.store.storage import collect, remove, verify_store
from benchmarks.suite.load import load_suite, with_methods
from benchmarks.suite.plan import DataFacts, Plan, build_plan
from benchmarks.work import timing
from benchmarks.work.make import Options
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.errors import SpecError, StoreError
from dbn_core.methods.evaluation import predict_split
from dbn_core.tasks.class_scores import score_arrays
from dbn_core.tensors import in_bf16, in_fp16, pack
from tests.support import tiny
from tests.support.command import DbnBench

ROOT = Path(__file__).resolve().parents[3]
COMPACT = tiny.HEAD.replace("[data]", 'predictions = "fp16"\n[data]', 1).replace(
    "[pool]", '[pool]\nweights = "bf16"', 1
)
SUITE = COMPACT + tiny.DE + tiny.ED


def go(folder: Path, released: Path | None = None, add: tuple[str, ...] = ()) -> RunResult:
    """Run the suite in a folder."""
    return tiny.run(folder, SUITE, add, released=released)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A store in which the suite was made, and ``released`` beside it."""
    folder = tmp_path_factory.mktemp("home")
    plan = go(folder).plan
    release_suite(plan, Store(folder / "store"), folder / "released" / "tiny", parts=0)
    return folder, plan


@pytest.fixture
def clone(home: tuple[Path, Plan], tmp_path: Path) -> Path:
    """What a fresh clone has: the released folder."""
    shutil.copytree(home[0] / "released", tmp_path / "clone" / "released")
    return tmp_path / "clone"


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------------------------------- keys

FACTS = DataFacts(
    "data", "Data", 3, (32, 32), tuple("abcdefghij"), {"train": 100, "validation": 100, "test": 100}, "unseen"
)


def test_rounding_is_part_of_the_keys_of_what_it_changes() -> None:
    def keys(**changes: str) -> dict[str, set[str]]:
        plan = build_plan(load_suite("smoke", changes), FACTS)
        return {kind: {n.key for n in plan.nodes.values() if n.kind == kind} for kind in ("member", "predictions")}

    plain = keys()
    assert keys(**{"pool.weights": "fp32", "predictions": "fp32"}) == plain
    rounded = keys(predictions="fp16")
    assert rounded["member"] == plain["member"]
    assert not rounded["predictions"] & plain["predictions"]
    rounded = keys(**{"pool.weights": "bf16"})
    assert not rounded["member"] & plain["member"]
    assert not rounded["predictions"] & plain["predictions"]


# --------------------------------------------------------------------------------------------------------- rounding


def test_kernels_are_rounded_and_what_holds_a_number_a_channel_is_not() -> None:
    state = {
        "conv": torch.randn(8, 4, 3, 3),
        "bias": torch.randn(8),
        "frn": torch.randn(8, 1, 1),
        "count": torch.tensor(3),
    }
    rounded = in_bf16(state)
    assert rounded["conv"].dtype == torch.bfloat16
    assert all(torch.equal(rounded[name], state[name]) for name in ("bias", "frn", "count"))
    gap = (rounded["conv"].float() - state["conv"]).abs() / state["conv"].abs()
    assert 0 < gap.max() <= 2**-8


@settings(max_examples=60, deadline=None)
@given(
    float_arrays(np.float32, (2, 12, 4), elements=st.floats(-60, 60, width=32)),
    float_arrays(np.int64, 12, elements=st.integers(0, 3)),
)
def test_rounded_predictions_score_alike(logits: np.ndarray, labels: np.ndarray) -> None:
    exact = torch.from_numpy(logits).log_softmax(-1)
    (before, after) = (
        score_arrays({"test": terms.numpy(), "test_labels": labels}) for terms in (exact, in_fp16(exact))
    )
    # A log-probability moves by 2^-11 of itself at most, those of the terms and the sum over classes alike.
    nll, most = before.examples["nll"], np.abs(exact.numpy()).max((0, 2))
    assert (np.abs(after.examples["nll"] - nll) <= 2**-11 * (1.001 * most + 1.4) + 1e-6).all()
    confidence = np.exp(before.log_probs)
    assert np.abs(np.exp(after.log_probs) - confidence).max() < 2**-9


def test_what_no_half_precision_number_holds_stays_finite() -> None:
    assert in_fp16(torch.tensor([-1e5, -torch.inf, 0.0, -1e-9])).tolist() == [-65504, -torch.inf, 0, 0]


# ------------------------------------------------------------------------------------------------------ a fresh clone


def test_a_fresh_clone_gives_the_same_rows_and_trains_nothing(
    home: tuple[Path, Plan], clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Timings that cannot be repeated without the trained parts are those that were released, whatever the machine.
    monkeypatch.setattr("benchmarks.work.timing.hardware", lambda: {"processor": "another"})
    before = files(clone / "released")
    result = go(clone, clone / "released")
    assert not result.outcome.made
    for name in ("rows.csv", "summary.csv", "comparisons.csv", "reliability.csv"):
        assert (clone / "rows" / name).read_bytes() == (home[0] / "rows" / name).read_bytes()
    assert "released, 8 of 8 artefacts" in (clone / "rows" / "meta.json").read_text()
    assert not list(Store(clone / "store").own())
    assert files(clone / "released") == before


def test_a_method_joins_the_released_pool(home: tuple[Path, Plan], clone: Path) -> None:
    before = files(clone / "released")
    result = go(clone, clone / "released", ("ed[lr_scale=0.5]@2",))
    assert {node.payload["spec"] for node in result.outcome.made} == {"ed[lr_scale=0.5]"}
    assert sorted(node.kind for node in result.outcome.made) == ["cost", "part", "predictions"]
    summary = (clone / "rows" / "summary.csv").read_text()
    assert "ED[lr_scale=0.5]" in summary
    assert all(row.split(",")[1] in summary for row in (home[0] / "rows" / "summary.csv").read_text().splitlines())
    # A store that keeps only what another suite needs loses its own artefacts, and nothing of what is released.
    store = Store(clone / "store", released_suites(clone / "released"))
    remove(collect(store, []))
    assert not list(store.own("part"))
    assert files(clone / "released") == before


def test_a_released_student_predicts_in_a_clone_what_it_predicted_at_home(
    home: tuple[Path, Plan], tmp_path: Path
) -> None:
    folder, plan = home
    done = release_suite(plan, Store(folder / "store"), tmp_path / "released" / "tiny")
    assert done.counts["part"] == (1, 1, 1)
    assert sum(name.startswith("part-") for name in done.files) == 1
    store = Store(tmp_path / "store", released_suites(tmp_path / "released"))
    cell = next(cell for cell in plan.cells if cell.method.name == "ed")
    bench = ArtefactBuilder(plan.suite, store, "cpu")
    again = predict_split(bench.predictor(predictor_payload(plan, store, cell)), bench.data.test, bench.device)
    known = store.arrays("predictions", cell.predictions)["test"]
    assert np.array_equal(in_fp16(again.log_softmax(-1)).numpy(), known)
    assert not go(tmp_path, tmp_path / "released").outcome.made  # and its timing is the released one


def timed(folder: Path) -> pd.Series:
    """Median times by label and size."""
    return pd.read_csv(folder / "rows" / "summary.csv").set_index(["label", "size"]).latency_b1_p50_ms


def timing_meta(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "rows" / "meta.json").read_text())["latency"]
    return found


def test_released_timings_stay_and_what_joins_is_timed_next_to_one_network(
    home: tuple[Path, Plan], clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "hardware", lambda: {"processor": "Another"})
    added = ("ed[lr_scale=0.5]@2",)
    done = go(clone, clone / "released", added)
    known, found = timed(home[0]), timed(clone)
    pd.testing.assert_series_equal(found[known.index], known)
    assert found["ED[lr_scale=0.5]", 2] > 0
    (other,) = timing_meta(clone)["other_machines"]
    assert other["results"] == ["ED[lr_scale=0.5]@2"]
    assert other["hardware"] == {"processor": "Another"} != timing_meta(clone)["hardware"]
    store = Store(clone / "store", released_suites(clone / "released"))
    release_suite(done.plan, store, clone / "again" / "tiny", parts=0)
    go(clone / "next", clone / "again", added)  # nothing is left to be timed
    pd.testing.assert_series_equal(timed(clone / "next"), found)


def test_what_can_be_timed_again_replaces_released_timings(
    home: tuple[Path, Plan], clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "hardware", lambda: {"processor": "Another"})
    done = tiny.run(clone, SUITE, released=clone / "released", time_again=True)
    assert timing_meta(clone)["hardware"] == {"processor": "Another"}
    (other,) = timing_meta(clone)["other_machines"]
    assert other["results"] == ["ED@2"]  # its weights are not released
    known, found = timed(home[0]), timed(clone)
    assert found["ED", 2] == known["ED", 2]
    assert found["DE", 2] != known["DE", 2]
    go(clone, clone / "released")
    pd.testing.assert_series_equal(timed(clone), found)  # until the next --time-again
    store = Store(clone / "store", released_suites(clone / "released"))
    release_suite(done.plan, store, clone / "again" / "tiny", parts=0)
    go(clone / "next", clone / "again")
    pd.testing.assert_series_equal(timed(clone / "next"), found)
    tiny.run(clone, SUITE, released=clone / "released", time_again=True)
    assert len(list(store.own("latency"))) == 1  # the older one is of no use


def test_what_is_added_changes_nothing_else() -> None:
    suite = load_suite("smoke")
    more = with_methods(suite, ["ed[lr_scale=0.5]@2", "ed[lr_scale=0.5]@3", "de@2", "ts@1"])
    labels = [label for _, _, label in suite.entries()]
    assert [label for _, _, label in more.entries()] == [*labels, "ED[lr_scale=0.5]", "Single (temperature-scaled)"]
    assert more.methods[-2].sizes == (2, 3)
    assert set(build_plan(suite, FACTS).nodes) < set(build_plan(more, FACTS).nodes)
    for words in ("ed", "ed@", "ed@x", "@3", "ed@0"):
        with pytest.raises(SpecError, match="METHOD@SIZE"):
            with_methods(suite, [words])
    with pytest.raises(SpecError, match="did you mean"):
        with_methods(suite, ["enn2@3"])


def test_released_weights_give_the_released_predictions_on_any_processor(clone: Path, home: tuple[Path, Plan]) -> None:
    # Another processor rounds sums of products otherwise: what double precision gives lies as near as float32 allows.
    plan, store = home[1], Store(clone / "store", released_suites(clone / "released"))
    bench = ArtefactBuilder(plan.suite, store, "cpu")
    for cell in plan.cells:
        if cell.method.name == "de":
            released = store.arrays("predictions", cell.predictions)["test"][: cell.terms].astype(np.float64)
            payload = plan.nodes[cell.cost].payload
            network = bench.predictor(payload).double()
            again = predict_split(lambda images, n=network: n(images.double()), bench.data.test, bench.device).numpy()
            assert released.shape == again.shape
            assert (np.abs(released - again) <= 2**-11 * np.abs(again) + 1e-4).all()


def test_a_release_is_the_same_bytes_wherever_it_is_made(home: tuple[Path, Plan], clone: Path, tmp_path: Path) -> None:
    folder, plan = home
    release_suite(plan, Store(folder / "store"), tmp_path / "again", parts=0)
    assert files(tmp_path / "again") == files(folder / "released" / "tiny")
    through = Store(clone / "store", released_suites(clone / "released"))
    done = release_suite(plan, through, clone / "released" / "tiny")  # over what it reads
    assert files(clone / "released" / "tiny") == files(folder / "released" / "tiny")
    assert done.counts["member"] == (2, 2, 2)
    assert done.counts["part"] == (1, 0, 1)


@pytest.mark.parametrize("folder", sorted((ROOT / "results" / "released").glob("*/")), ids=lambda path: path.name)
def test_what_is_committed_is_whole_and_gives_the_committed_rows(folder: Path, tmp_path: Path) -> None:
    assert Released(folder).damage() == []
    options = Options(tmp_path / "store", tmp_path / "rows", tmp_path / "reports", jobs=0, released=folder.parent)
    result = run_suite(load_suite(folder.name), options, lambda event: None)
    assert not result.outcome.made
    assert not result.failures
    for name in ("rows", "comparisons"):
        committed = ROOT / "results" / "reference" / folder.name / f"{name}.csv"
        made, known = (pd.read_csv(path) for path in (tmp_path / "rows" / f"{name}.csv", committed))
        pd.testing.assert_frame_equal(made, known, rtol=1e-5, atol=1e-9)


def test_what_predictions_share_is_released_once() -> None:
    draw = torch.Generator().manual_seed(0)
    terms = torch.randn(3, 500, 10, generator=draw).half()
    labels = torch.arange(500)
    alone, together, other = (
        pack({"test": picked, "test_labels": labels}) for picked in (terms[:1], terms, terms.flip(0))
    )
    files = [
        in_pieces("predictions", key, content) for key, content in zip("abc", (alone, together, other), strict=True)
    ]
    for key, content, its in zip("abc", (alone, together, other), files, strict=True):
        names = its[f"predictions/{key}/{key}.pieces"].decode().split()
        assert b"".join(its[piece(name)] for name in names) == content
    held = {name: content for its in files for name, content in its.items() if name.startswith("pieces/")}
    assert terms.nbytes + labels.nbytes <= sum(map(len, held.values())) < terms.nbytes + labels.nbytes + 1000


def test_half_a_pool_is_released_and_the_rest_later(home: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = home
    half = tmp_path / "half"
    first, second = (node for node in plan.nodes.values() if node.kind == "member")
    for path in (Store.sidecar_path, Store.tensors_path):
        there = path(Store(half), "member", first.key)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path(Store(folder / "store"), "member", first.key), there)
    done = release_suite(plan, Store(half), tmp_path / "released" / "tiny")
    assert done.counts["member"] == (1, 1, 2)
    store = Store(tmp_path / "none", released_suites(tmp_path / "released"))
    assert store.intact("member", first.key)
    assert not store.has("member", second.key)
    done = release_suite(plan, Store(folder / "store"), tmp_path / "released" / "tiny", parts=0)
    assert done.counts["member"] == (2, 2, 2)
    assert files(tmp_path / "released") == files(folder / "released")
    release_suite(plan, Store(folder / "store"), tmp_path / "released" / "tiny", pools=0, parts=0)
    predictions = ["predictions-de.zip", "predictions-ed.zip"]
    assert sorted(files(tmp_path / "released" / "tiny")) == ["manifest.json", *predictions, "results.zip"]
    with pytest.raises(SpecError, match="dbn-bench run tiny"):
        release_suite(plan, Store(tmp_path / "none"), tmp_path / "empty")


def test_weights_of_a_method_can_stay_at_home(home: tuple[Path, Plan], tmp_path: Path) -> None:
    folder, plan = home
    store, released = Store(folder / "store"), tmp_path / "released"
    done = release_suite(plan, store, released, without_weights=["ED"])
    assert done.counts["part"] == (1, 0, 1)
    assert files(released) == files(folder / "released" / "tiny")
    with pytest.raises(SpecError, match=r"--without-weights EDX: the suite has no such method .did you mean 'ED'"):
        release_suite(plan, store, released, without_weights=["EDX"])


# ------------------------------------------------------------------------------------------------------------ damage


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def newer(path: Path) -> None:
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))


@pytest.mark.parametrize("name", ["manifest.json", "results.zip", "predictions-ed.zip", "pool-01.zip"])
@pytest.mark.parametrize(
    "damage",
    [flipped, lambda path: path.write_bytes(path.read_bytes()[:-40]), Path.unlink],
    ids=["flipped", "truncated", "missing"],
)
def test_damage_is_named_and_left_to_git(clone: Path, name: str, damage: Callable[[Path], None]) -> None:
    root, path = clone / "released", clone / "released" / "tiny" / name
    damage(path)
    before = files(root)
    store = Store(clone / "store", released_suites(root))
    verify_store(store)
    (sentence,) = store.damaged
    assert f"git checkout -- {path}" in sentence
    if damage is not flipped or name == "manifest.json":  # else the byte may belong to an artefact that is not read
        with pytest.raises(StoreError, match=str(path)):
            [store.content(*each) for each in store.artefacts() if store.has(*each)]
    assert files(root) == before  # nothing is set aside


def test_another_artefact_than_the_manifest_says_is_damage(clone: Path) -> None:
    layer = Released(clone / "released" / "tiny")
    a, b = (key for kind, key in layer.artefacts("member"))
    for file in (layer.folder / "pool-01.zip", layer.folder / "results.zip"):
        content = file.read_bytes()
        # Two names of the same length change places, with everything else as it was.
        content = content.replace(a.encode(), b"~" * 40).replace(b.encode(), a.encode()).replace(b"~" * 40, b.encode())
        file.write_bytes(content)
    with pytest.raises(StoreError, match="git checkout"):
        Store(clone / "store", [layer]).content("member", a)


def test_a_release_of_another_version_says_so(clone: Path) -> None:
    newer(clone / "released" / "tiny" / "manifest.json")
    with pytest.raises(StoreError, match="has format 2, this version of dbn-bench reads 1"):
        go(clone, clone / "released")


def test_what_the_store_has_itself_comes_first(home: tuple[Path, Plan], clone: Path) -> None:
    key = next(n.key for n in home[1].nodes.values() if n.kind == "cost")
    store = Store(clone / "store", released_suites(clone / "released"))
    store.put("cost", key, {"params": 1})
    assert store.value("cost", key)["value"] == {"params": 1}
    store.sidecar_path("cost", key).write_text("{}")
    assert not store.intact("cost", key)  # set aside, and the released one stands in for it
    assert store.value("cost", key)["value"]["params"] > 1
    assert store.described("cost", key)


def test_where_released_results_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert released_root() is None  # as the tests' configuration asks
    monkeypatch.setenv("DBN_RELEASED", str(tmp_path / "nowhere"))
    with pytest.raises(StoreError, match=r"no folder .* DBN_RELEASED"):
        released_suites(released_root())
    monkeypatch.delenv("DBN_RELEASED")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "released").mkdir(parents=True)
    assert released_root() == Path("results/released")
    assert released_suites(released_root()) == ()


# ------------------------------------------------------------------------------------------------------ command line


def test_the_commands_of_a_fresh_clone(
    home: tuple[Path, Plan], clone: Path, monkeypatch: pytest.MonkeyPatch, dbn_bench: DbnBench
) -> None:
    monkeypatch.chdir(clone)
    monkeypatch.setenv("DBN_RELEASED", "released")
    Path("tiny.toml").write_text(SUITE)
    plan = plan_suite(load_suite("tiny.toml"), Store("none", released_suites(Path("released"))))
    pair = next(cell for cell in plan.cells if cell.method.name == "de" and cell.size == 2)
    arrays = Store("none", released_suites(Path("released"))).arrays("predictions", pair.predictions)
    np.savez("mine.npz", predictions=arrays["test"], labels=arrays["test_labels"])
    code, out, _ = dbn_bench("score", "mine.npz", "--suite", "tiny.toml", "--json")
    assert code == 0
    result = json.loads(out)
    # The released ensemble of two itself, the last one of the curve: rounding may put it just beyond.
    own = np.logaddexp.reduce(arrays["test"].astype(np.float64)) - np.log(2)
    nll = -own[np.arange(len(own)), arrays["test_labels"]].mean()
    assert result["metrics"]["nll"]["value"] == pytest.approx(nll, abs=1e-5)
    dee = float(result["dee"]["dee_raw"]["value"])
    assert dee == pytest.approx(2, abs=1e-3) or dee == np.inf
    assert "Deep-ensemble equivalent, raw: " in dbn_bench("score", "mine.npz", "--suite", "tiny.toml").out
    assert dbn_bench("compare", "ED@2", "DE@2", "--suite", "tiny.toml").code == 0
    planned = dbn_bench("run", "tiny.toml", "--add", "ts@1", "--dry-run")
    assert "Single (temperature-scaled) 1 1 1" in " ".join(planned.out.split())
    assert "released: released/tiny" in dbn_bench("store", "verify").out
    assert dbn_bench("store", "release", "tiny.toml", "--out", "again").code == 0
    assert files(Path("again/tiny")) == files(Path("released/tiny"))
    flipped(Path("released/tiny/results.zip"))
    damaged = dbn_bench("store", "verify")
    assert (damaged.code, "git checkout -- released/tiny/results.zip" in damaged.err) == (1, True)
