"""One colour and one marker for each label, the same in every figure.  Imports no Matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchmarks.report.model import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REFERENCE_COLOUR = "#333333"
FAINT = "#d0d0d0"
CONTROL_COLOUR = "#9a9a9a"
# seaborn's palette "colorblind" without its grey, which is too near to the deep ensembles'.
PALETTE = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#ece133", "#56b4e9")
MARKERS = ("s", "^", "D", "P", "X", "p", "*", "h", "d", "H")
ADDED_COLOUR = "#e3007b"  # of rows that the reader added to the suite


@dataclass(frozen=True)
class LineStyle:
    """Colour and marker of a label."""

    colour: str
    marker: str
    reference: bool = False


def styles(results: Results) -> dict[str, LineStyle]:
    """Give each label but controls a colour-blind safe colour and a marker.

    The reference is dark grey; what the reader added has a colour that no other label has.
    """
    families = dict(zip(results.main["label"], results.main["family"], strict=True))
    added = set(results.main.loc[results.main["added"], "label"])
    others = [label for label, family in families.items() if family != results.task.reference]
    chosen = {label: LineStyle(REFERENCE_COLOUR, "o", True) for label in families if label not in others}
    for i, label in enumerate(others):
        colour = ADDED_COLOUR if label in added else PALETTE[i % len(PALETTE)]
        chosen[label] = LineStyle(colour, MARKERS[i % len(MARKERS)])
    return chosen


def in_series(results: Results) -> Results:
    """Give entries of one series its name, so that they share a style and are connected; `name` is their own label."""
    labels = results.summary["label"]
    return replace(results, summary=results.summary.assign(label=labels.replace(results.series), name=labels))


def literal(text: str) -> str:
    """Return the text so that Matplotlib does not take `$` for mathematics."""
    return text.replace("$", r"\$")


_LEGEND_ROW = 0.22  # height of a line of a legend, in inches


def _width(widths: Sequence[int], rows: int) -> int:
    """Characters side by side when a legend fills its columns, of ``rows`` entries each, from the top."""
    return sum(max(widths[start : start + rows]) for start in range(0, len(widths), rows))


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Put one legend for the whole figure below it, in as few rows as fit; a long one makes the figure higher."""
    if not handles:  # without a deep ensemble nothing has an equivalent
        return
    widths = [len(handle.get_label()) + 7 for handle in handles]
    budget = 12.2 * figure.get_figwidth()  # characters of the legend's size side by side
    rows = next(rows for rows in range(1, len(widths) + 1) if rows == len(widths) or _width(widths, rows) <= budget)
    columns = math.ceil(len(widths) / rows)
    # The axes keep the room that a legend of two rows leaves them.
    figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * max(0, rows - 2))
    figure.legend(handles=list(handles), loc="outside lower center", ncols=columns)


def open_frame(ax: Axes) -> None:
    """Leave only the left and the bottom axis."""
    ax.spines[["top", "right"]].set_visible(False)
