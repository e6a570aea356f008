"""How a number becomes text, and a table becomes Markdown or LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd
from tabulate import tabulate

from benchmarks.report.model import ScoreInfo

MISSING = "–"
ALPHA = 0.05


@dataclass(frozen=True)
class TableCell:
    """A formatted value; `mark` is "best" (bold), "tied" (underlined), "published" (grey on the web page) or ""."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class TableBlock:
    """Rows under one heading; a rule separates the blocks of a table."""

    title: str
    rows: list[list[TableCell]] = field(default_factory=list)


@dataclass(frozen=True)
class ReportTable:
    """Columns, and blocks of rows.

    Attributes:
        text_columns: how many columns are text, from the left; the others are numbers.
        details: columns that the web page hides until they are asked for.
        added: names (label, size) of rows that the reader added, which the web page highlights.
    """

    header: list[str]
    blocks: list[TableBlock]
    text_columns: int = 1
    details: frozenset[str] = frozenset()
    added: frozenset[tuple[str, str]] = frozenset()


# --- numbers ----------------------------------------------------------------------------------------------------------


def decimals(half_widths: Iterable[float], least: int, most: int) -> int:
    """Return the digits that show two significant figures of the median half-width; `most` when none is known."""
    known = sorted(w for w in half_widths if math.isfinite(w) and w > 0)
    if not known:
        return most
    return min(most, max(least, 1 - math.floor(math.log10(known[len(known) // 2]))))


def with_interval(mean: float, low: float, high: float, digits: int) -> str:
    """Return `mean ± half-width`, or the mean alone when there is no interval; `∞` for an infinite mean."""
    if math.isnan(mean):
        return MISSING
    if math.isinf(mean):
        return "∞" if mean > 0 else "−∞"
    half = (high - low) / 2
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if math.isfinite(half) else "")


def dee_text(value: float, low: float, high: float, max_size: int | None) -> str:
    """Return a deep-ensemble equivalent such as `2.41 [1.9, 3.0]`, `< 1` or `> 8`."""
    if math.isnan(value):
        return MISSING

    def one(x: float, digits: int) -> str:
        if math.isinf(x):
            return "< 1" if x < 0 else f"> {max_size or 'M'}"
        return f"{x:.{digits}f}"

    if math.isnan(low) or math.isnan(high) or (math.isinf(value) and low == high):
        return one(value, 2)
    return f"{one(value, 2)} [{one(low, 1)}, {one(high, 1)}]"


def fit_text(value: float, low: float, high: float) -> str:
    """Return an equivalent on the fitted curve, uncensored: `11.20 [9.1, 16.0]`, `∞ [21.3, ∞]` or `0.71`."""
    if math.isnan(value):
        return MISSING

    def one(x: float, digits: int) -> str:
        return "∞" if math.isinf(x) else f"{x:.{digits if x < 100 else 0}f}"

    ends = "" if math.isnan(low) or math.isnan(high) else f" [{one(low, 1)}, {one(high, 1)}]"
    return one(value, 2) + ends


def ratio_text(value: float, noisy: bool = False) -> str:
    """Return `1.33×`, with a tilde in front when the measurement was noisy."""
    return f"{'~' if noisy else ''}{value:.2f}×" if math.isfinite(value) else MISSING


def seconds_text(value: float) -> str:
    """Return seconds with as many digits as mean something."""
    return (f"{value:,.0f}" if value >= 10 else f"{value:.1f}") if math.isfinite(value) else MISSING


def p_text(value: float) -> str:
    """Return `p < 0.001` or `p = 0.012`."""
    if math.isnan(value):
        return f"p {MISSING}"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def difference_text(row: pd.Series, score: ScoreInfo, digits: int | None = None) -> str:
    """Return a difference as `−0.012 [−0.020, −0.004]`, in percentage points if the score is in per cent.

    Args:
        digits: decimals; three significant figures if None.
    """
    form = f"+.{digits}f" if digits is not None else "+.3g"
    value, low, high = (
        f"{row[key] * score.scale:{form}}".replace("-", "−").replace("inf", "∞")
        for key in ("difference", "low", "high")
    )
    return value if math.isnan(row["low"]) else f"{value} [{low}, {high}]"


def score_cells(
    frame: pd.DataFrame, name: str, score: ScoreInfo, digits: tuple[int, int] | None = None
) -> list[TableCell]:
    """Return one cell a row for a score, all with the same number of decimals.

    Args:
        digits: the least and the most decimals.
    """
    mean, low, high = (frame[f"{name}_{end}"] * score.scale for end in ("mean", "low", "high"))
    places = decimals((high - low) / 2, *(digits or ((1, 2) if score.percent else (0, 4))))
    marks = frame[f"{name}_mark"] if f"{name}_mark" in frame else [""] * len(frame)
    if score.better is None and (mean.isna() | ((mean % 1 == 0) & (low == high))).all():  # counted, not estimated
        low, high, places = low * math.nan, high * math.nan, 0
    return [
        TableCell(with_interval(value, start, end, places), mark)
        for value, start, end, mark in zip(mean, low, high, marks, strict=True)
    ]


def dee_cells(frame: pd.DataFrame, curve: str, max_size: int | None) -> list[TableCell]:
    """Return one cell a row for a deep-ensemble equivalent."""
    values = zip(frame[curve], frame[f"{curve}_low"], frame[f"{curve}_high"], strict=True)
    return [TableCell(dee_text(value, low, high, max_size)) for value, low, high in values]


def significant(row: pd.Series) -> bool:
    """Whether a row of the comparisons holds a difference."""
    return bool(row["p_holm"] <= ALPHA)


# --- notations --------------------------------------------------------------------------------------------------------

_TEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": "$<$", ">": "$>$", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "–": "--"},
    **{
        "≈": r"$\approx$",
        "†": r"\textdagger{}",
        "²": r"\textsuperscript{2}",
        "∞": r"$\infty$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
    },
}


def escape_tex(text: str) -> str:
    """Return the text with LaTeX's special characters, and the symbols that our tables use, written as commands."""
    return "".join(_TEX.get(char, char) for char in text)


def escape_md(text: object) -> str:
    """Return the text so that Markdown shows it literally, also inside a table."""
    plain = re.sub(r"([\\`*_|])", r"\\\1", " ".join(str(text).split()))
    # Intervals stay readable in the source: only "](" or "][" makes a link, and only "<" before a word makes a tag.
    plain = re.sub(r"\](?=[(\[])", r"\]", plain)
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", plain)


def to_markdown(table: ReportTable) -> str:
    """Return a pipe table; the blocks follow each other, each under a row with its title."""
    rows = []
    for block in table.blocks:
        if len(table.blocks) > 1:
            rows.append([f"*{escape_md(block.title)}*", *[""] * (len(table.header) - 1)])
        rows += [
            [_marked(escape_md(cell.text), cell.mark, "**{}**", "<ins>{}</ins>") for cell in row] for row in block.rows
        ]
    align = ["left"] * table.text_columns + ["right"] * (len(table.header) - table.text_columns)
    header = [escape_md(name) for name in table.header]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=align if rows else None)


def to_latex(table: ReportTable) -> str:
    """Return a booktabs tabular, as wide as the text, to be put inside a table environment with `\\input`."""
    columns = len(table.header)
    lines = [
        "% Needs \\usepackage{booktabs,graphicx}; put it in a document with",
        "% \\begin{table} \\input{this file} \\caption{...} \\end{table}",
        r"\resizebox{\linewidth}{!}{%",
        r"\begin{tabular}{" + "l" * table.text_columns + "r" * (columns - table.text_columns) + "}",
        r"\toprule",
        " & ".join(escape_tex(name) for name in table.header) + r" \\",
    ]
    for block in table.blocks:
        lines.append(r"\midrule")
        if len(table.blocks) > 1:
            lines.append(rf"\multicolumn{{{columns}}}{{l}}{{\emph{{{escape_tex(block.title)}}}}} \\")
        for row in block.rows:
            cells = (_marked(escape_tex(c.text), c.mark, r"\textbf{{{}}}", r"\underline{{{}}}") for c in row)
            line = " & ".join(cells) + r" \\"
            # After a row's end or a rule a bracket or an asterisk would be an option of that command.
            lines.append("{}" + line if line.lstrip().startswith(("[", "*")) else line)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}%", "}", ""])


def _marked(text: str, mark: str, best: str, tied: str) -> str:
    return {"best": best, "tied": tied}.get(mark, "{}").format(text)
