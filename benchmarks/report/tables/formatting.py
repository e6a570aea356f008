"""The tables of the report: how a number becomes a cell, and a table becomes Markdown, LaTeX or HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from tabulate import tabulate

from benchmarks.report.load import ADDED_FAMILY, MARKED_SCORES, REFERENCE_FAMILY, Results, Tuning
from dbn_core.tasks.classification import Classification

MISSING = "–"
PERCENT = tuple(name for name, score in Classification.scores.items() if score.percent)
HIGHER_IS_BETTER = tuple(name for name, score in Classification.scores.items() if score.better == "higher")
SCORE_NAMES = {name: score.heading for name, score in Classification.scores.items() if score.better}
_CHOSEN = {"validation": "validation", "test": "test (!)", "paper": "the paper"}
_MAIN_SCORES = ("acc", "nll", "brier", "ece", "ece_debiased", "cnll", "cece", "cece_debiased")
_COMPARED = ("nll", "cnll", "acc")
ALPHA = 0.05


@dataclass(frozen=True)
class Cell:
    """A formatted value; `mark` is "best" (bold), "tied" (underlined), "published" (grey on the web page) or ""."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Block:
    """Rows under one heading; a rule separates the blocks of a table."""

    title: str
    rows: list[list[Cell]] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """Columns, and blocks of rows; the first `text_columns` columns are text (left), the others numbers (right)."""

    header: list[str]
    blocks: list[Block]
    text_columns: int = 1


# --- cells ------------------------------------------------------------------------------------------------------------


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


def difference_text(row: pd.Series) -> str:
    """Return a row of the comparisons as `−0.012 [−0.020, −0.004]`; accuracies and ECE in percentage points."""
    scale, digits = (100, 2) if row["metric"] in PERCENT else (1, 4)
    value, low, high = (
        f"{row[key] * scale:+.{digits}f}".replace("-", "−").replace("inf", "∞") for key in ("difference", "low", "high")
    )
    return value if math.isnan(row["low"]) else f"{value} [{low}, {high}]"


def score_cells(frame: pd.DataFrame, score: str) -> list[Cell]:
    """Return one cell a row for a score, all with the same number of digits."""
    scale = 100 if score in PERCENT else 1
    mean, low, high = (frame[f"{score}_{end}"] * scale for end in ("mean", "low", "high"))
    digits = decimals((high - low) / 2, *((1, 2) if score in PERCENT else (3, 4)))
    marks = frame[f"{score}_mark"] if score in MARKED_SCORES else [""] * len(frame)
    return [Cell(with_interval(m, a, b, digits), mark) for m, a, b, mark in zip(mean, low, high, marks, strict=True)]


# --- tables -----------------------------------------------------------------------------------------------------------


def main_table(results: Results) -> Table:
    """Return the table of quality and cost: deep ensembles as the yardstick, then the other methods."""
    frame, noisy, most = results.summary, results.summary["latency_noisy"], results.max_size
    batch = (results.meta.get("latency") or {}).get("batch_size", "large")
    columns: dict[str, list[Cell]] = {
        "Method": [Cell(label) for label in frame["label"]],
        "Size": [Cell(str(size)) for size in frame["size"]],
    }
    columns |= {SCORE_NAMES[score]: score_cells(frame, score) for score in _MAIN_SCORES if score in results.scores}
    for kind, name in (("raw", "DEE (raw) ↑"), ("cal", "DEE (calibrated) ↑")):
        values = zip(frame[f"dee_{kind}"], frame[f"dee_{kind}_low"], frame[f"dee_{kind}_high"], strict=True)
        columns[name] = [Cell(dee_text(*value, most)) for value in values]
        beyond = np.isinf(frame[f"dee_{kind}"])  # where sizes were measured, the fitted curve would contradict them
        if f"dee_{kind}_fit" in frame and beyond.any():
            fits = zip(*(frame[f"dee_{kind}_fit{end}"] for end in ("", "_low", "_high")), strict=True)
            texts = [fit_text(*fit) if out else MISSING for fit, out in zip(fits, beyond, strict=True)]
            columns[name.replace(" ↑", " fitted ↑")] = [Cell(text) for text in texts]
    columns[SCORE_NAMES["kl_to_ensemble"]] = score_cells(frame, "kl_to_ensemble")
    stated = frame["cost_stated"].map({True: "*", False: ""})
    for key, name in (("macs_rel", "FLOPs rel."), ("params_rel", "Params rel.")):
        columns[name] = [
            Cell(ratio_text(x) + mark * math.isfinite(x)) for x, mark in zip(frame[key], stated, strict=True)
        ]
    for key, name in (
        ("latency_b1_ratio", "Latency rel., batch 1"),
        ("latency_batch_ratio", f"Latency rel., batch {batch}"),
    ):
        columns[name] = [Cell(ratio_text(x, flag)) for x, flag in zip(frame[key], noisy, strict=True)]
    columns["Own training (s)"] = [Cell(seconds_text(x)) for x in frame["train_seconds"]]

    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    titles = ("Deep ensembles (the yardstick)", "Other methods", "Controls", "From outside, cost as stated")
    blocks = [Block(title) for title in titles]
    for row, family, control in zip(rows, frame["family"], frame["control"], strict=True):
        place = 0 if family == REFERENCE_FAMILY else 3 if family == ADDED_FAMILY else 2 if control else 1
        blocks[place].rows.append(row)
    return Table(list(columns), [block for block in blocks if block.rows])


