"""What a run says of its cost before it starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.environment import computes_bf16
from benchmarks.run import Options, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import DataFacts, Plan, build_plan
from benchmarks.suite.schema import Suite
from benchmarks.work import estimate
from benchmarks.work.estimate import Work, announce, node_work, seconds_per_pass, total_work
from benchmarks.work.schedule import Event, missing_nodes
from dbn_core.errors import PluginError
from dbn_core.methods.registry import parse_method
from dbn_core.nets.resnet import Classifier
from dbn_core.train.recipe import Recipe
from tests.support import tiny

TINY = tiny.HEAD.replace("[recipe]\nepochs = 1", "[recipe]\nepochs = 2").replace("members = 2", "members = 3")
TINY = TINY.replace("[students]\nepochs = 1", "[students]\nepochs = 3")
METHODS = """
[[methods]]
use = "de"
sizes = [1, 2]
[[methods]]
use = "ed[batch_size=48]"
sizes = [2]
[[methods]]
use = "bn[split_at=block2,epochs=4]"
sizes = [2]
[[methods]]
use = "dbn[split_at=block2,score_network=mini,batch_size=64,epochs=10,distill_share=0.2]"
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


def work_of(plan: Plan, kind: str = "part") -> Work:
    return total_work(plan, [node for node in plan.nodes.values() if node.kind == kind])


@pytest.mark.parametrize(
    ("method", "size", "passes", "teacher_passes", "steps"),
    [
        # Whole batches of 144 images: 128 in batches of 32 or 64, all in batches of 48.
        ("ed[batch_size=48]", 2, 3 * 144, 2 * 3 * 144, 3 * 144),
        ("perturbed[split_at=block2]", 2, 3 * 128, 3 * 3 * 128, 3 * 128),
        ("shared[split_at=block2,epochs=2]", 3, 2 * 2 * 128, 0, 2 * 2 * 128),
        ("ts", 1, 0, 0, 0),
        ("bn[split_at=block2,epochs=4]", 2, (2 + 4) * 128, 2 * 4 * 128, (2 + 0.3 * 4) * 128),
        ("bn[split_at=block2,type=2,epochs=4]", 2, (2 + 4) * 128, 3 * 4 * 128, (2 + 0.3 * 4) * 128),
        # Alignment is free.
        ("bn[split_at=block2,align=true,epochs=4]", 2, (2 + 4) * 128, 2 * 4 * 128, (2 + 0.3 * 4) * 128),
        ("dbn[split_at=block2,score_network=mini,batch_size=64,epochs=10]", 3, 10 * 128, 30 * 128, 0.3 * 10 * 128),
        # The budget of the bridge and of its branched student is that of any other method.
        (
            "dbn[distill=branches,steps=4,split_at=block2,score_network=mini,batch_size=64,epochs=10,distill_share=0.2]",
            *(3, 10 * 128, 30 * 128, 0.3 * 10 * 128),
        ),
        ("direct[split_at=block2,score_network=mini,batch_size=64]", 3, 3 * 128, 9 * 128, 0.3 * 3 * 128),
        # Bridges have the batch of `direct`, 128.
        (
            "student-bridge[split_at=block2,score_network=mini,source_members=1]",
            *(3, 6 * 128, (1 + 2) * 3 * 128, (3 + 0.3 * 3) * 128),
        ),
    ],
)
def test_a_method_states_what_its_parts_take(
    tmp_path: Path, method: str, size: int, passes: int, teacher_passes: int, steps: float
) -> None:
    plan = plan_of(tmp_path, TINY + f'[[methods]]\nuse = "{method}"\nsizes = [{size}]\n')
    assert work_of(plan) == Work(passes, teacher_passes, pytest.approx(3 * steps + teacher_passes))
    members = sum(node.kind == "member" for node in plan.nodes.values())
    assert work_of(plan, "member") == Work(members * 2 * 128, 0, 3 * members * 2 * 128)


