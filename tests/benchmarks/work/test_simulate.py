"""Simulated schedules, against closed forms, bounds and the real scheduler's own order."""

from __future__ import annotations

import random
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.commands import simulate as command_module
from benchmarks.commands.simulate import data_facts
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import Node, Plan, build_plan
from benchmarks.work.estimate import total_work
from benchmarks.work.executors import Inline
from benchmarks.work.schedule import Scheduler
from benchmarks.work.simulate import Demand, Machine, Timeline, data_bytes, demands, network_size, simulate
from dbn_core.errors import SpecError
from dbn_core.nets.resnet import Classifier

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
PARAMS, MACS = IMAGENET = 21_798_504, 4_638_101_504


def machine(workers: int, overhead_s: float = 0.0, store: float = 1e9) -> Machine:
    """One FLOP is a second."""
    return Machine(workers, 1.0, store, overhead_s)


def graph(needs: Sequence[Sequence[int]]) -> dict[str, Node]:
    """Nodes ``0``, ``1`` ..., each with the numbers of those it needs."""
    return {
        str(i): Node("member", str(i), f"node {i}", {}, tuple(("member", str(need)) for need in before), {})
        for i, before in enumerate(needs)
    }


def alike(nodes: dict[str, Node], seconds: float) -> dict[str, Demand]:
    return dict.fromkeys(nodes, Demand(seconds))


def at_random(seed: int) -> tuple[dict[str, Node], dict[str, Demand]]:
    rng = random.Random(seed)
    needs = [rng.sample(range(i), min(i, rng.choice([0, 0, 1, 1, 2, 3]))) for i in range(rng.randint(1, 40))]
    nodes = graph(needs)
    return nodes, {key: Demand(rng.uniform(0.1, 10.0)) for key in nodes}


def bound_of_work_and_chain(schedule: Timeline) -> float:
    return max(schedule.bounds_s["workers"], schedule.bounds_s["longest chain"])


# ------------------------------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("workers", [1, 3, 64])
def test_a_chain_takes_as_long_as_its_nodes(workers: int) -> None:
    nodes = graph([[], [0], [1], [2], [3]])
    schedule = simulate(nodes, alike(nodes, 7.0), machine(workers, overhead_s=0.5))
    assert schedule.makespan_s == pytest.approx(5 * 7.5)
    assert schedule.chain == tuple("01234")
    assert schedule.lower_bound_s == pytest.approx(5 * 7.5)
    assert schedule.utilisation == pytest.approx(7 / 7.5 / workers)


