"""The report of a suite that is not about classification: everything in it follows from what its task says."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.report.figures.cache import DRAWN_BY, Note, key_of, standing, write
from benchmarks.report.figures.style import in_series
from benchmarks.report.load import Results
from benchmarks.report.page.captions import Caption
from benchmarks.report.page.explorer import explorer
from benchmarks.report.page.pages import as_lines, facts, to_csv, write_pages
from benchmarks.report.page.quantities import score_title
from benchmarks.report.tables import formatting
from benchmarks.report.tables.formatting import Block, Cell, Table
from benchmarks.report.tables.records import recorded_tables


def render_task(results: Results, rows_dir: Path, out_dir: Path) -> list[Path]:
    """Write the pages, tables and figures of a suite; return the files of the report."""
    from benchmarks.report.figures.task_figures import figure_captions, save_task_figures

    main, comparisons = main_table(results), comparisons_table(results)
    folder = out_dir / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    columns = ["label", "method", "family", "size", "n", *_columns(results), *results.costs, "latency_noisy"]
    frames = {"main": results.summary[columns], "comparisons": results.comparisons}
    if results.records is not None:
        frames["records"] = results.records
    for name, frame in frames.items():
        write(folder / f"{name}.csv", to_csv(frame))
    for name, table in {"main": main, "comparisons": comparisons}.items():
        write(folder / f"{name}.tex", formatting.to_latex(table))
    captions, exhibits = figure_captions(results, rows_dir), rows_dir / "exhibits.safetensors"
    about = repr([results.meta.get(name) for name in ("task", "series", "controls")]).encode()
    shown = exhibits.read_bytes() if exhibits.is_file() else b""
    note = Note(out_dir)
    drawn = standing(
        note,
        out_dir / "figures",
        captions,
        key_of(DRAWN_BY, results.summary.to_csv().encode(), about, shown),
        lambda names: save_task_figures(results, rows_dir, out_dir / "figures", names),
    )
    images = {name: base64.b64encode(files[f"{name}.png"]).decode() for name, files in drawn.items()}
    context = _context(results, main, comparisons, captions) | {"images": images}
    context |= {"explorer": explorer(in_series(results), note, out_dir / "report.html")}
    written = [*(folder / f"{n}.csv" for n in frames), *(folder / f"{n}.tex" for n in ("main", "comparisons"))]
    written += [out_dir / "figures" / f"{name}.{end}" for name in captions for end in ("png", "pdf")]
    return written + write_pages(out_dir, "task", context, calibrates=False)


def _columns(results: Results) -> list[str]:
    assert results.task
    scores = [f"{s}_{end}" for s in results.task["scores"] for end in ("mean", "low", "high", "mark")]
    curves = [f"{c}{fit}{end}" for c in results.task["curves"] for fit in ("", "_fit") for end in ("", "_low", "_high")]
    return [column for column in (*scores, *curves) if column in results.summary]


def main_table(results: Results) -> Table:
    """Return the table of all scores and costs: the yardstick first, then the other methods."""
    task, frame, most = results.task, results.summary, results.max_size
    assert task
    columns: dict[str, list[Cell]] = {
        "Method": [Cell(label) for label in frame["label"]],
        "Size": [Cell(str(size)) for size in frame["size"]],
    }
    for name, score in task["scores"].items():
        if frame[f"{name}_mean"].notna().any():
            columns[score_title(name, score)] = _cells(frame, name, score)
    for name in task["curves"]:
        values = zip(*(frame[f"{name}{end}"] for end in ("", "_low", "_high")), strict=True)
        columns["equivalent members ↑"] = [
            Cell(formatting.dee_text(value, low, high, most)) for value, low, high in values
        ]
    stated = frame["cost_stated"].map({True: "*", False: ""})
    columns["FLOPs rel."] = [
        Cell(formatting.ratio_text(x) + mark * math.isfinite(x))
        for x, mark in zip(frame["macs_rel"], stated, strict=True)
    ]
    columns["Own training (s)"] = [Cell(formatting.seconds_text(x)) for x in frame["train_seconds"]]
    blocks = [Block("The yardstick"), Block("Other methods"), Block("Controls")]
    for row, family, control in zip(
        zip(*columns.values(), strict=True), frame["family"], frame["control"], strict=True
    ):
        blocks[0 if family == task["reference"] else 2 if control else 1].rows.append(list(row))
    return Table(list(columns), [block for block in blocks if block.rows])


def _cells(frame: pd.DataFrame, name: str, score: Mapping[str, Any]) -> list[Cell]:
    scale = 100 if score["percent"] else 1
    mean, low, high = (frame[f"{name}_{end}"] * scale for end in ("mean", "low", "high"))
    digits = formatting.decimals((high - low) / 2, *((1, 2) if score["percent"] else (0, 4)))
    marks = frame[f"{name}_mark"] if score["better"] else [""] * len(frame)
    if (mean.isna() | ((mean % 1 == 0) & (low == high))).all():  # counted, not estimated
        low, high, digits = low * math.nan, high * math.nan, 0
    return [
        Cell(formatting.with_interval(value, start, end, digits), mark)
        for value, start, end, mark in zip(mean, low, high, marks, strict=True)
    ]


def comparisons_table(results: Results) -> Table:
    """Return the paired differences: a block for each score, a column for each reference."""
    task, frame = results.task, results.comparisons
    assert task
    label = task["reference_label"]
    own = (frame["reference"] == f"{label}-" + frame["size"].astype(int).astype(str)) & (frame["size"] > 1)
    frame = frame.assign(reference=frame["reference"].where(~own, f"{label} of that size"))
    references, blocks = list(dict.fromkeys(frame["reference"])), []
    for metric in dict.fromkeys(frame["metric"]):
        score = task["scores"][metric]
        part = frame[frame["metric"] == metric]
        rows = formatting.compared_rows(part, references, partial(_difference, score=score))
        blocks.append(Block(score_title(metric, score), rows))
    return Table(["Method", "Size", *(f"minus {name}" for name in references)], blocks)


def _difference(row: pd.Series, score: Mapping[str, Any]) -> Cell:
    if not math.isfinite(row["difference"]):
        return Cell(formatting.MISSING)
    scale = 100 if score["percent"] else 1
    value, low, high = (f"{row[key] * scale:+.3g}".replace("-", "−") for key in ("difference", "low", "high"))
    if math.isnan(row["p_holm"]):
        return Cell(value)
    text = f"{value} [{low}, {high}], {formatting.p_text(row['p_holm'])}"
    if not formatting.significant(row):
        return Cell(text, "tied")
    return Cell(text, "best" if (row["difference"] > 0) == (score["better"] == "higher") else "")


def _context(results: Results, main: Table, comparisons: Table, captions: Mapping[str, Caption]) -> dict[str, Any]:
    meta, task = results.meta, results.task
    assert task
    meanings = [f"{score['title']}: {score['meaning']}" for score in task["scores"].values() if score["meaning"]]
    return {
        "title": meta.get("title") or meta.get("suite") or "Benchmark report",
        "description": meta.get("description", ""),
        "failures": [f for f in meta.get("failures") or [] if isinstance(f, Mapping)],
        "lead": _lead(results),
        "captions": captions,
        "main": main,
        "comparisons": comparisons,
        "records": recorded_tables(results),
        "tuning": formatting.tuning_table(results),
        "marks": "Bold: best mean among the methods that are no yardstick. Underlined: not significantly different "
        "from it (paired t test, corrected by Holm, 5 %). ↑ higher is better, ↓ lower is better; “rel.” is relative to "
        "one network of the yardstick."
        + (" An asterisk marks a cost that was stated, not counted." if results.summary["cost_stated"].any() else "")
        + formatting.fewer_repetitions(results),
        "differences": "Method minus reference, with a 95 % interval and p-value (corrected by Holm); bold: "
        "significantly better than the reference; underlined: not significantly different; plain: significantly worse.",
        "facts": facts(meta, results),
        "budget": as_lines(meta.get("budget")),
        "protocol": as_lines(meta.get("protocol")),
        "conventions": [
            "A value is the mean over repetitions ± half of its 95 % interval; square brackets hold a 95 % interval.",
            *results.statistics,
            *meanings,
        ],
        "noisy": bool(results.summary["latency_noisy"].any()),
        "command": meta.get("command", ""),
        "report_command": meta.get("report_command", ""),
    }


def _lead(results: Results) -> list[str]:
    """The yardstick, the best of the others by the headline, and whether that differs from one member."""
    task = results.task
    assert task
    name, score = task["headline"], task["scores"][task["headline"]]
    sentences, curve = [], results.reference[results.reference[f"{name}_mean"].notna()]
    if len(curve):
        first, last = curve.iloc[0], curve.iloc[-1]
        way = f" and {_value(last, name, score)} at size {last['size']}" if len(curve) > 1 else ""
        sentences.append(
            f"The yardstick is {first['label']}: its {score['title']} is {_value(first, name, score)} at size "
            f"{first['size']}{way}."
        )
    others = results.others[results.others[f"{name}_mean"].notna() & ~results.others["control"]]
    if others.empty:
        return [*sentences, "No other method was measured."]
    best = others.sort_values(f"{name}_mean", kind="stable", ascending=score["better"] == "lower").iloc[0]
    sentences.append(
        f"Among the other methods, {best['label']} (size {best['size']}) has the best {score['title']}, "
        f"{_value(best, name, score)}."
    )
    found = results.comparisons
    same = (found["label"] == best["label"]) & (found["size"] == best["size"]) & (found["metric"] == name)
    against = found[same & (found["reference"] == f"{task['reference_label']}-1")]
    if len(against) and math.isfinite(against.iloc[0]["p_holm"]):
        row = against.iloc[0]
        verdict = "significantly different from" if formatting.significant(row) else "not significantly different from"
        sentences.append(f"It is {verdict} {row['reference']} ({formatting.p_text(row['p_holm'])}).")
    return sentences


def _value(row: pd.Series, name: str, score: Mapping[str, Any]) -> str:
    scale = 100 if score["percent"] else 1
    return f"{row[f'{name}_mean'] * scale:.4g}" + (" %" if score["percent"] else "")
