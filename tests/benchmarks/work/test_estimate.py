"""What a run says of its cost before it starts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from benchmarks.environment import computes_bf16
from benchmarks.run import Options, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import DataFacts, Plan, build_plan
from benchmarks.suite.schema import Suite
from benchmarks.work import estimate
from benchmarks.work.estimate import BRIDGE_SHARE, Speed, Work, announce, count_work, duration, measure_speed
from benchmarks.work.schedule import Event, missing_nodes
from dbn_core.nets.resnet import Classifier

TINY = """
title = "Tiny"
repetitions = 1
[data]
source = "digits"
test_fraction = 0.9
[network]
name = "resnet8"
channels = 4
width = 1.0
[pool]
members = 3
[recipe]
epochs = 2
batch_size = 32
crop_pad = 1
[students]
epochs = 3
[latency]
batch = 8
repeats = 3
batch_repeats = 3
"""
METHODS = """
[[methods]]
use = "de"
sizes = [1, 2]
[[methods]]
use = "ed[batch_size=48]"
sizes = [2]
[[methods]]
use = "bn[at=block2,epochs=4]"
sizes = [2]
[[methods]]
use = "dbn[at=block2,score_network=mini,batch_size=64,epochs=10,distill_share=0.2]"
sizes = [3]
"""
# 1,797 digits: nine tenths are test, a fifth of the other 180 validation.
TRAIN = 144
DIGITS = DataFacts("0", "digits", 1, (8, 8), tuple("0123456789"), {"train": TRAIN, "validation": 36, "test": 1617})


def suite(folder: Path, text: str) -> Suite:
    (folder / "tiny.toml").write_text(text)
    return load_suite(str(folder / "tiny.toml"))


def plan_of(folder: Path, text: str) -> Plan:
    return build_plan(suite(folder, text), DIGITS)


def test_counts_are_what_is_trained(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TINY + METHODS)
    # Whole batches of 144 images: 128 in batches of 32 or 64, all in batches of 48.
    member, student, curve, bridge, dbn, onestep = 2 * 128, 3 * 144, 2 * 128, 4 * 128, 8 * 128, 2 * 128
    assert count_work(plan, plan.nodes) == Work(
        members=3,
        parts=5,
        passes=3 * member + student + curve + bridge + dbn + onestep,
        teacher_passes=2 * student + 2 * bridge + 3 * (dbn + onestep),
        steps=pytest.approx(3 * member + student + curve + BRIDGE_SHARE * (bridge + dbn + onestep)),
    )


def test_what_is_computed_from_weights_is_no_training(tmp_path: Path) -> None:
    bn = '[[methods]]\nuse = "bn[at=block2,align=true,predict=curve]"\nsizes = [2]\n'
    plan = plan_of(tmp_path, TINY + bn)
    work = count_work(plan, plan.nodes)
    assert (work.members, work.parts) == (2, 3)  # alignment, curve and the network in its middle
    assert work.passes == 3 * 2 * 128
    assert work.teacher_passes == 0


@pytest.mark.slow
def test_a_run_spends_what_it_announced_and_announces_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    options = Options(store.root, tmp_path / "rows", tmp_path / "reports", jobs=0, device="cpu")
    chosen, events = suite(tmp_path, TINY + METHODS), []
    result = run_suite(chosen, options, events.append)
    assert not result.failures
    work = count_work(result.plan, result.plan.nodes)
    values = [
        store.value(node.kind, node.key)["value"]
        for node in result.plan.nodes.values()
        if node.kind in ("member", "part")
    ]
    assert work.passes == sum(value["student_passes"] for value in values)
    assert work.teacher_passes == sum(value["teacher_passes"] for value in values)
    first = next(index for index, event in enumerate(events) if isinstance(event, Event))
    said = [event for event in events[:first] if isinstance(event, str) and event.startswith("Training ")]
    assert len(said) == 1
    assert "Training 3 members and 5 parts" in said[0]
    assert f"{work.passes:,} example-passes" in said[0]
    assert f"{work.teacher_passes:,} more by teachers" in said[0]
    assert "roughly" in said[0]

    one_more = suite(tmp_path, TINY + METHODS + '[[methods]]\nuse = "end2"\nsizes = [2]\n')
    plan = build_plan(one_more, result.plan.data)
    targets = {key for cell in plan.cells for key in (cell.predictions, cell.cost)}
    left = count_work(plan, missing_nodes(plan, store, targets))
    assert (left.members, left.parts, left.passes, left.teacher_passes) == (0, 1, 3 * 128, 2 * 3 * 128)

    monkeypatch.setattr(estimate, "measure_speed", lambda *a, **k: pytest.fail("timed with nothing to train"))
    again: list[Event | str] = []
    run_suite(chosen, options, again.append)
    assert not [event for event in again if isinstance(event, str) and event.startswith("Training ")]


def test_stored_teachers_are_counted_once(tmp_path: Path) -> None:
    text = TINY.replace("epochs = 3", 'epochs = 3\nteachers = "views(4)"') + METHODS
    text += '[[methods]]\nuse = "end2"\nsizes = [2]\n'
    plan = plan_of(tmp_path, text)
    views = [node for node in plan.nodes.values() if node.kind == "views"]
    assert views, "the suite stores its teachers' logits"
    online = sum(
        estimate._part(node, plan.suite, TRAIN)[1]
        for node in plan.nodes.values()
        if node.kind == "part" and not node.payload["views"]
    )
    assert count_work(plan, plan.nodes).teacher_passes == len(views) * 4 * TRAIN + online


STRANGER = """
from dbn_core import Method, Part, register