@pytest.mark.parametrize(("count", "workers"), [(1, 4), (4, 4), (5, 4), (12, 5), (7, 1), (100, 64)])
def test_equal_nodes_go_in_rounds(count: int, workers: int) -> None:
    nodes = graph([[]] * count)
    schedule = simulate(nodes, alike(nodes, 3.0), machine(workers))
    assert schedule.makespan_s == pytest.approx(-(-count // workers) * 3.0)
    assert schedule.bounds_s["workers"] == pytest.approx(count * 3.0 / workers)


def test_store_and_scheduler_serve_all_workers() -> None:
    nodes = graph([[], [], []])
    sizes = dict(zip(nodes, (10, 10, 20), strict=True))  # bytes, at one a second
    schedule = simulate(nodes, {key: Demand(0.0, sizes[key]) for key in nodes}, machine(3, store=1.0))
    assert schedule.bounds_s["store"] == schedule.makespan_s == 40
    assert "store" in schedule.bottleneck
    waiting = simulate(nodes, alike(nodes, 0.0), machine(3, overhead_s=2.0))
    assert waiting.bounds_s["scheduler"] == waiting.makespan_s == 6
    assert "scheduler" in waiting.bottleneck


def test_workers_read_the_data_before_their_first_node() -> None:
    nodes = graph([[], [0]])
    schedule = simulate(nodes, {key: Demand(1.0, write_bytes=4) for key in nodes}, machine(5, store=1.0), 100.0)
    assert schedule.makespan_s == pytest.approx(2 * 100 + 1 + 4 + 1 + 4)  # no more workers than nodes
    assert (schedule.read_bytes, schedule.written_bytes) == (200, 8)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_no_schedule_beats_its_bounds_or_breaks_grahams(seed: int, workers: int) -> None:
    nodes, demand = at_random(seed)
    schedule = simulate(nodes, demand, machine(workers))
    least = bound_of_work_and_chain(schedule)
    assert schedule.lower_bound_s == least
    assert least <= schedule.makespan_s * (1 + 1e-9)
    assert schedule.makespan_s <= (2 - 1 / workers) * least * (1 + 1e-9)
    assert simulate(nodes, demand, machine(workers + 1)).lower_bound_s <= least
    assert sum(demand[key].flops for key in schedule.chain) == pytest.approx(schedule.bounds_s["longest chain"])
    for key, node in nodes.items():
        assert all(schedule.spans[need][1] <= schedule.spans[key][0] for _, need in node.needs)
    begun = sorted(start for start, _ in schedule.spans.values())
    for moment in begun:
        assert sum(start <= moment < end for start, end in schedule.spans.values()) <= workers


@pytest.mark.parametrize("seed", range(5))
def test_nothing_moves_between_two_simulations_or_undercuts_store_and_scheduler(seed: int) -> None:
    nodes, demand = at_random(seed)
    rng = random.Random(seed)
    demand = {key: Demand(one.flops, rng.uniform(0, 9), rng.uniform(0, 9)) for key, one in demand.items()}
    one, again = (simulate(nodes, demand, machine(4, 0.1, store=2.0), 5.0) for _ in range(2))
    assert one == again
    assert one.lower_bound_s <= one.makespan_s * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_nodes_begin_in_the_order_of_a_real_run(seed: int) -> None:
    nodes, demand = at_random(seed)
    begun: list[str] = []

    def submit(executor: object, node: Node) -> object:
        begun.append(node.key)
        return Inline().executor.submit(lambda: "made")

    work = {key: value.flops for key, value in demand.items()}
    Scheduler(  # type: ignore[arg-type]
        nodes, submit, Inline(), lambda event: None, lambda node, error: None, work=work
    ).run()
    assert list(simulate(nodes, demand, machine(1)).spans) == begun


def test_nothing_to_do_takes_no_time() -> None:
    schedule = simulate({}, {}, machine(2))
    assert (schedule.makespan_s, schedule.chain, schedule.lower_bound_s) == (0, (), 0)
    assert "nothing to do" in schedule.bottleneck


def test_a_bottleneck_explains_the_time_or_says_that_nodes_waited() -> None:
    nodes = graph([[], [0], [], [2], []])
    long_last = {key: Demand(4.0 if key == "4" else 1.0) for key in nodes}
    assert "the longest chain (100 %" in simulate(nodes, long_last, machine(9)).bottleneck
    assert "the workers (100 %" in simulate(nodes, long_last, machine(1)).bottleneck
    assert simulate(nodes, long_last, machine(2)).makespan_s == 4  # the long one begins first
    alone = graph([[], [], [], [], []])
    uneven = {key: Demand(3.0 if key in "01" else 2.0) for key in alone}
    waiting = simulate(alone, uneven, machine(2))  # 3 + 2 + 2 beside 3 + 2, where 3 + 3 beside 2 + 2 + 2 was possible
    assert (waiting.makespan_s, waiting.lower_bound_s) == (7, 6)
    assert "the order" in waiting.bottleneck
    assert "86 %" in waiting.bottleneck


# ------------------------------------------------------------------------------------------------------------- plans


def plan_of(name: str, **changes: object) -> Plan:
    suite = load_suite(name, {key.replace("__", "."): value for key, value in changes.items()})
    return build_plan(suite, data_facts(suite, None, None, None, None))


@pytest.mark.parametrize("teachers", ["online", "views(3)"])
def test_the_work_is_what_a_run_announces(teachers: str) -> None:
    plan = plan_of("imagenet64", students__teachers=teachers)
    demand = demands(plan, *IMAGENET)
    assert sum(one.flops for one in demand.values()) == pytest.approx(
        2 * MACS * total_work(plan, plan.nodes.values()).forward
    )


def test_artefacts_have_their_size() -> None:
    plan = plan_of("imagenet64", students__teachers="views(3)")
    demand = demands(plan, *IMAGENET)
    sizes = {node.title: demand[key].write_bytes for key, node in plan.nodes.items()}
    assert plan.data.counts == {"train": 1_231_167, "validation": 50_000, "test": 50_000}
    assert sizes["member 1 of pool 1"] == sizes["BN (medium): bridge-1, repetition 1"] == 4 * PARAMS
    assert sizes["logits of member 1 of pool 1 on 3 views"] == 3 * 1_231_167 * 1000 * 2
    assert sizes["DE size 7, repetition 1"] == 7 * 100_000 * 1000 * 4
    assert sizes["DBN (paper) size 7, repetition 1"] == 3 * 100_000 * 1000 * 4
    assert sizes["ED size 7, repetition 1"] == 100_000 * 1000 * 4
    assert sizes["cost of DE size 7"] == 0
    bridge = next(k for k, node in plan.nodes.items() if node.title.startswith("DBN (paper): onestep-1,"))
    assert demand[bridge].read_bytes == 4 * 4 * PARAMS + 3 * sizes["logits of member 1 of pool 1 on 3 views"]
    # A member runs whole, a bridge at its share; the multi-step bridge behind a distilled one does not run.
    ensemble, bridged = (next(k for k, n in plan.nodes.items() if n.title == t) for t in
                         ("DE size 7, repetition 1", "DBN (paper) size 7, repetition 1"))  # fmt: skip
    assert demand[ensemble].flops == 7 * 100_000 * 2 * MACS
    assert demand[bridged].flops == pytest.approx(1.9 * 100_000 * 2 * MACS)
    assert data_bytes(plan) == 1_331_167 * 3 * 64 * 64


def test_the_network_is_counted() -> None:
    plan = plan_of("smoke")
    network = Classifier(plan.suite.network, 10, 1, (0.5,), (0.25,))
    params, macs = network_size(plan)
    assert params == sum(p.numel() for p in network.parameters())
    # Stem: 4 filters of 3x3 on one channel of 8x8 pixels; then per stage two 3x3 and, from the second, a 1x1.
    stages = [64 * (2 * 9 * 16), 16 * (9 * 32 + 9 * 64 + 32), 4 * (9 * 128 + 9 * 256 + 128)]
    assert macs == 64 * 9 * 4 + sum(stages) + 16 * 10


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ({"workers": 0}, "worker"),
        ({"flops_per_s": -1.0}, "FLOP/s"),
        ({"flops_per_s": float("nan")}, "FLOP/s"),
        ({"store_bytes_per_s": 0.0}, "store"),
        ({"task_overhead_s": -1e-3}, "scheduler"),
    ],
)
def test_machines_that_do_not_exist(numbers: dict[str, float], named: str) -> None:
    good = {"workers": 1, "flops_per_s": 1.0, "store_bytes_per_s": 1.0, "task_overhead_s": 0.0}
    with pytest.raises(SpecError, match=named) as caught:
        Machine(**{**good, **numbers})  # type: ignore[arg-type]
    assert str(caught.value).count(". ") == 0


