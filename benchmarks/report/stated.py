"""What papers and entries state, which was not measured here and is never ranked; links to sources."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from benchmarks.entries import ADDRESS, DOI, NONE, load_entries
from benchmarks.published import PublishedFigure, load_published
from benchmarks.report.tables.formatting import MISSING, dee_text, escape_md
from benchmarks.report.tables.published import PublishedLine, figure_text

CURVES = ("dee_cal", "dee_raw")
_ARXIV = re.compile(r"\b(\d{4}\.\d{4,5})\b")


def load_stated(root: Path = Path("results")) -> list[list[str]]:
    """Rows of papers' figures, then of entries that state some, as Markdown cells.

    Raises:
        ArtefactError: a file of figures or of an entry is wrong.
    """
    return [*_published(root / "published"), *_stated(root / "entries")]


def stated_notes(root: Path = Path("results")) -> list[str]:
    """The notes of entries that state figures, in sentences that name the entry."""
    entries = load_entries(root / "entries").values()
    return [
        f"{entry.method}, size {entry.size}: {entry.note}"
        for entry in entries
        if entry.status == "stated" and entry.note
    ]


def paper_link(text: str) -> tuple[str, str]:
    """A name and an address for what names a paper; without an address it stays text."""
    if found := _ARXIV.search(text):
        return f"arXiv {found[1]}", f"https://arxiv.org/abs/{found[1]}"
    if re.fullmatch(ADDRESS, text):
        return "paper", text
    if found := re.search(DOI, text):
        return f"DOI {found[0]}", f"https://doi.org/{found[0]}"
    return text, ""


def links(pairs: list[tuple[str, str]]) -> str:
    """Names and addresses as Markdown, without those that are missing."""
    found = [
        f"[{escape_md(name)}]({address})" if address else escape_md(name)
        for name, address in pairs
        if NONE not in (name, address)
    ]
    return ", ".join(found) or MISSING


def number_text(value: float, digits: int) -> str:
    """A number with so many digits after the point, or the mark of a missing one."""
    return f"{value:.{digits}f}" if math.isfinite(value) else MISSING


def _published(folder: Path) -> list[list[str]]:
    """Of each method, network and data set of a paper, the size with the best published DEE."""
    lines: dict[tuple[Any, ...], dict[str, PublishedFigure]] = {}
    for figure in load_published(folder):
        if figure.size_kind == "members" and figure.method != "de":
            where = (figure.paper, figure.data, figure.network, figure.method, figure.variant)
            lines.setdefault((*where, figure.bridges, figure.size), {}).setdefault(figure.metric, figure)
    best: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for key, figures in lines.items():
        values = [figures[curve].value for curve in CURVES if curve in figures]
        known = [value for value in values if value is not None]
        if known and (key[:5] not in best or max(known) > best[key[:5]][0]):
            best[key[:5]] = (max(known), key, figures)
    rows = []
    for _, (paper, data, network, method, variant, bridges, size), figures in best.values():
        name = PublishedLine(paper, network, method, variant, bridges, size).kind
        texts = [figure_text(figures.get(metric)) for metric in (*CURVES, "acc", "nll", "flops_rel")]
        about = (name, str(size), f"{data}, {network}", *texts)
        rows.append([*map(escape_md, about), links([paper_link(paper)])])
    return rows


def _stated(folder: Path) -> list[list[str]]:
    """The rows of entries that state a paper's figures."""
    rows = []
    for entry in load_entries(folder).values():
        if entry.status == "stated":
            values = {name: figure.value for name, figure in entry.scores.items()}
            equivalents = [dee_text(values.get(curve, math.nan), math.nan, math.nan, None) for curve in CURVES]
            scores = [number_text(100 * values.get("acc", math.nan), 1), number_text(values.get("nll", math.nan), 3)]
            flops = f"{2 * entry.cost.macs:,.0f}\\*" if entry.cost.macs else MISSING
            texts = [*equivalents, *scores, flops]
            sources = links([("code", entry.code), paper_link(entry.paper)])
            rows.append([escape_md(entry.method), str(entry.size), escape_md(entry.on), *texts, sources])
    return rows
