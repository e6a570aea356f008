"""The part of the HTML report that can be explored: a figure whose axes are chosen, and tables that sort and filter.

The figure is a Vega-Lite specification, drawn by the scripts that vl-convert bundles; the tables of the page are taken
over by DataTables, which itables bundles.  Both go into the page, packed, so that it needs no network; a page whose
scripts do not run shows what it shows without this module.
"""

from __future__ import annotations

import base64
import gzip
import importlib.resources
import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.colors import to_hex

from benchmarks.report.load import REFERENCE_FAMILY, Results
from benchmarks.report.style import CONTROL_COLOUR, looks
from benchmarks.report.tables import PERCENT, SCORE_NAMES

COST_NAMES = {
    "macs_rel": "FLOPs (one network = 1)",
    "flops": "FLOPs per example",
    "params_rel": "Parameters (one network = 1)",
    "params": "Parameters",
    "latency_b1_ratio": "Latency at batch 1 (one network = 1)",
    "latency_b1_p50_ms": "Latency at batch 1, median (ms)",
    "latency_batch_ratio": "Latency at a large batch (one network = 1)",
    "throughput_examples_per_s": "Throughput (examples a second)",
    "train_seconds_with_members": "Training with the members that it needs (s)",
    "train_seconds": "Its own training (s)",
    "student_passes": "Example-passes through what it trains",
    "teacher_passes": "Example-passes through its teachers",
    "size": "Ensemble members covered",
}
# Matplotlib's markers as Vega's shapes, or as paths in the square from -1 to 1.
SHAPES = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "P": "cross",
    "X": "M-1,-.5L-.5,-1L0,-.5L.5,-1L1,-.5L.5,0L1,.5L.5,1L0,.5L-.5,1L-1,.5L-.5,0Z",
    "p": "M0,-1L.95,-.31L.59,.81L-.59,.81L-.95,-.31Z",
    "*": "M0,-1.1L.29,-.4L1.05,-.34L.47,.15L.65,.89L0,.5L-.65,.89L-.47,.15L-1.05,-.34L-.29,-.4Z",
    "h": "M0,-1L.87,-.5L.87,.5L0,1L-.87,.5L-.87,-.5Z",
    "d": "M0,-1.1L.6,0L0,1.1L-.6,0Z",
    "H": "M-1,0L-.5,-.87L.5,-.87L1,0L.5,.87L-.5,.87Z",
}


# --- tables -----------------------------------------------------------------------------------------------------------


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


# --- figure -----------------------------------------------------------------------------------------------------------


def quantities(results: Results) -> dict[str, str]:
    """Return what may stand on an axis: a column without `_mean`, and its title; only what the rows have.

    Any triple of columns `<score>_mean`, `_low` and `_high` is a score, any `dee_<kind>` with `_low` and `_high` an
    equivalent.
    """
    summary = results.summary
    names = [str(name) for name in summary]
    scores = [name[:-5] for name in names if name.endswith("_mean") and _has_interval(name[:-5], names)]
    dees = [name for name in names if name.startswith("dee_") and _has_interval(name, names)]
    titles = {name: f"DEE ({_kind(name)}), members ↑" for name in dees}
    titles |= {name: SCORE_NAMES.get(name, name.replace("_", " ")) for name in scores}
    titles |= {name: title for name, title in COST_NAMES.items() if name in summary}
    columns = {name: f"{name}_mean" if name in scores else name for name in titles}
    return {name: title for name, title in titles.items() if _numbers(summary[columns[name]]).notna().any()}


def _has_interval(name: str, names: list[str]) -> bool:
    return f"{name}_low" in names and f"{name}_high" in names


def _kind(name: str) -> str:
    return {"raw": "raw", "cal": "calibrated"}.get(name[4:], name[4:].replace("_", " "))


def _numbers(column: pd.Series) -> pd.Series:
    return pd.to_numeric(column, errors="coerce")


