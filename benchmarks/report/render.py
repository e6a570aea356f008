"""Write the report of a suite from its result files: pages, tables and figures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.report.figures.cache import figures, write
from benchmarks.report.load import read_results
from benchmarks.report.model import ENDS, Results
from benchmarks.report.page.captions import captions
from benchmarks.report.page.pages import as_lines, facts, to_csv, write_pages
from benchmarks.report.page.sections import commands, conventions, gaps, sections, shift_tables
from benchmarks.report.tables import main
from benchmarks.report.tables.budget import budget_frame, budget_table
from benchmarks.report.tables.formatting import to_latex
from benchmarks.report.tables.published import published_frame, published_table
from benchmarks.report.tables.uncertainty import uncertainty_table


def render(rows_dir: Path, out_dir: Path) -> list[Path]:
    """Write `report.md`, `report.html`, `tables/` and `figures/` into `out_dir`; return the files of the report.

    Only the files of `rows_dir` are read, and the papers' figures if the suite asks for them (see `load_results`); the
    same files give the same bytes.  Figures that stand already are not drawn again (:mod:`.figures.cache`).

    Raises:
        ArtefactError: a result file or a column is missing or unreadable.
        StoreError: a file cannot be written; every file is then the old one or the new one, and whole.
        SpecError: the suite names a data set for which nothing is published.
    """
    results = read_results(rows_dir)
    budgets = budget_frame(results) if results.classifies and not results.lite else pd.DataFrame()
    written = _save_tables(results, budgets, out_dir / "tables")
    notes = captions(results)
    drawn = figures(results, notes, out_dir)
    written += [out_dir / "figures" / name for files in drawn.values() for name in files]
    images = {name: base64.b64encode(files[f"{name}.png"]).decode() for name, files in drawn.items()}
    return written + write_pages(out_dir, _context(results, budgets, notes) | {"images": images})


def _save_tables(results: Results, budgets: pd.DataFrame, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    columns = [*_columns(results, "main"), *results.costs, "latency_noisy"]
    frames = {"main": results.summary[columns], "comparisons": results.comparisons}
    texts = {"main": main.main_table(results), "comparisons": main.comparisons_table(results)} | shift_tables(results)
    if uncertainty := uncertainty_table(results):
        frames["uncertainty"] = results.summary[_columns(results, "uncertainty")]
        texts["uncertainty"] = uncertainty
    if results.classifies:
        frames["sizes"], texts["sizes"] = _wide_sizes(results.summary), main.sizes_table(results)
        if budget := budget_table(results, budgets):
            frames["budgets"], texts["budgets"] = budgets, budget
    if published := published_table(results):
        frames["published"], texts["published"] = published_frame(results), published
    frames |= {name: frame for name in ("records", "shifts") if (frame := getattr(results, name)) is not None}
    for name, frame in frames.items():
        write(folder / f"{name}.csv", to_csv(frame))
    for name, table in texts.items():
        write(folder / f"{name}.tex", to_latex(table))
    return [*(folder / f"{name}.csv" for name in frames), *(folder / f"{name}.tex" for name in texts)]


def _columns(results: Results, table: str) -> list[str]:
    """The columns of the summary behind a table: names, scores and equivalents."""
    names = [name for name, score in results.task.scores.items() if score.table == table]
    scores = [f"{name}_{end}" for name in names for end in ("mean", "low", "high", "mark")]
    curves = [f"{curve}{fit}{end}" for curve in results.curves_of(table) for fit in ("", "_fit") for end in ENDS]
    known = [column for column in (*scores, *curves) if column in results.summary]
    return ["label", "method", "family", "size", "n", *known]


def _wide_sizes(summary: pd.DataFrame) -> pd.DataFrame:
    """Return one row a metric and label, one column of means a size."""
    columns = {f"{score}_mean": score for score in ("acc", "nll", "cnll")}
    long = summary.melt(["label", "size"], list(columns), "metric", "mean").replace({"metric": columns})
    order = {key: i for i, key in enumerate(dict.fromkeys(zip(long["metric"], long["label"], strict=True)))}
    wide = long.pivot(index=["metric", "label"], columns="size", values="mean")
    return wide.loc[sorted(wide.index, key=order.__getitem__)].rename(columns=str).reset_index()


def _context(results: Results, budgets: pd.DataFrame, notes: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the two templates show, with a default for each part of `meta.json` that is missing."""
    from benchmarks.report.page.explorer import chart_html

    meta = results.meta
    failed, left_out = gaps(meta)
    footer = {name: as_lines(meta.get(name.lower())) for name in ("Budget", "Protocol")}
    return {
        "title": meta.get("title") or meta.get("suite") or "Benchmark report",
        "description": meta.get("description", ""),
        "failed": failed,
        "left_out": left_out,
        "sections": sections(results, budgets, notes),
        "captions": notes,
        "chart": chart_html(results),
        "facts": facts(meta, results),
        "footer": footer | {"Conventions": conventions(results)},
        "commands": commands(meta),
    }
