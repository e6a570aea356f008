"""Write the report of a suite from its result files: pages, tables and figures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.report.figures.cache import Note, figures, write
from benchmarks.report.load import MARKED_SCORES, Results, load_results
from benchmarks.report.page.captions import captions
from benchmarks.report.page.explorer import explorer
from benchmarks.report.page.pages import as_lines, facts, to_csv, write_pages
from benchmarks.report.page.summary import lead, test_name
from benchmarks.report.tables import formatting, shift
from benchmarks.report.tables.budget import budget_frame, budget_note, budget_table
from benchmarks.report.tables.published import published_frame, published_notes, published_table
from benchmarks.report.tables.records import recorded_tables
from benchmarks.report.tables.runtimes import flattered, runtimes_table


def render(rows_dir: Path, out_dir: Path) -> list[Path]:
    """Write `report.md`, `report.html`, `tables/` and `figures/` into `out_dir`; return the files of the report.

    Only the files of `rows_dir` are read, and the papers' figures where the suite asks for them (see `load_results`);
    the same files give the same bytes.  What stands already and has not changed is left alone (:mod:`.made`).

    Raises:
        ArtefactError: a result file or a column is missing or unreadable.
        StoreError: a file cannot be written; every file is then the old one or the new one, and whole.
        SpecError: the suite names a data set for which nothing is published.
    """
    results = load_results(rows_dir)
    if results.task:
        from benchmarks.report.page.task_page import render_task

        return render_task(results, rows_dir, out_dir)
    budgets = budget_frame(results)
    written = _save_tables(results, budgets, out_dir / "tables")
    note = Note(out_dir)
    drawn = figures(results, note, out_dir / "figures")
    written += [out_dir / "figures" / name for files in drawn.values() for name in files]

    context = _context(results, budgets) | {"explorer": explorer(results, note, out_dir / "report.html")}
    images = {name: base64.b64encode(files[f"{name}.png"]).decode() for name, files in drawn.items()}
    return written + write_pages(out_dir, "page", context | {"images": images})


def _save_tables(results: Results, budgets: pd.DataFrame, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    scores = [f"{s}_{end}" for s in results.scores for end in ("mean", "low", "high", "mark") if _exists(s, end)]
    dee = [f"dee_{kind}{fit}{end}" for kind in ("raw", "cal") for fit in ("", "_fit") for end in ("", "_low", "_high")]
    dee = [column for column in dee if column in results.summary]
    main = results.summary[["label", "method", "family", "size", "n", *scores, *dee, *results.costs, "latency_noisy"]]
    frames = {"main": main, "sizes": _wide_sizes(results.summary), "comparisons": results.comparisons}
    texts = {"main": formatting.main_table(results), "sizes": formatting.sizes_table(results)}
    if (published := published_table(results)) is not None:
        frames["published"], texts["published"] = published_frame(results), published
    if (budget := budget_table(budgets, results.max_size)) is not None:
        frames["budgets"], texts["budgets"] = budgets, budget
    if results.records is not None:
        frames["records"] = results.records
    if results.shifts is not None:
        frames["shifts"] = results.shifts
        texts |= {name: table for name, table in _shifted(results).items() if table is not None}
    for name, frame in frames.items():
        write(folder / f"{name}.csv", to_csv(frame))
    for name, table in texts.items():
        write(folder / f"{name}.tex", formatting.to_latex(table))
    return [*(folder / f"{name}.csv" for name in frames), *(folder / f"{name}.tex" for name in texts)]


def _shifted(results: Results) -> dict[str, formatting.Table | None]:
    return {
        "severity": shift.severity_table(results),
        "corruptions": shift.corruptions_table(results),
        "outside": shift.detection_table(results),
    }


def _exists(score: str, end: str) -> bool:
    return end != "mark" or score in MARKED_SCORES


def _wide_sizes(summary: pd.DataFrame) -> pd.DataFrame:
    """Return one row a metric and label, one column of means a size."""
    columns = {f"{score}_mean": score for score in ("acc", "nll", "cnll")}
    long = summary.melt(["label", "size"], list(columns), "metric", "mean").replace({"metric": columns})
    order = {key: i for i, key in enumerate(dict.fromkeys(zip(long["metric"], long["label"], strict=True)))}
    wide = long.pivot(index=["metric", "label"], columns="size", values="mean")
    return wide.loc[sorted(wide.index, key=order.__getitem__)].rename(columns=str).reset_index()


def _context(results: Results, budgets: pd.DataFrame) -> dict[str, Any]:
    """Everything that the two templates show, with a default for each part of `meta.json` that is missing."""
    meta = results.meta
    sizes = formatting.sizes_table(results)
    return {
        "title": meta.get("title") or meta.get("suite") or "Benchmark report",
        "description": meta.get("description", ""),
        "lead": lead(results),
        "failures": [f for f in meta.get("failures") or [] if isinstance(f, Mapping)],
        "captions": captions(results),
        "main": formatting.main_table(results),
        "tuning": formatting.tuning_table(results),
        "runtimes": runtimes_table(results),
        "flattered": flattered(results),
        "budgets": budget_table(budgets, results.max_size),
        "budgets_note": budget_note(results),
        "sizes": sizes,
        "comparisons": formatting.comparisons_table(results),
        "records": recorded_tables(results),
        "shifted": _shifted(results) if results.shifts is not None else {},
        "shift_sentences": shift.sentences(results),
        "shift_images": (meta.get("shift") or {}).get("images", "all"),
        "published": published_table(results),
        "published_data": results.published.data if results.published else "",
        "published_notes": published_notes(results),
        "differences": list(results.published.differences) if results.published else [],
        "controls": bool(results.summary["control"].any()),
        "stated": bool(results.summary["cost_stated"].any()),
        "fewer": formatting.fewer_repetitions(results),
        "noisy": bool(results.summary["latency_noisy"].any() or (meta.get("latency") or {}).get("noisy")),
        "facts": facts(meta, results),
        "budget": as_lines(meta.get("budget")),
        "protocol": as_lines(meta.get("protocol")),
        "test": test_name(results),
        "p_column": "p-value" if results.bootstrapped else "p-value (corrected by Holm)",
        "conventions": _conventions(results),
        "command": meta.get("command", ""),
        "report_command": meta.get("report_command", ""),
    }


def _conventions(results: Results) -> list[str]:
    largest = results.max_size or "M"
    return [
        "A value is the mean over repetitions ± half of its 95 % interval; square brackets hold a 95 % interval. "
        "With one repetition there is no interval.",
        *results.statistics,
        "ACC: top-1 accuracy. NLL: mean negative log-likelihood. BS: Brier score summed over the classes, from 0 to 2. "
        "ECE: expected calibration error of the top label with 15 equal-width bins, a fraction shown in %. "
        "A leading c marks a score after temperature scaling, fitted on the validation split.",
        "KL to ensemble: mean Kullback-Leibler divergence from the full ensemble's prediction to the method's.",
        "DEE (deep-ensemble equivalent): the number of members, linearly interpolated, at which a deep ensemble "
        "measured in this suite has the method's NLL; (calibrated) uses NLL after temperature scaling. "
        f"It is censored outside the measured curve: < 1 is worse than one network, > {largest} is better than the "
        "largest ensemble. Its interval holds what the curve adds to the uncertainty as well.",
        "FLOPs = 2 multiply-adds, per example, for the whole predictor with every member and every sampler step; "
        "relative values and latency ratios are to one member.",
        "Training seconds: the method's own training, on top of the members that it needs.",
        "Training in members: passes of examples through the members that a method needs, plus a third of those "
        "through frozen teachers, since a backward pass takes twice a forward pass, plus those through what it trains "
        "times the relative FLOPs of its predictor, over the passes of one member. The last part is exact where the "
        "trained network is the predictor, else at most that. What choosing settings took is not in it.",
    ]
