"""The scheduler: what a failure takes with it, how often a node is tried, and how long scheduling itself takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path
from typing import Any

import pytest

from benchmarks.run import run_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import Node
from benchmarks.work.executors import Inline
from benchmarks.work.make import Options
from benchmarks.work.schedule import Event, Outcome, Scheduler
from dbn_core.errors import ArtefactError, TrainingDivergedError, TrainingStoppedError
from tests.support import tiny


def node(key: str, *needs: str) -> Node:
    return Node(
        "part", key, f"title of {key}", {"method": "m", "part": "p"}, tuple(("part", need) for need in needs), {}
    )


def schedule(nodes: list[Node], errors: Mapping[str, list[BaseException]] | None = None) -> tuple[Outcome, list[str]]:
    """What came of it, and the keys started; ``errors`` are raised in turn."""
    started: list[str] = []
    errors = errors or {}

    def submit(executor: object, one: Node) -> Future[str]:
        started.append(one.key)
        future: Future[str] = Future()
        if errors.get(one.key):
            future.set_exception(errors[one.key].pop(0))
        else:
            future.set_result("made")
        return future

    scheduler = Scheduler({one.key: one for one in nodes}, submit, Inline(), lambda event: None, lambda *_: None)
    return scheduler.run(), started


def test_a_failure_fails_all_that_waits_for_it_without_trying() -> None:
    chain = [node("a"), node("b", "a"), node("c", "b"), node("d", "c"), node("e")]
    outcome, started = schedule(chain, {"a": [ValueError("boom")]})
    assert started == ["a", "e"]
    assert outcome.failures["d"] == "needs title of c, which failed"
    assert set(outcome.failures) == set("abcd")
    assert outcome.final == {"a"}
    assert not outcome.damaged
    assert [made.key for made in outcome.made] == ["e"]


def test_a_worker_that_dies_twice_gets_its_node_when_nothing_else_runs() -> None:
    nodes = [node("a"), node("b"), node("c", "a")]
    outcome, started = schedule(nodes, {"a": [BrokenExecutor(), BrokenExecutor()]})
    assert started == ["a", "a", "b", "a", "c"]
    assert not outcome.failures


def test_what_needs_a_node_that_was_stopped_is_left() -> None:
    outcome, started = schedule([node("a"), node("b", "a")], {"a": [TrainingStoppedError()]})
    assert started == ["a"]
    assert {left.key for left in outcome.left} == {"a", "b"}


def test_the_time_left_is_the_mean_of_what_was_made() -> None:
    events: list[Event] = []

    def submit(executor: object, one: Node) -> Future[str]:
        future: Future[str] = Future()
        time.sleep(0.02)
        future.set_result("made")
        return future

    nodes = {key: node(key) for key in "abcd"}
    Scheduler(nodes, submit, Inline(), events.append, lambda *_: None).run()
    assert events[0].eta_s is None
    left = [event.eta_s for event in events if event.what == "done"]
    assert left[-1] == 0
    assert left[0] is not None
    assert left[0] < 3  # three nodes of about 0.02 s each, on a busy machine
    events.clear()
    nodes = {key: node(key, *needs) for key, needs in {"a": "", "b": "a", "c": "b", "d": "c"}.items()}
    Scheduler(nodes, submit, Inline(), events.append, lambda *_: None, work={"a": 1, "b": 1, "c": 98, "d": 99}).run()
    left = [event.eta_s for event in events if event.what == "done"]
    assert left[:2] == [None, None]  # so little work tells no pace
    assert left[2] is not None


def attempts(folder: Path) -> Counter[str]:
    lines = (folder / "store" / "failures.log").read_text().splitlines()
    return Counter(line.partition(" once: ")[2] for line in lines if line.startswith("--- "))


def test_a_training_that_fails_is_tried_once_while_a_damaged_member_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.work.worker import ArtefactBuilder

    (tmp_path / "once.toml").write_text(tiny.HEAD + tiny.DE + tiny.ED)
    look, damaged = ArtefactBuilder._predict, []

    def fit(self: ArtefactBuilder, one: Node) -> Any:
        raise TrainingDivergedError("its loss is NaN: lower its learning rate.")

    def predict(self: ArtefactBuilder, one: Node) -> Any:
        if not damaged:
            damaged.append(one.payload["members"]["0"])
            path = Store(tmp_path / "store").tensors_path("member", damaged[0])
            path.write_bytes(path.read_bytes()[:-1] + b"!")
        return look(self, one)

    monkeypatch.setattr(ArtefactBuilder, "_fit_part", fit)
    monkeypatch.setattr(ArtefactBuilder, "_predict", predict)
    options = Options(tmp_path / "store", tmp_path / "rows", tmp_path / "reports", jobs=0, device="cpu")
    result = run_suite(load_suite(str(tmp_path / "once.toml")), options, lambda _: None)
    assert damaged
    student = next(title for title in attempts(tmp_path) if title.startswith("ED"))
    assert attempts(tmp_path)[student] == 1
    reasons = {failure["cell"]: failure["reason"] for failure in result.failures}
    assert "its loss is NaN" in reasons[student]
    assert reasons["ED size 2, repetition 1"] == f"needs {student}, which failed"
    assert not any("DE" in cell for cell in reasons)


def test_a_lost_artefact_is_worth_another_round() -> None:
    outcome, _ = schedule([node("a"), node("b", "a")], {"a": [ArtefactError("gone")]})
    assert outcome.damaged
    assert not outcome.final
