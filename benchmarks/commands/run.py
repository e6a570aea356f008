"""``run``: train, measure and report a suite."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.commands.common import (
    STORE,
    Add,
    DataRoot,
    Plugins,
    Publish,
    ReportsDir,
    RowsDir,
    Set,
    StoreDir,
    SuiteName,
    command_line,
    console,
    echo,
    echo_report,
    errors,
    load_plugins,
    open_store,
    output_dirs,
    overrides,
)
from benchmarks.commands.planned import show_plan
from dbn_core.errors import SpecError

if TYPE_CHECKING:
    from benchmarks.suite.schema import Suite

MOST_THREADS = 4  # more hardly speed up a small network


def run(
    suite: SuiteName = "digits",
    store: StoreDir = STORE,
    rows: RowsDir = None,
    reports: ReportsDir = None,
    executor: Annotated[
        str, typer.Option(help="processes, inline (this process), or dask://HOST:PORT (a Dask cluster).")
    ] = "processes",
    jobs: Annotated[
        int, typer.Option(help="Worker processes; -1: four per GPU, or one per core; 0: work in this process.")
    ] = -1,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Torch threads of each process; with --lite as many as cores, 4 at most.", min=1, show_default="1"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (all GPUs) or cuda:N.")] = "auto",
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Make only this method: its label, spec or name, * allowed; may be repeated.", metavar="METHOD"
        ),
    ] = None,
    add: Add = None,
    lite: Annotated[
        bool,
        typer.Option(
            "--lite",
            help="Try the methods of --add alone: one repetition, a tenth of the students' epochs (at most 50,000 "
            "images or one epoch), nothing timed or ranked, rows in results/runs/SUITE-lite.",
        ),
    ] = False,
    max_time: Annotated[
        str | None,
        typer.Option(
            help="Stop training after this time, for example 90s, 50m or 8h: trainings write checkpoints, what is "
            "complete is timed and reported, the exit code is 3.",
            metavar="TIME",
        ),
    ] = None,
    time_again: Annotated[
        bool,
        typer.Option("--time-again", help="Measure all latencies on this machine, stored and released ones as well."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and its estimated cost; train nothing.")
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard event files of every training.", metavar="FOLDER")
    ] = None,
    data_root: DataRoot = None,
    download: Annotated[bool, typer.Option("--download", help="Let the data source download what is missing.")] = False,
    plugin: Plugins = None,
    set_: Set = None,
    publish: Publish = False,
    replace_rows: Annotated[
        bool, typer.Option("--replace-rows", help="Replace the rows of another suite that has the same name.")
    ] = False,
) -> None:
    """Train what is missing, measure everything, and write the report.

    A second run of an unchanged suite trains nothing, nor does the first run of a released suite.
    Exit code 1: something failed; 3: the time was up; 130: stopped.
    """
    from benchmarks.run import run_suite
    from benchmarks.store.released import released_root
    from benchmarks.store.rows import check_rows, source_of
    from benchmarks.suite.lite import TRUST
    from benchmarks.suite.load import load_suite, with_methods
    from benchmarks.work.executors import parse_executor
    from benchmarks.work.make import Options
    from benchmarks.work.planning import plan_suite
    from benchmarks.work.preflight import check_networks
    from benchmarks.work.progress import Reporter

    if device not in ("auto", "cpu") and not re.fullmatch(r"cuda(:\d+)?", device):
        raise SpecError(f"Unknown device '{device}': choose auto, cpu, cuda or cuda:N.")
    parse_executor(executor)
    _check_tensorboard(tensorboard)
    seconds = None if max_time is None else _seconds(max_time)
    load_plugins(plugin)
    changed = overrides(set_, data_root, download)
    if lite and publish:
        raise SpecError("--lite rows are never published: drop --publish, or run the whole suite without --lite.")
    base, source = load_suite(suite, changed), source_of(suite, changed)
    chosen = _tried(base, add or [], store) if lite else with_methods(base, add or [])
    jobs, threads = _few_parts(jobs, threads, device) if lite else (jobs, threads or 1)
    rows, reports = output_dirs(chosen.name, rows, reports, publish)
    options = Options(
        store, rows, reports, executor, jobs, threads, device, plugin or [], only, seconds, tensorboard,
        command_line(publish), released_root(), f"{source} lite" if lite else source, lite,
        time_again,
    )  # fmt: skip
    if dry_run:
        the_store = options.open_store()
        plan = plan_suite(chosen, the_store)
        check_networks(chosen, plan.data)
        show_plan(plan, the_store, options)
        return
    if not replace_rows:
        check_rows(rows, chosen, options.source)
    with Reporter(console, store) as reporter:
        console.print(f"Suite {chosen.name}: {chosen.title}", markup=False, highlight=False, soft_wrap=True)
        result = run_suite(chosen, options, reporter)
    written = reports / chosen.name / "report.html"
    made, left = len(result.outcome.made), len(result.outcome.left)
    console.print(f"{made} artefacts made in {result.outcome.seconds:.0f} s, everything else was in the store.")
    if result.gone:
        echo(f"No longer in the rows: {', '.join(result.gone)} (still in the store; the same --add shows them again).")
    if lite:
        echo(TRUST)
    if failures := result.outcome.failures or (result.failures if not left and only is None else []):
        errors.print(f"{len(failures)} of {len(result.plan.nodes)} artefacts failed:", style="bold red")
        for failure in result.failures:
            errors.print(f"  {failure['cell']}: {failure['reason']}", markup=False, soft_wrap=True)
        echo_report(written, rows)
        raise typer.Exit(1)
    if left:
        errors.print(f"The time is up; {left} artefacts are not made: run the same command again.")
        echo_report(written, rows)
        raise typer.Exit(3)
    echo_report(written, rows)


def _tried(base: Suite, add: list[str], folder: Path) -> Suite:
    """The lite suite, without the deep ensembles that are larger than the added methods where they are to be made."""
    from benchmarks.suite.lite import lite_suite
    from benchmarks.work.planning import plan_suite

    store = open_store(folder)
    images = plan_suite(base, store).data.counts.get("train", 0)
    chosen = lite_suite(base, add, images)
    references = [cell.predictions for cell in plan_suite(chosen, store).cells if cell.is_reference]
    known = all(store.has("predictions", key) for key in references)
    return chosen if known else lite_suite(base, add, images, all_sizes=False)


def _few_parts(jobs: int, threads: int | None, device: str) -> tuple[int, int]:
    """Workers and threads of each for a lite run: it trains one or two parts, which share the cores."""
    from benchmarks.work.executors import cuda_devices

    cores = os.cpu_count() or 1
    if threads is None and jobs == -1 and not cuda_devices(device):
        threads = min(cores, MOST_THREADS)
        jobs = cores // threads
    return jobs, threads or 1


def _check_tensorboard(folder: Path | None) -> None:
    """Refuse before the run if event files cannot be written."""
    if folder is not None and find_spec("tensorboard") is None:
        raise SpecError("--tensorboard needs TensorBoard: run `pip install -e '.[tensorboard]'` in the clone.")


def _seconds(text: str) -> float:
    """``90``, ``90s``, ``50m``, ``8h`` or ``2d`` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not match or not float(match[1]):
        raise SpecError(f"--max-time {text}: write a time such as 90s, 50m or 8h.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]
