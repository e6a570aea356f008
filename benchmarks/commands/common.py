"""What the commands of ``dbn-bench`` share: consoles, options, tables."""

from __future__ import annotations

import json
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dbn_core.errors import SpecError, UnknownNameError

if TYPE_CHECKING:
    from benchmarks.store.artefacts import Store
    from benchmarks.suite.plan import Plan

console, errors = Console(), Console(stderr=True)


def complete_suite(incomplete: str) -> list[str]:
    """Built-in suites, for shell completion."""
    from benchmarks.suite.builtin import available

    return [name for name in available() if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """Methods, for shell completion."""
    from dbn_core.methods.registry import methods

    return [name for name in methods() if name.startswith(incomplete)]


SuiteName = Annotated[
    str,
    typer.Argument(
        help="A built-in suite (see `dbn-bench list`) or the path of a .toml file.", autocompletion=complete_suite
    ),
]
MethodSpec = Annotated[
    str,
    typer.Argument(help="A method or its spec, for example dbn or 'dbn[steps=1]'.", autocompletion=complete_method),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        help="Python file that registers methods or networks of your own, as given to the run; may be repeated.",
        metavar="FILE",
    ),
]
StoreDir = Annotated[Path, typer.Option("--store", help="Folder of trained weights and predictions.")]
RowsDir = Annotated[
    Path | None, typer.Option("--rows", help="Folder of the result rows.  [default: results/runs/SUITE]")
]
ReportsDir = Annotated[
    Path | None, typer.Option("--reports", help="Folder that gets one report folder a suite.  [default: reports/runs]")
]
Publish = Annotated[
    bool,
    typer.Option(
        "--publish", help="For maintainers: write the committed results/reference/SUITE and reports/SUITE instead."
    ),
]
DataRoot = Annotated[Path | None, typer.Option(help="Folder of the data, for sources that read files.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change one key of the suite, for example repetitions=5 or data.root=/data/cifar.",
        metavar="KEY=VALUE",
    ),
]

Add = Annotated[
    list[str] | None,
    typer.Option(
        "--add",
        help="Add a method to the suite, built in or of a --plugin: its spec and size, for example mine@3 or "
        "'ed[lr_scale=1]@3'; may be repeated.  Give it again to `status`, `compare` and `export`.",
        metavar="METHOD@SIZE",
    ),
]

STORE = Path("results/store")
# What users run lies in folders that git ignores; what is committed is written only when asked for.
RUNS, RUN_REPORTS = Path("results/runs"), Path("reports/runs")
REFERENCE, REPORTS = Path("results/reference"), Path("reports")


def output_dirs(suite: str, rows: Path | None, reports: Path | None, publish: bool) -> tuple[Path, Path]:
    """Folder of the suite's rows, and folder of the reports.

    Raises:
        SpecError: ``--publish`` with another folder.
    """
    if publish and (rows or reports):
        raise SpecError("--publish names the committed folders itself: drop it, or drop --rows and --reports.")
    folders = (REFERENCE, REPORTS) if publish else (RUNS, RUN_REPORTS)
    return rows or folders[0] / suite, reports or folders[1]


_OF_THE_MACHINE = ("--store", "--jobs", "--threads")  # options that change no result


def command_line(publish: bool = False) -> str:
    """The command line as the user typed it; published ones without the place of the store and the number of processes.

    The command has one name, also where it is run as a module.
    """
    words = sys.argv[1:]
    if publish:
        words = [
            word
            for before, word in pairwise(["", *words])
            if before not in _OF_THE_MACHINE and word.partition("=")[0] not in _OF_THE_MACHINE
        ]
    return shlex.join(["dbn-bench", *words])


def echo_report(report: Path, rows: Path) -> None:
    """The last lines of a command that wrote a report: where it is, and how to open it."""
    echo(f"Rows:   {rows}")
    echo(f"Report: {report}, and report.md in the same folder")
    echo(f"Open it in a browser: {report.resolve().as_uri()}")


