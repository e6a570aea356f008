"""What `run --dry-run` and `new` show before anything is trained."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.commands.common import echo, table

if TYPE_CHECKING:
    from benchmarks.store.artefacts import Store
    from benchmarks.suite.plan import Cell, Plan
    from benchmarks.work.make import Options


def show_plan(plan: Plan, store: Store, options: Options) -> None:
    """Print a plan by method and by kind of artefact, and its estimated cost."""
    from benchmarks.work.estimate import announce
    from benchmarks.work.make import select_cells
    from benchmarks.work.schedule import missing_nodes

    cells = select_cells(plan, options.only)
    nodes = missing_nodes(plan, store, {key for cell in cells for key in cell.results})
    by_method: dict[str, list[Cell]] = {}
    for cell in cells:
        by_method.setdefault(cell.label, []).append(cell)
    table(
        f"Suite {plan.suite.name}: {plan.suite.title}",
        ["method", "sizes", "repetitions", "to measure"],
        [
            (
                label,
                " ".join(str(size) for size in sorted({cell.size for cell in group})),
                str(len({cell.repetition for cell in group})),
                str(sum(any(key in nodes for key in cell.results) for cell in group)),
            )
            for label, group in by_method.items()
        ],
    )
    planned, missing = Counter(n.kind for n in plan.nodes.values()), Counter(n.kind for n in nodes.values())
    table("Artefacts", ["kind", "planned", "to make"], [(k, str(n), str(missing[k])) for k, n in planned.items()])
    echo(announce(plan, nodes, options.processes, options.threads, options.device) or "Nothing is left to train.")
