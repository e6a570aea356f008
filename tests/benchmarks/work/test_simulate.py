"""Simulated schedules, against closed forms, bounds and the real scheduler's own order."""

from __future__ import annotations

import random
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.commands import simulate as command_module
from benchmarks.commands.simulate import facts_of_suite
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import Node, build_plan
from benchmarks.work.estimate import network_cost
from benchmarks.work.executors import Inline
from benchmarks.work.order import longest_chain, makespan
from benchmarks.work.schedule import Scheduler
from dbn_core.errors import DataError
from dbn_core.measure.cost import Cost
from dbn_core.nets.resnet import Classifier

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
IMAGENET = Cost(21_798_504, 4_638_101_504)


def graph(needs: Sequence[Sequence[int]]) -> dict[str, Node]:
    """Nodes ``0``, ``1`` ..., each with the numbers of those it needs."""
    return {
        str(i): Node("member", str(i), f"node {i}", {}, tuple(("member", str(need)) for need in before), {})
        for i, before in enumerate(needs)
    }


def at_random(seed: int) -> tuple[dict[str, Node], dict[str, float]]:
    rng = random.Random(seed)
    needs = [rng.sample(range(i), min(i, rng.choice([0, 0, 1, 1, 2, 3]))) for i in range(rng.randint(1, 40))]
    nodes = graph(needs)
    return nodes, {key: rng.uniform(0.1, 10.0) for key in nodes}


@pytest.mark.parametrize("workers", [1, 3, 64])
def test_a_chain_takes_as_long_as_its_nodes(workers: int) -> None:
    nodes = graph([[], [0], [1], [2], [3]])
    seconds = dict.fromkeys(nodes, 7.0)
    assert makespan(nodes, seconds, workers) == pytest.approx(5 * 7.0)
    assert longest_chain(nodes, seconds) == list("01234")


@pytest.mark.parametrize(("count", "workers"), [(1, 4), (4, 4), (5, 4), (12, 5), (7, 1), (100, 64)])
def test_equal_nodes_go_in_rounds(count: int, workers: int) -> None:
    nodes = graph([[]] * count)
    assert makespan(nodes, dict.fromkeys(nodes, 3.0), workers) == pytest.approx(-(-count // workers) * 3.0)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_no_schedule_beats_its_bounds_or_breaks_grahams(seed: int, workers: int) -> None:
    nodes, seconds = at_random(seed)
    chain = longest_chain(nodes, seconds)
    assert all(("member", before) in nodes[after].needs for before, after in pairwise(chain))
    least = max(sum(seconds.values()) / workers, sum(seconds[key] for key in chain))
    assert least <= makespan(nodes, seconds, workers) * (1 + 1e-9)
    assert makespan(nodes, seconds, workers) <= (2 - 1 / workers) * least * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_a_real_run_begins_long_chains_first(seed: int) -> None:
    nodes, seconds = at_random(seed)
    started: list[str] = []

    def submit(executor: object, node: Node) -> object:
        started.append(node.key)
        return Inline().submit(lambda: "made")

    Scheduler(  # type: ignore[arg-type]
        nodes, submit, Inline(), lambda event: None, lambda node, error: None, work=seconds
    ).run()
    assert started[0] == longest_chain(nodes, seconds)[0]
    assert sorted(started) == sorted(nodes)


def test_a_long_node_begins_before_short_ones() -> None:
    nodes = graph([[], [0], [], [2], []])
    assert makespan(nodes, {key: 4.0 if key == "4" else 1.0 for key in nodes}, 2) == 4
    assert makespan({}, {}, 2) == 0


def test_the_network_is_counted() -> None:
    suite = load_suite("smoke")
    plan = build_plan(suite, facts_of_suite(suite))
    network = Classifier(suite.network, 10, 1, (0.5,), (0.25,))
    # Stem: 4 filters of 3x3 on one channel of 8x8 pixels; then per stage two 3x3 and, from the second, a 1x1.
    stages = [64 * (2 * 9 * 16), 16 * (9 * 32 + 9 * 64 + 32), 4 * (9 * 128 + 9 * 256 + 128)]
    macs = 64 * 9 * 4 + sum(stages) + 16 * 10
    assert network_cost(plan) == Cost(sum(p.numel() for p in network.parameters()), macs)


def test_sizes_of_data() -> None:
    facts = facts_of_suite(load_suite("imagenet64", {"data.train_limit": 9000}))
    assert (facts.channels, facts.image_size, len(facts.classes)) == (3, (64, 64), 1000)
    assert facts.counts == {"train": 9000, "validation": 50_000, "test": 50_000}
    assert sum(facts_of_suite(load_suite("digits")).counts.values()) == 1797
    with pytest.raises(DataError):
        facts_of_suite(load_suite("imagenet64", {"data.title": "Mine"}))


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
    monkeypatch.setattr("benchmarks.work.estimate.network_cost", lambda plan: IMAGENET)


def test_the_network_of_the_docs() -> None:
    suite = load_suite("imagenet64")
    assert network_cost(build_plan(suite, facts_of_suite(suite))) == IMAGENET


SHOWN = re.findall(r"```console\n\$ (dbn-bench simulate [^\n]*)\n(.*?)```", DOCS, re.DOTALL)


@pytest.mark.usefixtures("_at_root")
@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=range(len(SHOWN)))
def test_the_docs_show_what_the_command_prints(command: str, shown: str) -> None:
    assert output_of(command) == shown.strip()


@pytest.mark.usefixtures("_at_root")
def test_the_docs_table_of_assumptions() -> None:
    rows = re.findall(r"^\| `(dbn-bench simulate [^`]*)` \| ([\d.,]+) h \| (.*?) \|$", DOCS, re.MULTILINE)
    assert len(rows) >= 4
    for command, hours, bottleneck in rows:
        printed = output_of(command)
        workers = re.search(r"--workers (\d+)", command)
        assert workers is not None
        assert f"\n{workers[1]} " in printed
        line = next(line for line in printed.splitlines() if re.match(rf"{workers[1]}\s+\S+\s+\S+\s+\S+\s+\S+$", line))
        assert (line.split()[1], bottleneck in printed.splitlines()[-1]) == (hours, True), command
    assert SHOWN


def test_the_docs_on_paper() -> None:
    epoch_h = 1_231_104 * 3 * IMAGENET.flops / 40e12 / 3600
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
