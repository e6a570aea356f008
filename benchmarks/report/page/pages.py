"""Templates of pages, CSV files, and the facts about a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from benchmarks.report.figures.cache import write
from benchmarks.report.model import Results
from benchmarks.report.tables import formatting

_FORMULA = re.compile(r"[=+\-@\t\r]")  # what a spreadsheet takes for the beginning of one


def to_csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV; before a text that a spreadsheet would run as a formula stands an apostrophe."""
    texts = {
        str(name): column.map(_no_formula, na_action="ignore")
        for name, column in frame.select_dtypes(exclude=["number", "bool"]).items()
    }
    return frame.assign(**texts).to_csv(index=False, float_format="%.6g", lineterminator="\n")


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str) or not _FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def write_pages(out_dir: Path, context: Mapping[str, Any]) -> list[Path]:
    """Write `report.md` and `report.html` from their templates; return their paths.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    templates, written = environment(Path(__file__).parent), []
    parts = {name: (Path(__file__).with_name(name)).read_text(encoding="utf-8") for name in ("report.css", "tables.js")}
    for end in ("md", "html"):
        text = templates.get_template(f"report.{end}.j2").render(**context, parts=parts)
        path = out_dir / f"report.{end}"
        write(path, re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")
        written.append(path)
    return written


def as_lines(value: Any) -> list[str]:
    """Return the lines of an entry of `meta.json` that is a text or a list."""
    return [value] if isinstance(value, str) else [str(line) for line in value or []]


def _listing(values: Any) -> str:
    """Return `a: 1, b: 2` for an object, and text for anything else."""
    if isinstance(values, Mapping):
        known = [(key, value) for key, value in values.items() if value is not None]
        return ", ".join(f"{str(key).replace('_', ' ')}: {_listing(value)}" for key, value in known)
    if isinstance(values, list):
        return ", ".join(map(_listing, values))
    if isinstance(values, bool):
        return "yes" if values else "no"
    return f"{values:,}" if isinstance(values, int) else str(values)


def facts(meta: Mapping[str, Any], results: Results) -> list[tuple[str, str]]:
    """Name and value of everything known about the run, in the order of the footer."""
    data = dict(meta.get("dataset") or {})
    if fingerprint := data.get("fingerprint"):
        data["fingerprint"] = str(fingerprint)[:12]
    counts = sorted({int(n) for n in results.summary["n"].dropna()})
    versions = meta.get("versions") or {}
    facts = {
        "Date": meta.get("date"),
        "Suite": meta.get("suite"),
        "Data": _listing(data),
        "Network": _listing(meta.get("network") or ""),
        "Repetitions": " to ".join(map(str, sorted({*counts[:1], *counts[-1:]})))
        if counts
        else meta.get("repetitions"),
        "Latency": _listing(meta.get("latency") or ""),
        "Hardware": _listing(meta.get("hardware") or ""),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def environment(folder: Path) -> jinja2.Environment:
    """Templates of a folder: Markdown is escaped by the filter ``md``, HTML always; an unknown name is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"md": formatting.escape_md, "markdown_table": formatting.to_markdown, "sort_key": sort_key}
    return made


def sort_key(text: str) -> str:
    """Return the number by which a cell is sorted: its first one; values beyond the scale go to the ends."""
    found = re.search(r"([<>] ?)?([−-]?[\d,]*\.?\d+)", text)
    if not found:
        return ""
    beyond, number = found[1], found[2].replace("−", "-").replace(",", "")
    return number if not beyond else "-1e9" if beyond.startswith("<") else "1e9"