def echo(text: str) -> None:
    """Print a line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def overrides(pairs: list[str] | None, data_root: Path | None, download: bool) -> dict[str, Any]:
    """Suite keys that ``--set``, ``--data-root`` and ``--download`` change."""
    import tomllib

    values: dict[str, Any] = {}
    for pair in pairs or []:
        key, separator, text = pair.partition("=")
        if not separator or not key.strip():
            raise SpecError(f"--set {pair}: write KEY=VALUE, for example repetitions=5.")
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            values[key.strip()] = text  # an unquoted string
    if data_root is not None:
        values["data.root"] = str(data_root)
    if download:
        values["data.download"] = True
    return values


def load_plugins(paths: list[str] | None) -> None:
    """Import the files of ``--plugin``."""
    from dbn_core.methods.registry import load_plugin

    for path in paths or []:
        load_plugin(path)


def open_store(folder: Path) -> Store:
    """The store, which reads through to released results."""
    from benchmarks.store.artefacts import Store
    from benchmarks.store.released import released_root, released_suites

    return Store(folder, released_suites(released_root()))


def load_plan(
    name: str,
    store: Path,
    set_: list[str] | None,
    data_root: Path | None,
    plugin: list[str] | None,
    add: list[str] | None = None,
) -> tuple[Plan, Store]:
    """The plan of a suite as the options change it, with plugins loaded, and the store."""
    from benchmarks.suite.load import load_suite, with_methods
    from benchmarks.work.planning import plan_suite

    load_plugins(plugin)
    the_store = open_store(store)
    try:
        suite = with_methods(load_suite(name, overrides(set_, data_root, False)), add or [])
        plan = plan_suite(suite, the_store)
    except UnknownNameError as error:
        raise UnknownNameError(f"{error}{_as_the_run(suite_name(name))}") from error
    plan.edited = _edited(suite.name, plugin or [])
    options = {"--plugin": plugin, "--add": add, "--set": set_, "--data-root": data_root and [str(data_root)]}
    if store != STORE:
        options["--store"] = [str(store)]
    words = [word for option, values in options.items() for value in values or [] for word in (option, value)]
    plan.command = shlex.join(["dbn-bench", "run", name, *words])
    return plan, the_store


def suite_name(suite: str) -> str:
    """The name of a suite, after which its folders are named, where it is given by name or by its file."""
    import tomllib

    if not suite.endswith(".toml"):
        return suite
    try:
        content = tomllib.loads(Path(suite).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = {}
    return str(content.get("name") or Path(suite).stem)


def _last_run(suite: str) -> dict[str, Any]:
    """``meta.json`` of the last run of a suite in the working folder; empty without one."""
    try:
        return dict(json.loads((RUNS / suite / "meta.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _as_the_run(suite: str) -> str:
    command = _last_run(suite).get("command")
    return f" The rows in '{RUNS / suite}' are of `{command}`: give the same file and --plugin." if command else ""


def _edited(suite: str, plugins: list[str]) -> str:
    from dbn_core.methods.registry import files_loaded

    then, now = _last_run(suite).get("plugins", {}), files_loaded(plugins)
    known = {Path(file).resolve(): mark for file, mark in then.items()}
    edited = [file for file, mark in now.items() if known.get(Path(file).resolve(), mark) != mark]
    if not edited:
        return ""
    return (
        f"{', '.join(edited)} has changed since the run whose rows are in '{RUNS / suite}', and what is trained with a "
        "network belongs to its exact file: undo the change, or run again."
    )


def table(title: str, columns: list[str], rows: list[tuple[str, ...]]) -> None:
    """Print a table without frames."""
    drawn = Table(title=title, title_justify="left", show_edge=False, pad_edge=False, box=None)
    for index, column in enumerate(columns):
        drawn.add_column(column, style="bold" if index == 0 else None, overflow="fold")
    for row in rows:
        drawn.add_row(*map(escape, row))
    console.print(drawn)
    console.print()