def test_predictions_count_networks_and_what_follows_them(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, TINY + METHODS)
    predicted = {node.title: node_work(plan, node).forward / (36 + 1617)
                 for node in plan.nodes.values() if node.kind == "predictions"}  # fmt: skip
    assert list(predicted.values()) == pytest.approx([2, 1, 1.3, 1.3]), predicted


@pytest.mark.slow
def test_a_run_spends_what_it_announced_and_announces_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    options = Options(store.root, tmp_path / "rows", tmp_path / "reports", jobs=0, device="cpu")
    chosen, events = suite(tmp_path, TINY + METHODS), []
    result = run_suite(chosen, options, events.append)
    assert not result.failures
    work = total_work(result.plan, result.plan.nodes.values())
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
    left = missing_nodes(plan, store, targets)
    assert sorted(node.kind for node in left.values()) == ["cost", "part", "predictions"]
    work = total_work(plan, left.values())
    assert (work.passes, work.teacher_passes) == (3 * 128, 2 * 3 * 128)

    monkeypatch.setattr(estimate, "seconds_per_pass", lambda *a, **k: pytest.fail("timed with nothing to train"))
    again: list[Event | str] = []
    run_suite(chosen, options, again.append)
    assert not [event for event in again if isinstance(event, str) and event.startswith("Training ")]


def test_stored_teachers_are_counted_once(tmp_path: Path) -> None:
    text = TINY.replace("epochs = 3", 'epochs = 3\nteachers = "views(4)"') + METHODS
    text += '[[methods]]\nuse = "end2"\nsizes = [2]\n'
    plan = plan_of(tmp_path, text)
    views = [node for node in plan.nodes.values() if node.kind == "views"]
    assert views, "the suite stores its teachers' logits"
    online = [node for node in plan.nodes.values() if node.kind == "part" and not node.payload["views"]]
    taught = total_work(plan, online).teacher_passes
    assert total_work(plan, plan.nodes.values()).teacher_passes == len(views) * 4 * TRAIN + taught


PLUGIN = """
from dbn_core import Config, Method, Part, TrainingCost, register

@register("mine")
class Mine(Method):
    \"\"\"A plugin.\"\"\"
    class Config(Config):
        epochs: str = "many"
    def parts(self, size): return [Part("part", (0, 1))]
    def predictor(self, size, context): ...
    STATED
"""


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize(
    ("stated", "work"),
    [
        ("", Work(3 * 128, 2 * 3 * 128, 5 * 3 * 128)),
        ("TrainingCost(7, 10**9, 2.0)", Work(7 * 144, 0, 2 * 3 * 7 * 144)),
        ("TrainingCost(1, 1, float('nan'))", None),
        ("None", None),
    ],
)
def test_a_plugin_states_what_its_parts_take(tmp_path: Path, stated: str, work: Work | None) -> None:
    from dbn_core.methods.registry import load_plugin

    method = f"def training_cost(self, part, recipe, student_epochs): return {stated}" if stated else ""
    (tmp_path / "mine.py").write_text(PLUGIN.replace("STATED", method))
    load_plugin(tmp_path / "mine.py")
    plan = plan_of(tmp_path, TINY + '[[methods]]\nuse = "mine"\nsizes = [2]\n')
    if work is not None:
        assert work_of(plan) == work
        return
    with pytest.raises(PluginError, match="'mine' cannot be planned"):
        work_of(plan)


def test_the_cost_of_the_cifar_10_suite() -> None:
    facts = DataFacts("0", "CIFAR-10", 3, (32, 32), tuple("0123456789"), {"train": 40_960, "test": 10_000})
    plan = build_plan(load_suite("cifar10"), facts)
    work = work_of(plan) + work_of(plan, "member")
    epochs_of_networks = 9 * 200 + 3 * (4 * 200 + 4 * 250 + 6 * 200)  # members, ED, END2, curves
    epochs_of_bridges = 3 * (2 * 6 * 200 + (4 + 3) * 850)
    assert work.passes == 40_960 * (epochs_of_networks + epochs_of_bridges)
    teachers = 3 * (24 * (200 + 250) + 2 * 2 * 6 * 200 + 3 * 7 * 850)
    assert work.teacher_passes == 40_960 * teachers
    assert work.forward == pytest.approx(40_960 * (3 * (epochs_of_networks + 0.3 * epochs_of_bridges) + teachers))


