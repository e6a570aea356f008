"""``list``: the methods, suites and data sources."""

from __future__ import annotations

from pathlib import Path

from benchmarks.commands.common import Plugins, echo, load_plugins, table


def list_(plugin: Plugins = None) -> None:
    """Show methods, suites and data sources."""
    from benchmarks.suite.builtin import available
    from dbn_core.data.sources import SOURCES
    from dbn_core.methods.registry import methods

    load_plugins(plugin)
    for task in dict.fromkeys(["classification", *(method.task for method in methods().values())]):
        found: list[tuple[str, ...]] = [
            (name, m.summary(), m.networks or "–", m.reference) for name, m in methods().items() if m.task == task
        ]
        table(f"Methods of {task}", ["name", "what it is", "cost in networks", "reference"], found)
    table("Suites", ["name", "title"], [(name, _title(path)) for name, path in available().items()])
    table("Data sources", ["source", "what it reads"], [(name, source.summary) for name, source in SOURCES.items()])
    echo(
        "M is the size. Members are trained by the suite, and are not counted. Options of a method: dbn-bench show NAME"
    )


def _title(path: Path) -> str:
    import tomllib

    with path.open(encoding="utf-8") as lines:  # parsing whole suites takes longer than everything else
        return str(tomllib.loads(next(line for line in lines if line.startswith("title")))["title"])
