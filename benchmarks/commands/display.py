"""What `score` and `compare` share: options on predictions, names and numbers of scores, tables, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from benchmarks.commands.common import console
from dbn_core.errors import SpecError

if TYPE_CHECKING:
    from dbn_core.tasks.base import Task
    from dbn_core.tasks.class_scores import ClassScores

Labels = Annotated[
    Path | None,
    typer.Option(help="Class numbers of the test examples: .npy, .npz, .csv, .parquet or .txt.", metavar="FILE"),
]
ArrayKey = Annotated[str | None, typer.Option(help="The array of an .npz that has the predictions.", metavar="NAME")]
Values = Annotated[str, typer.Option(help="auto, probabilities, log-probabilities or logits.")]


def number(text: str) -> float:
    """A number on the command line.

    >>> number("1.2e6")
    1200000.0
    """
    try:
        return float(text)
    except ValueError:
        raise SpecError(f"'{text}' is no number: write for example 1200000 or 1.2e6.") from None


Macs = Annotated[
    float | None,
    typer.Option(
        help="Multiply-adds (FLOPs / 2) of one whole prediction; unknown if not stated.",
        parser=number,
        metavar="NUMBER",
    ),
]
Params = Annotated[
    float | None, typer.Option(help="Parameters of the whole predictor.", parser=number, metavar="NUMBER")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")]

EQUIVALENTS = {
    "dee_raw": "Deep-ensemble equivalent, raw",
    "dee_cal": "Deep-ensemble equivalent, calibrated",
    "dee_augrc": "Deep-ensemble equivalent, AUGRC",
}


def score_names(task: Task) -> Mapping[str, str]:
    """Names of the scores of a task, in the order of tables."""
    return {name: score.name for name, score in task.scores.items()}


def score_number(task: Task, metric: str, value: float, sign: str = "") -> str:
    """A score as tables show it; ``sign`` is ``+`` for differences."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return f"{value:{sign}}".replace("inf", "∞")
    return f"{100 * value:{sign}.2f} %" if task.scores[metric].percent else f"{value:{sign}.4f}"


def caveat_lines(scores: ClassScores) -> list[str]:
    """What to know of the scores of predictions, in sentences."""
    from dbn_core.tasks.class_scores import caveats

    return [f"{line[0].upper()}{line[1:]}" for line in caveats([scores])]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table without frames or colours, its numbers to the right."""
    table = Table(show_edge=False, pad_edge=False, box=None)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # A line that a narrow terminal breaks can still be read; digits that are cut off cannot.
    table.width = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.print(table, crop=False)


def print_json(value: Any) -> None:
    """Print one JSON object."""
    typer.echo(json.dumps(_plain(value), ensure_ascii=False))


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: unknown is null, a censored equivalent the text "inf" or "-inf"."""
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