@pytest.mark.parametrize(
    ("jobs", "device", "said"),
    [
        # Six members of 210 passes, each of a second.
        (0, "cpu", "roughly 21 min on 1 process"),
        (2, "cuda:1", "roughly 10 min on the GPU"),
        (-1, "cuda", "roughly 4 min on 2 GPUs"),
    ],
)
def test_the_time_follows_the_work_and_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, device: str, said: str
) -> None:
    plan = plan_of(tmp_path, TINY.replace("members = 3", "members = 6") + '[[methods]]\nuse = "de"\nsizes = [6]\n')
    nodes = {key: node for key, node in plan.nodes.items() if node.kind == "member"}
    monkeypatch.setattr(estimate, "node_work", lambda *a: Work(333_333, 1_000_000_000, 210.0))
    monkeypatch.setattr(estimate, "seconds_per_pass", lambda *a: 1.0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    sentence = announce(plan, nodes, jobs, 1, device)
    assert sentence is not None
    assert "2.0 million example-passes, 6.0 billion more by teachers" in sentence
    assert sentence.endswith(said)


def test_bf16_that_is_emulated_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {"here": "flags\t\t: fpu avx2\n", "there": "flags\t\t: fpu avx512_bf16\n", "elsewhere": ""}
    monkeypatch.setattr(estimate, "seconds_per_pass", lambda *a: 1.0)
    half = TINY.replace("[recipe]", '[recipe]\nprecision = "bf16"')
    for place, text in flags.items():
        monkeypatch.setattr(Path, "read_text", lambda self, text=text, **k: text)
        assert computes_bf16() is {"here": False, "there": True, "elsewhere": None}[place]
    monkeypatch.undo()
    monkeypatch.setattr(estimate, "seconds_per_pass", lambda *a: 1.0)
    monkeypatch.setattr(estimate, "computes_bf16", lambda: False)
    plan = plan_of(tmp_path, half + METHODS)
    assert "emulates bf16: --set recipe.precision=fp32" in (announce(plan, plan.nodes, 0, 1, "cpu") or "")
    assert "emulates" not in (announce(plan, plan.nodes, 0, 1, "cuda") or "")


def test_a_device_that_refuses_costs_the_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> float:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(estimate, "seconds_per_pass", refuse)
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
    monkeypatch.setattr(estimate, "TIMING_SECONDS", 60.0)
    assert seconds_per_pass(chosen, chosen.recipe, DIGITS, "cpu", 1) > 0
    assert max(sizes) == 32, "the recipe's batch"
    sizes.clear()
    monkeypatch.setattr(estimate, "TIMING_SECONDS", 0.0)
    seconds_per_pass(chosen, chosen.recipe, DIGITS, "cpu", 1)
    assert sizes == [2, 2], "one step, after one that warms up"
    assert torch.get_num_threads() == threads


def test_the_first_step_is_no_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, original = [0.0], Classifier.forward

    def forward(self: Classifier, images: torch.Tensor) -> torch.Tensor:
        clock[0] += 0.003 * len(images) if clock[0] else 10.0
        return original(self, images)

    monkeypatch.setattr(Classifier, "forward", forward)
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    chosen = suite(tmp_path, TINY + METHODS)
    assert seconds_per_pass(chosen, chosen.recipe, DIGITS, "cpu", 1) == pytest.approx(0.001)


@pytest.mark.parametrize(
    ("spec", "epochs"), [("cycles[cycles=3,cycle_epochs=4]", 12), ("swa[epochs=7]", 7), ("swag[epochs=7]", 7)]
)
def test_networks_of_one_training_cost_its_epochs_and_no_teacher(spec: str, epochs: int) -> None:
    method = parse_method(spec)
    for owner in (method, parse_method(f"distil[teacher={spec}]")):
        cost = owner.training_cost(method.parts(1)[0], Recipe(epochs=99, batch_size=8), 50)
        assert (cost.epochs, cost.teachers) == (epochs, 0)