def sizes_table(results: Results, scores: Sequence[str] = ("acc", "nll", "cnll")) -> Table:
    """Return one block a score: a row for each label, a column for each ensemble size."""
    frame = results.summary
    sizes = sorted(set(frame["size"]))
    blocks = []
    for score in scores:
        keys = zip(frame["label"], frame["size"], strict=True)
        cells = dict(zip(keys, score_cells(frame, score), strict=True))
        labels = dict.fromkeys(frame["label"])
        rows = [[Cell(label), *(cells.get((label, size), Cell("")) for size in sizes)] for label in labels]
        blocks.append(Block(SCORE_NAMES[score], rows))
    return Table(["Method", *(f"{size} member{'s'[: size > 1]}" for size in sizes)], blocks)


def comparisons_table(results: Results) -> Table:
    """Return the paired differences to deep ensembles: a block for each metric, a column for each reference.

    The deep ensembles of the methods' own sizes share one column.  Differences to other methods, which the claims page
    reads, and those of ECE stay in the file.
    """
    frame = results.comparisons[results.comparisons["reference"].str.startswith("DE-")]
    frame = frame[frame["metric"].isin(_COMPARED)]
    own = (frame["reference"] == "DE-" + frame["size"].astype(int).astype(str)) & (frame["size"] > 1)
    frame = frame.assign(reference=frame["reference"].where(~own, "DE of that size"))
    references = list(dict.fromkeys(frame["reference"]))
    blocks = []
    for metric in dict.fromkeys(frame["metric"]):
        rows = compared_rows(frame[frame["metric"] == metric], references, _comparison_cell)
        blocks.append(Block(_metric_name(metric), rows))
    return Table(["Method", "Size", *(f"minus {name}" for name in references)], blocks)


def compared_rows(
    frame: pd.DataFrame, references: Sequence[str], cell: Callable[[pd.Series], Cell]
) -> list[list[Cell]]:
    """Return a row for each label and size of the comparisons by one score, with a cell for each reference."""
    found: dict[tuple[str, int], dict[str, Cell]] = {}
    for _, row in frame.drop_duplicates(["label", "size", "reference"]).iterrows():
        found.setdefault((row["label"], row["size"]), {})[row["reference"]] = cell(row)
    return [
        [Cell(label), Cell(str(size)), *(cells.get(name, Cell("")) for name in references)]
        for (label, size), cells in found.items()
    ]


def tuning_table(results: Results) -> Table | None:
    """How the settings of each method were chosen; None where that is recorded of none."""
    stated = results.meta.get("tuning")
    if not stated or not any(stated.values()):
        return None
    blocks = []
    for control, title in ((False, "Methods"), (True, "Controls")):
        rows = []
        for label in dict.fromkeys(results.summary.loc[results.summary["control"] == control, "label"]):
            if label not in stated:
                continue
            how = Tuning.model_validate(stated[label]) if stated[label] else None
            tried = "not recorded" if how is None or how.settings is None else str(how.settings)
            words = (_CHOSEN.get(how.on, how.on), how.varied) if how else ("", "")
            rows.append([Cell(label), Cell(tried), *map(Cell, words)])
        blocks += [Block(title, rows)] if rows else []
    return Table(["Method", "Settings tried", "Chosen by", "Varied"], blocks, text_columns=4) if blocks else None


def fewer_repetitions(results: Results) -> str:
    """A sentence, after a space, on the rows of fewer repetitions than others have; empty where all have as many."""
    frame = results.summary[results.summary["n"] < results.summary["n"].max()]
    if frame.empty:
        return ""
    rows = ", ".join(f"{row['label']} (size {row['size']}) of {int(row['n'])}" for _, row in frame.iterrows())
    return f" Means of fewer than {int(results.summary['n'].max())} repetitions: {rows}."


def _comparison_cell(row: pd.Series) -> Cell:
    if math.isnan(row["difference"]):
        return Cell(MISSING)
    p_value = row.get("p_holm", row["p_value"])
    if math.isnan(p_value):
        return Cell(difference_text(row))
    text = f"{difference_text(row)}, {p_text(p_value)}"
    if not significant(row):
        return Cell(text, "tied")
    return Cell(text, "best" if (row["difference"] > 0) == (row["metric"] in HIGHER_IS_BETTER) else "")


def significant(row: pd.Series) -> bool:
    """Whether a row of the comparisons holds a difference: by the corrected p-value, in older rows by the interval."""
    return bool(row["p_holm"] <= ALPHA) if "p_holm" in row else not row["low"] <= 0 <= row["high"]


def _metric_name(metric: str) -> str:
    return SCORE_NAMES.get(metric, metric).replace(" % ", " (percentage points) ")


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


def to_markdown(table: Table) -> str:
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


def to_latex(table: Table) -> str:
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
