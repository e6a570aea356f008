"""The command line ``dbn-bench``.  Torch is imported only by the commands that compute."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dbn_core.errors import BenchError, SpecError

app = typer.Typer(
    add_completion=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Benchmark suite for fast ensembling: a deep ensemble's accuracy and calibration at one network's cost.",
)
console, errors = Console(), Console(stderr=True)

SuiteName = Annotated[str, typer.Argument(help="A built-in suite (see `dbn-bench list`) or the path of a .toml file.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="Python file that registers methods; may be repeated.", metavar="FILE"),
]
StoreDir = Annotated[Path, typer.Option("--store", help="Folder of trained weights and predictions.")]
RowsDir = Annotated[
    Path | None, typer.Option("--rows", help="Folder of the result rows.  [default: results/runs/SUITE]")
]
ReportsDir = Annotated[Path, typer.Option("--reports", help="Folder that gets one report folder a suite.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one key of the suite, for example repetitions=5 or data.root=/data/cifar.",
        metavar="KEY=VALUE",
    ),
]

_STORE, _REPORTS = Path("results/store"), Path("reports")


@app.command()
def run(
    suite: SuiteName = "digits",
    store: StoreDir = _STORE,
    rows: RowsDir = None,
    reports: ReportsDir = _REPORTS,
    jobs: Annotated[int, typer.Option(help="Worker processes; -1: one a core; 0: none, work in this process.")] = -1,
    threads: Annotated[int, typer.Option(help="Torch threads of each process.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data, for sources that read files.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Let the source download what is missing.")] = False,
    plugin: Plugins = None,
    set_: Set = None,
) -> None:
    """Train what is missing, measure everything, and write the report.

    A second run of an unchanged suite trains nothing.
    """
    from benchmarks.progress import Reporter
    from benchmarks.run import Options, run_suite
    from benchmarks.suite import load_suite
    from dbn_core.registry import load_plugin

    if device not in ("auto", "cpu") and not device.startswith("cuda"):
        raise SpecError(f"Unknown device '{device}': choose auto, cpu or cuda.")
    for path in plugin or []:
        load_plugin(path)
    chosen = load_suite(suite, _overrides(set_, data_root, download))
    options = Options(store, rows, reports, jobs, threads, device, plugin or [], _command())
    with Reporter(console) as reporter:
        console.print(f"Suite {chosen.name}: {chosen.title}", markup=False, highlight=False, soft_wrap=True)
        result = run_suite(chosen, options, reporter)
    made = len(result.outcome.made)
    console.print(f"{made} artefacts made in {result.outcome.seconds:.0f} s, everything else was in the store.")
    console.print(f"Rows:   {result.rows}", markup=False, soft_wrap=True)
    console.print(f"Report: {reports / chosen.name / 'report.html'}", markup=False, soft_wrap=True)
    if result.failures:
        errors.print(f"{len(result.failures)} of {len(result.plan.nodes)} artefacts failed:", style="bold red")
        for failure in result.failures:
            errors.print(f"  {failure['cell']}: {failure['reason']}", markup=False, soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def report(
    suite: SuiteName = "digits",
    rows: Annotated[
        Path | None,
        typer.Option(help="Folder of result rows.  [default: results/runs/SUITE, else results/reference/SUITE]"),
    ] = None,
    reports: ReportsDir = _REPORTS,
) -> None:
    """Render tables and figures again from result rows, without networks or data."""
    from benchmarks.report import render

    name = Path(suite).stem
    candidates = [rows] if rows else [Path("results/runs") / name, Path("results/reference") / name]
    folder = next((path for path in candidates if (path / "meta.json").is_file()), None)
    if folder is None:
        places = " or ".join(f"'{path}'" for path in candidates)
        raise SpecError(f"There are no result rows in {places}: run `dbn-bench run {suite}` first.")
    for path in render(folder, reports / name):
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)


@app.command("list")
def list_(plugin: Plugins = None) -> None:
    """Show methods, suites and data sources."""
    from benchmarks.suite import available
    from dbn_core.data import SOURCES
    from dbn_core.registry import load_plugin, methods

    for path in plugin or []:
        load_plugin(path)
    _table(
        "Methods", ["name", "what it is", "reference"], [(n, m.summary(), m.reference) for n, m in methods().items()]
    )
    _table("Suites", ["name", "title"], [(name, _title(path)) for name, path in available().items()])
    _table("Data sources", ["source", "what it reads"], [(name, source.summary) for name, source in SOURCES.items()])
    console.print("Options of a method: dbn-bench show NAME", highlight=False)


@app.command()
def show(name: Annotated[str, typer.Argument(help="A method.")], plugin: Plugins = None) -> None:
    """Show the options of a method, with their defaults."""
    from dbn_core.registry import load_plugin, parse_method

    for path in plugin or []:
        load_plugin(path)
    method = parse_method(name)
    console.print(
        f"{method.name}: {method.summary()}  {method.reference}", markup=False, highlight=False, soft_wrap=True
    )
    fields = type(method).Config.model_fields
    if fields:
        values = method.config.model_dump()
        _table(
            "Options",
            ["option", "value", "meaning"],
            [(k, str(values[k]), f.description or "") for k, f in fields.items()],
        )


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A method or spec, for example dbn or 'dbn[steps=1]'.")],
    plugin: Plugins = None,
) -> None:
    """Run the contract tests over a method, a plugin's too."""
    from dbn_core.registry import canonical, load_plugin, parse_method

    for path in plugin or []:
        load_plugin(path)
    method = parse_method(name)
    from benchmarks.check import check_method

    failed = 0
    for verdict in check_method(method):
        failed += bool(verdict.problem)
        mark = "FAIL" if verdict.problem else "ok  "
        style = "red" if verdict.problem else None
        console.print(f"{mark}  {verdict.name}", style=style, markup=False, highlight=False, soft_wrap=True)
        if verdict.problem:
            console.print(f"      {verdict.problem}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise SpecError(f"'{canonical(method)}' breaks {failed} point(s) of the contract: mend them, then check again.")
    console.print(f"'{canonical(method)}' keeps the contract.", markup=False, highlight=False, soft_wrap=True)


@app.command()
def status(
    suite: SuiteName = "digits",
    store: StoreDir = _STORE,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data, for sources that read files.")] = None,
    plugin: Plugins = None,
    set_: Set = None,
) -> None:
    """Show how much of a suite is done."""
    from benchmarks.run import plan_suite, suite_status
    from benchmarks.store import Store
    from benchmarks.suite import load_suite
    from dbn_core.registry import load_plugin

    for path in plugin or []:
        load_plugin(path)
    chosen, the_store = load_suite(suite, _overrides(set_, data_root, False)), Store(store)
    counts = suite_status(plan_suite(chosen, the_store), the_store)
    _table(
        f"Suite {chosen.name} in {store}",
        ["artefacts", "done", "planned"],
        [(k, str(d), str(p)) for k, (d, p) in counts.items()],
    )


@app.command()
def claims(
    rows: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a suite's result rows; may be repeated.  [default: all of results/reference]"),
    ] = None,
    reports: ReportsDir = _REPORTS,
) -> None:
    """Decide the papers' claims on result rows, and write reports/claims."""
    from benchmarks.claims.render import SHOWN, reference_folders, render_claims

    found = render_claims(rows or reference_folders(), reports / "claims")
    columns = ["claim", "suite", "method", "verdict", "effect of the test that decides"]
    lines: list[tuple[str, ...]] = [
        (v.claim, v.suite, v.subject, SHOWN[v.verdict], v.deciding.line) for v in found if v.measured
    ]
    _table("Claims", columns, lines)
    console.print(f"{len(found) - len(lines)} more are undecided, as there are no rows for them.", highlight=False)
    console.print(f"Page: {reports / 'claims' / 'index.html'}", markup=False, highlight=False, soft_wrap=True)


def _overrides(pairs: list[str] | None, data_root: Path | None, download: bool) -> dict[str, Any]:
    import tomllib

    values: dict[str, Any] = {}
    for pair in pairs or []:
        key, separator, text = pair.partition("=")
        if not separator or not key.strip():
            raise SpecError(f"--set {pair}: write KEY=VALUE, for example repetitions=5.")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = text  # an unquoted string
    if data_root is not None:
        values["data.root"] = str(data_root)
    if download:
        values["data.download"] = True
    return values


def _title(path: Path) -> str:
    import tomllib

    return str(tomllib.loads(path.read_text(encoding="utf-8")).get("title", ""))


def _table(title: str, columns: list[str], rows: list[tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False, box=None)
    for index, column in enumerate(columns):
        table.add_column(column, style="bold" if index == 0 else None, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def main() -> None:
    """Run the command line; an error that a user can mend is one sentence and exit code 1."""
    try:
        app()
    except BenchError as error:
        errors.print(f"Error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        errors.print("Stopped; what was finished is kept, and the same command goes on from there.")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