def test_sizes_of_data(tmp_path: Path) -> None:
    imagenet = load_suite("imagenet64", {"data.train_limit": 9000})
    facts = data_facts(imagenet, None, 7, None, "3x224x200")
    assert (facts.channels, facts.image_size, len(facts.classes)) == (3, (224, 200), 1000)
    assert facts.counts == {"train": 9000, "validation": 50_000, "test": 7}
    digits = data_facts(load_suite("digits"), None, None, None, None)
    assert sum(digits.counts.values()) == 1797
    for suite, image, named in (
        (load_suite("imagenet64", {"data.title": "Mine"}), None, "--train, --test, --classes, --image"),
        (imagenet, "64x64", "3x64x64"),
        (load_suite("digits"), "1x8x8", "--image"),
    ):
        with pytest.raises(SpecError, match=named):
            data_facts(suite, None, None, None, image)


# -------------------------------------------------------------------------------------------------------------- docs


def output_of(command: str) -> str:
    app = typer.Typer()
    app.command()(command_module.simulate)
    program, name, *words = shlex.split(command)
    assert (program, name) == ("dbn-bench", "simulate")
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output or result.exception
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


@pytest.fixture
def _at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("benchmarks.work.simulate.network_size", lambda plan: IMAGENET)


def test_the_network_of_the_docs() -> None:
    assert network_size(plan_of("imagenet64")) == IMAGENET


SHOWN = re.findall(r"```console\n\$ (dbn-bench simulate [^\n]*)\n(.*?)```", DOCS, re.DOTALL)


@pytest.mark.usefixtures("_at_root")
@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=range(len(SHOWN)))
def test_the_docs_show_what_the_command_prints(command: str, shown: str) -> None:
    assert output_of(command) == shown.strip()


@pytest.mark.usefixtures("_at_root")
def test_the_docs_table_of_assumptions() -> None:
    rows = re.findall(r"^\| `(dbn-bench simulate [^`]*)` \| ([\d.,]+) h \| (.*?) \|$", DOCS, re.MULTILINE)
    assert len(rows) >= 5
    for command, makespan, bottleneck in rows:
        printed = output_of(command)
        workers = re.search(r"--workers (\d+)", command)
        assert workers is not None
        assert f"\n{workers[1]} " in printed
        line = next(line for line in printed.splitlines() if re.match(rf"{workers[1]}\s+\S+\s+\S+\s+\S+\s+\S+$", line))
        assert (line.split()[1], bottleneck in printed.splitlines()[-1]) == (makespan, True), command
    assert SHOWN


def test_the_docs_on_paper() -> None:
    epoch_h = 1_231_104 * 3 * 2 * MACS / 40e12 / 3600
    paper = DOCS.partition("### On paper")[2].partition("### By simulation")[0]
    hours = {
        "member": 100 * epoch_h,
        "views": 4 * epoch_h / 3,
        "bridge": 250 * 0.3 * epoch_h,
        "one step": 50 * 0.3 * epoch_h,
        "ED": 100 * (1 + 7 / 3) * epoch_h,
    }
    hours["chain of ED"] = hours["member"] + hours["ED"]
    for name, value in hours.items():
        assert f"**{value:.1f} h**" in paper, name
    bridges = sum(hours[name] for name in ("member", "views", "bridge", "one step"))
    assert f"**{bridges + 0.1:.1f} h**" in paper
    assert f"it would be {100 * (1 + 100 / 3) * epoch_h:.0f} h" in paper


def test_the_slurm_example_writes_a_job(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    words = ["digits", "--queue", "gpu", "--walltime", "02:00:00", "--show", "--", "--store", "shared"]
    run = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "slurm_cluster.py"), *words],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=True,
    )
    for line in ("#SBATCH -p gpu", "#SBATCH -t 02:00:00", "#SBATCH --gres=gpu:1", "--nthreads 1"):
        assert line in run.stdout