@register("stranger")
class Stranger(Method):
    \"\"\"Settings of its own kind.\"\"\"
    def parts(self, size):
        odd = {"epochs": "many", "batch_size": None, "distill_share": "half", "curve_epochs": [1]}
        return [Part("bridge-1", (0,), settings=odd), Part("curve", (0,), settings=odd),
                Part("part", (0, 1), settings=SETTINGS)]
    def predictor(self, size, context): ...
"""


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("settings", ["None", "{}", "{'epochs': -1}", "{'epochs': True, 'batch_size': 10**9}"])
def test_a_strangers_settings_do_no_harm(tmp_path: Path, settings: str) -> None:
    from dbn_core.methods.registry import load_plugin

    (tmp_path / "stranger.py").write_text(STRANGER.replace("SETTINGS", settings))
    load_plugin(tmp_path / "stranger.py")
    plan = plan_of(tmp_path, TINY + '[[methods]]\nuse = "stranger"\nsizes = [2]\n')
    work = count_work(plan, plan.nodes)
    last = 3 * (TRAIN if "10**9" in settings else 128)
    assert (work.members, work.parts) == (2, 3)
    assert work.passes == 2 * 2 * 128 + 3 * 128 + 2 * 128 + last
    assert work.teacher_passes == 3 * 128 + 2 * last


def test_the_cost_of_the_cifar_10_suite() -> None:
    facts = DataFacts("0", "CIFAR-10", 3, (32, 32), tuple("0123456789"), {"train": 40_960})
    plan = build_plan(load_suite("cifar10"), facts)
    work = count_work(plan, plan.nodes)
    epochs_of_networks = 9 * 200 + 3 * (4 * 200 + 4 * 250 + 6 * 200)  # members, ED, END2, curves
    epochs_of_bridges = 3 * (2 * 6 * 200 + (4 + 3) * 850)
    assert work.passes == 40_960 * (epochs_of_networks + epochs_of_bridges)
    assert work.steps == pytest.approx(40_960 * (epochs_of_networks + BRIDGE_SHARE * epochs_of_bridges))
    teachers = 3 * (24 * (200 + 250) + 2 * 2 * 6 * 200 + 3 * 7 * 850)
    assert work.teacher_passes == 40_960 * teachers


@pytest.mark.parametrize(
    ("jobs", "device", "said"),
    [
        # 12 steps of 100 s and six billion forward passes of 10 ns are 1,260 s.
        (0, "cpu", "roughly 21 min on 1 process"),
        (3, "cpu", "roughly 7 min on 3 processes"),
        (1, "cuda:1", "roughly 21 min on the GPU"),
        (2, "cuda:1", "roughly 10 min on the GPU"),
        (-1, "cuda", "roughly 4 min on 2 GPUs"),
    ],
)
def test_the_time_follows_the_work_and_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, device: str, said: str
) -> None:
    plan = plan_of(tmp_path, TINY + METHODS)
    monkeypatch.setattr(estimate, "count_work", lambda *a: Work(3, 5, 2_000_000, 6_000_000_000, 12.0))
    monkeypatch.setattr(estimate, "measure_speed", lambda *a: Speed(100.0, 1e-8))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    sentence = announce(plan, plan.nodes, jobs, 1, device)
    assert sentence is not None
    assert "2.0 million example-passes, 6.0 billion more by teachers" in sentence
    assert sentence.endswith(said)


def test_bf16_that_is_emulated_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"here": "flags\t\t: fpu avx2\n", "there": "flags\t\t: fpu avx512_bf16\n", "elsewhere": ""}
    monkeypatch.setattr(estimate, "measure_speed", lambda *a: Speed(1.0, 1.0))
    half = TINY.replace("[recipe]", '[recipe]\nprecision = "bf16"')
    for place, text in flags.items():
        monkeypatch.setattr(Path, "read_text", lambda self, text=text, **k: text)
        assert computes_bf16() is {"here": False, "there": True, "elsewhere": None}[place]
    monkeypatch.undo()
    monkeypatch.setattr(estimate, "measure_speed", lambda *a: Speed(1.0, 1.0))
    monkeypatch.setattr(estimate, "computes_bf16", lambda: False)
    plan = plan_of(tmp_path, half + METHODS)
    assert "emulates bf16: --set recipe.precision=fp32" in (announce(plan, plan.nodes, 0, 1, "cpu") or "")
    parts = {key: node for key, node in plan.nodes.items() if node.kind != "member"}
    assert "emulates bf16: --set students.precision=fp32" in (announce(plan, parts, 0, 1, "cpu") or "")
    assert "emulates" not in (announce(plan, plan.nodes, 0, 1, "cuda") or "")
    plan = plan_of(tmp_path, TINY + METHODS)
    assert "parts in fp32: " in (announce(plan, plan.nodes, 0, 1, "cpu") or "")


def test_a_device_that_refuses_costs_the_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Speed:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(estimate, "measure_speed", refuse)
    plan = plan_of(tmp_path, TINY + METHODS)
    sentence = announce(plan, plan.nodes, 0, 1, "cpu")
    assert sentence is not None
    assert sentence.endswith("by teachers")


def test_timing_stays_within_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = Classifier.forward

    def forward(self: Classifier, images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        return original(self, images)

    monkeypatch.setattr(Classifier, "forward", forward)
    chosen, threads = suite(tmp_path, TINY + METHODS), torch.get_num_threads()
    speed = measure_speed(chosen, chosen.recipe, DIGITS, "cpu", 1, budget_s=60.0)
    assert max(sizes) == 32, "the recipe's batch"
    assert speed.forward_s > 0
    assert speed.step_s > 0
    sizes.clear()
    measure_speed(chosen, chosen.recipe, DIGITS, "cpu", 1, budget_s=0.0)
    assert sizes == [2, 2], "one step and one forward pass"
    assert torch.get_num_threads() == threads
    started = time.process_time()
    digits = load_suite("digits")
    measure_speed(digits, digits.recipe, DIGITS, "cpu", 1)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "1 s"), (119, "119 s"), (121, "2 min"), (7_200, "2 h"), (172_800, "2 days"), (1e8, "3 years")],
)
def test_durations_are_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