def data(results: Results) -> list[dict[str, Any]]:
    """Return the rows behind the figure as JSON takes them: as in `summary.csv`, infinite values as text."""
    summary = results.summary
    columns: dict[str, list[Any]] = {
        **{name: summary[name].tolist() for name in ("label", "family", "n", "control", "latency_noisy")},
        "reference": (summary["family"] == REFERENCE_FAMILY).tolist(),
        "size": summary["size"].tolist(),
    }
    for name in quantities(results):
        mean = f"{name}_mean" if f"{name}_mean" in summary else name
        for key, column in ((name, mean), (f"{name}_low", f"{name}_low"), (f"{name}_high", f"{name}_high")):
            if column in summary:
                columns[key] = [_json(value) for value in _numbers(summary[column]).tolist()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _json(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def families(results: Results) -> dict[str, str]:
    """Return the families and what they are called: what their labels begin with, or a whole label in case of doubt."""
    first = results.summary.drop_duplicates("family")
    names = {family: label.split(" (")[0] for family, label in zip(first["family"], first["label"], strict=True)}
    taken = list(names.values())
    whole = dict(zip(first["family"], first["label"], strict=True))
    return {family: name if taken.index(name) == i else whole[family] for i, (family, name) in enumerate(names.items())}


def chart(results: Results) -> dict[str, Any]:
    """Return the Vega-Lite specification of the figure, with its data and its controls."""
    titles, style = quantities(results), looks(results)
    costs = [name for name in COST_NAMES if name in titles]
    scores = [name for name in titles if name not in COST_NAMES]
    shown = {family: f"family_{i}" for i, family in enumerate(families(results))}
    colours = {label: to_hex(look.colour) for label, look in style.items()}
    shapes = [SHAPES[look.marker] for look in style.values()]
    params: list[dict[str, Any]] = [
        _choice("x", "Horizontal", [*costs, *scores], titles, "macs_rel"),
        _choice("y", "Vertical", [*scores, *costs], titles, "dee_raw"),
        *(_switch(shown[family], name, True) for family, name in families(results).items()),
        *([_switch("controls", "Controls", False)] if results.summary["control"].any() else []),
        *([_switch("all_sizes", "Every size of the deep ensemble", False)] if len(results.reference) else []),
        {"name": "titles", "value": titles},
        {"name": "colours", "value": colours},
        {"name": "factors", "value": {name: 100 if name.split("_")[0] in PERCENT else 1 for name in titles}},
        {"name": "shown", "expr": f"{{{', '.join(f'{json.dumps(f)}: {name}' for f, name in shown.items())}}}"},
        {"name": "beyond", "value": (results.max_size or 1) + 0.5},  # where a DEE above the largest ensemble stands
    ]
    if not results.summary["control"].any():
        params.append({"name": "controls", "value": False})
    if not len(results.reference):
        params.append({"name": "all_sizes", "value": True})
    drawn = {"field": "colour", "type": "nominal", "scale": None}
    label: dict[str, Any] = {"field": "label", "type": "nominal", "title": None}
    label["legend"] = {
        **{"orient": "bottom", "direction": "horizontal", "labelLimit": 260, "symbolSize": 90},
        "columns": {"expr": "width < 420 ? 1 : width < 640 ? 2 : 4"},
    }
    method, about = "!datum.control && !datum.reference", {"field": "about", "type": "nominal"}
    named = {"tooltip": about, "description": about}
    return {
        "description": "Points of every method, with 95 % intervals; the tables below hold the same values.",
        **{"width": "container", "height": 380, "background": "white"},
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": {
            "font": "system-ui, -apple-system, 'Segoe UI', 'Liberation Sans', sans-serif",
            "axis": {"labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": 500, "gridColor": "#e8e8e8"},
            "legend": {"labelFontSize": 12},
            "view": {"stroke": None},
        },
        "data": {"name": "summary", "values": data(results)},
        "params": params,
        "transform": _transforms(),
        "encoding": {"x": _axis("x"), "y": _axis("y")},
        "layer": [
            {
                "transform": [{"filter": "datum.reference"}],
                "mark": {"type": "line", "strokeDash": [5, 3], "strokeWidth": 1.4, "clip": True},
                "encoding": {"stroke": drawn, "order": {"field": "size"}},
            },
            {
                "transform": [{"filter": method}],
                "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.45, "clip": True},
                "encoding": {"stroke": drawn, "detail": {"field": "label"}, "order": {"field": "size"}},
            },
            *(
                {
                    "transform": [{"filter": f"isValid(datum.{axis}_low) && isValid(datum.{axis}_high)"}],
                    "mark": {"type": "rule", "strokeWidth": 1.3, "opacity": 0.7, "clip": True},
                    "encoding": {
                        axis: _axis(axis, f"{axis}_low"),
                        f"{axis}2": {"field": f"{axis}_high"},
                        "stroke": drawn,
                    },
                }
                for axis in ("x", "y")
            ),
            {
                "transform": [{"filter": "datum.control"}],
                "mark": {"type": "circle", "size": 30, "color": CONTROL_COLOUR, "clip": True},
                "encoding": named,
            },
            {
                "transform": [{"filter": "!datum.control"}],
                "params": [
                    {
                        "name": "zoom",
                        "bind": "scales",
                        "select": {
                            "type": "interval",
                            # A page scrolls by the wheel or a finger, so these alone do not move the figure.
                            "zoom": "wheel![event.shiftKey]",
                            "translate": f"[pointerdown[{_MOUSE}], window:pointerup] > window:pointermove!",
                            "clear": "dblclick, #explore-controls:change",
                        },
                    }
                ],
                "mark": {"type": "point", "filled": True, "size": 120, "opacity": 0.9, "clip": True},
                "encoding": {
                    "color": {**label, "scale": {"domain": list(colours), "range": list(colours.values())}},
                    "shape": {**label, "scale": {"domain": list(colours), "range": shapes}},
                    **named,
                },
            },
            {
                "transform": [{"filter": "!datum.control"}],
                "mark": {
                    "type": "text",
                    "dx": 9,
                    "dy": -8,
                    "fontSize": 11,
                    "fill": "#444",
                    "clip": True,
                    "aria": False,
                },
                "encoding": {"text": {"field": "size"}},
            },
        ],
    }


_MOUSE = "event.pointerType === 'mouse'"
_IS_DEE = {axis: f"indexof({axis}, 'dee_') == 0" for axis in ("x", "y")}


def _choice(name: str, title: str, options: list[str], titles: dict[str, str], default: str) -> dict[str, Any]:
    labels = [titles[option] for option in options]
    bind = {"input": "select", "name": title, "options": options, "labels": labels, "element": "#explore-axes"}
    return {"name": name, "value": default if default in options else options[0], "bind": bind}


def _switch(name: str, title: str, on: bool) -> dict[str, Any]:
    return {"name": name, "value": on, "bind": {"input": "checkbox", "name": title, "element": "#explore-shown"}}


def _axis(axis: str, field: str = "") -> dict[str, Any]:
    """An axis of the chosen quantity; an equivalent beyond the measured curve stands at a label that says so."""
    beyond = "datum.value < 1 ? '< 1' : datum.value >= beyond ? '> ' + (beyond - 0.5) : datum.label"
    return {
        **{"field": field or axis, "type": "quantitative", "scale": {"zero": False, "nice": False, "padding": 14}},
        "axis": {
            "title": {"expr": f"titles[{axis}]"},
            "labelExpr": f"{_IS_DEE[axis]} ? ({beyond}) : datum.label",
            "tickMinStep": {"expr": f"{_IS_DEE[axis]} ? 0.5 : 0"},
        },
    }


def _transforms() -> list[dict[str, Any]]:
    """Fill `x`, `y`, the ends of their intervals and `about` from the columns that the axes ask for."""
    steps: list[dict[str, Any]] = [{"filter": "shown[datum.family] && (controls || !datum.control)"}]
    for axis in ("x", "y"):
        for end in ("", "_low", "_high"):
            # An equivalent beyond the curve stands below 1, or above the largest ensemble.
            value = f"toNumber(datum[{axis} + '{end}'])"
            clamped = f"{_IS_DEE[axis]} ? clamp({value}, 0.5, beyond) : {value} * factors[{axis}]"
            steps.append({"calculate": f"isValid({value}) ? ({clamped}) : null", "as": f"{axis}{end}"})
    steps.append({"filter": "isValid(datum.x) && isValid(datum.y)"})
    # Deep ensembles that cost far more than any method would press the methods together.
    steps += [
        {"calculate": "datum.reference ? null : datum.x", "as": "x_method"},
        {"calculate": "datum.reference && datum.size == 1 ? datum.x : null", "as": "x_one"},
        {
            "joinaggregate": [
                {"op": "max", "field": "x_method", "as": "x_most"},
                {"op": "max", "field": "x_one", "as": "x_unit"},
            ]
        },
        {"filter": "all_sizes || !datum.reference || !isValid(datum.x_most) || datum.x <= datum.x_most + datum.x_unit"},
        {"joinaggregate": [{"op": "max", "field": "y", "as": "y_most"}, {"op": "max", "field": "x", "as": "x_most"}]},
    ]
    for axis in ("x", "y"):
        # As in the other figures, the estimates set the scale of an equivalent, and a longer interval is cut off.
        cut = f"min(datum.{axis}_high, datum.{axis}_most * 1.15 + 0.3)"
        high = f"datum.{axis}_high"
        known = f"isValid({high}) && {_IS_DEE[axis]}"
        steps.append({"calculate": f"{known} ? {cut} : {high}", "as": f"{axis}_high"})
    noisy = "(indexof(x + y, 'latency') >= 0 && datum.latency_noisy ? '\\nlatency: a noisy measurement' : '')"
    name = "datum.label + ', size ' + datum.size + ', n = ' + datum.n"
    about = f"{name} + '\\n' + {_words('y')} + '\\n' + {_words('x')} + {noisy}"
    colour = f"datum.control ? '{CONTROL_COLOUR}' : colours[datum.label]"
    return [*steps, {"calculate": about, "as": "about"}, {"calculate": colour, "as": "colour"}]


def _words(axis: str) -> str:
    """An expression that names an axis, its value and its interval."""

    def one(end: str) -> str:
        value = f"toNumber(datum[{axis} + '{end}'])"
        number = f"{value} * factors[{axis}]"
        plain = f"abs({number}) >= 10000 ? format({number}, ',.0f') : format({number}, '.4~r')"
        above = "'> ' + (beyond - 0.5)"
        return f"(isFinite({value}) ? {plain} : {value} > 0 ? {above} : '< 1')"

    interval = f"' [' + {one('_low')} + ', ' + {one('_high')} + ']'"
    known = f"isValid(datum[{axis} + '_low']) && isValid(datum[{axis} + '_high'])"
    return f"titles[{axis}] + ': ' + {one('')} + ({known} ? {interval} : '')"


# --- scripts ----------------------------------------------------------------------------------------------------------


def explorer(results: Results) -> dict[str, Any]:
    """Return what the template of the page needs beside its tables."""
    own = {
        name: Path(__file__).with_suffix(end).read_text("utf-8") for name, end in (("script", ".js"), ("style", ".css"))
    }
    return {"chart": chart(results), "packed": _packed(), **own}


@cache
def _packed() -> dict[str, str]:
    """The libraries by name, compressed, in base64: together they would be larger than most reports."""
    import vl_convert  # here, since to load it and to bundle takes about a second

    tables = importlib.resources.files("itables") / "html"
    texts = {
        "vega": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
        "tables": (tables / "dt_bundle.js").read_text(encoding="utf-8"),
        "tables-style": (tables / "dt_bundle.css").read_text(encoding="utf-8"),
    }
    return {name: base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode() for name, text in texts.items()}
