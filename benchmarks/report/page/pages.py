"""What the pages of every kind of suite share: templates, and the facts about a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from benchmarks.report.figures.cache import write
from benchmarks.report.load import Results
from benchmarks.report.page.explorer import scale_of, sort_key
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


def write_pages(out_dir: Path, template: str, context: Mapping[str, Any], calibrates: bool = True) -> list[Path]:
    """Write `report.md` and `report.html` from `<template>.md.j2` and `<template>.html.j2`; return their paths.

    Args:
        calibrates: whether there are scores after temperature scaling, which tables may leave out then.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    templates, written = environment(Path(__file__).parent), []
    if not calibrates:
        templates.filters["scale"] = lambda name: ""
    for end in ("md", "html"):
        text = templates.get_template(f"{template}.{end}.j2").render(**context)
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
    """Templates of a folder: Markdown escaped by the filter ``md``, HTML by itself; an unknown name is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"md": formatting.escape_md, "markdown_table": formatting.to_markdown}
    made.filters |= {"sort_key": sort_key, "scale": _scale}
    return made


def _scale(name: str) -> Markup:
    """The attribute by which the page tells raw from calibrated scores."""
    scale = scale_of(name)
    return Markup(f' data-scale="{scale}"' if scale else "")
