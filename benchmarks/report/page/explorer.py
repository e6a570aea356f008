"""The part of the HTML report that can be explored: a figure whose axes are chosen, and tables that sort and filter.

The figure is a Vega-Lite specification, drawn by the scripts that vl-convert bundles; the tables of the page are taken
over by DataTables, which itables bundles.  Both go into the page, packed, so that it needs no network; a page whose
scripts do not run shows what it shows without this module.
"""

from __future__ import annotations

import base64
import gzip
import importlib.resources
import re
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.report.figures.cache import Note, key_of
from benchmarks.report.load import Results
from benchmarks.report.page.chart import chart
from benchmarks.report.tables.formatting import SCORE_NAMES

_PACKED = re.compile(r'<script type="text/plain" id="packed-([^"]+)">([^<]*)</script>')  # as the template writes it


def sort_key(text: str) -> str:
    """Return the number by which a cell is sorted: its first one; values beyond the scale go to the ends."""
    found = re.search(r"([<>] ?)?([−-]?[\d,]*\.?\d+)", text)
    if not found:
        return ""
    beyond, number = found[1], found[2].replace("−", "-").replace(",", "")
    return number if not beyond else "-1e9" if beyond.startswith("<") else "1e9"


def scale_of(name: str) -> str:
    """Say whether a column, or a block of rows, is of "raw" or "calibrated" scores; "" where it is of neither.

    Scores that a temperature leaves as they are, such as accuracy, have no calibrated counterpart.
    """
    if re.match(r"c[A-Z]", name) or "calibrated" in name:
        return "calibrated"
    counterparts = {title.split()[0] for title in SCORE_NAMES.values()}
    return "raw" if "(raw)" in name or f"c{name.split()[0]}" in counterparts else ""


def explorer(results: Results, note: Note, page: Path) -> dict[str, Any]:
    """Return what the template of the page needs beside its tables; libraries that ``page`` holds come from there."""
    own = {
        name: Path(__file__).with_suffix(end).read_text("utf-8") for name, end in (("script", ".js"), ("style", ".css"))
    }
    return {"chart": chart(results), "packed": _packed(note, page), **own}


def _packed(note: Note, page: Path) -> dict[str, str]:
    """The libraries by name, compressed, in base64: together they would be larger than most reports."""
    key = key_of(("vl-convert-python", "itables"))
    if page.is_file():
        held = dict(_PACKED.findall(page.read_text(encoding="utf-8")))
        if held and all(note.knows("scripts", key, name, text.encode()) for name, text in held.items()):
            return held
    packed = _bundled()
    note.keep("scripts", key, {name: text.encode() for name, text in packed.items()})
    return packed


@cache
def _bundled() -> dict[str, str]:
    import vl_convert  # here, since to load it and to bundle takes about a second

    tables = importlib.resources.files("itables") / "html"
    texts = {
        "vega": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        "tables": (tables / "dt_bundle.js").read_text(encoding="utf-8"),
        "tables-style": (tables / "dt_bundle.css").read_text(encoding="utf-8"),
    }
    return {name: base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode() for name, text in texts.items()}
