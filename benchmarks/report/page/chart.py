"""The figure of the explorable report as a Vega-Lite specification: its controls, transformations and layers."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.report.figures.selection import MOST
from benchmarks.report.figures.style import CONTROL_COLOUR, looks
from benchmarks.report.load import Results
from benchmarks.report.page.quantities import COST_NAMES, data, equivalents, factor, families, quantities

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


def chart(results: Results) -> dict[str, Any]:
    """Return the Vega-Lite specification of the figure, with its data and its controls."""
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
        "params": _params(results),
        "transform": _transforms(results),
        "encoding": {axis: _axis(results, axis) for axis in ("x", "y")},
        "layer": _layers(results),
    }


def _params(results: Results) -> list[dict[str, Any]]:
    """The controls, and what the expressions look up."""
    titles = quantities(results)
    costs = [name for name in COST_NAMES if name in titles]
    scores = [name for name in titles if name not in COST_NAMES]
    shown = {family: f"family_{i}" for i, family in enumerate(families(results))}
    colours = {label: look.colour for label, look in looks(results).items()}
    yardstick, start = "the deep ensemble", ("macs_rel", "dee_raw")
    if task := results.task:
        yardstick, start = task["reference_label"], (task["axis"][0].removesuffix("_mean"), task["headline"])
    has_controls, has_ensembles = bool(results.summary["control"].any()), bool(len(results.reference))
    return [
        _choice("x", "Horizontal", [*costs, *scores], titles, start[0]),
        _choice("y", "Vertical", [*scores, *costs], titles, start[1]),
        *(_switch(shown[family], name, True) for family, name in families(results).items()),
        _switch("controls", "Controls", False) if has_controls else {"name": "controls", "value": False},
        _switch("all_sizes", f"Every size of {yardstick}", False)
        if has_ensembles
        else {"name": "all_sizes", "value": True},
        {"name": "titles", "value": titles},
        {"name": "colours", "value": colours},
        {"name": "factors", "value": {name: factor(results, name) for name in titles}},
        {"name": "shown", "expr": f"{{{', '.join(f'{json.dumps(f)}: {name}' for f, name in shown.items())}}}"},
        {"name": "beyond", "value": (results.max_size or 1) + 0.5},  # where a DEE above the largest ensemble stands
    ]


def _layers(results: Results) -> list[dict[str, Any]]:
    """Lines, intervals, points and sizes, from the lowest up; the points carry the legend and name themselves."""
    style = looks(results)
    drawn = {"field": "colour", "type": "nominal", "scale": None}
    lines = {"stroke": drawn, "detail": {"field": "label"}, "order": {"field": "size"}}
    about = {"field": "about", "type": "nominal"}
    named = {"tooltip": about, "description": about}
    label: dict[str, Any] = {"field": "label", "type": "nominal", "title": None}
    label["legend"] = {
        **{"orient": "bottom", "direction": "horizontal", "labelLimit": 260, "symbolSize": 90},
        "columns": {"expr": "windowSize()[0] < 600 ? 1 : windowSize()[0] < 900 ? 2 : 4"},
    }
    if sum(not look.reference for look in style.values()) > MOST:  # longer than the page, and points name themselves
        label["legend"] = None
    scales = {
        "color": {"domain": list(style), "range": [look.colour for look in style.values()]},
        "shape": {"domain": list(style), "range": [SHAPES[look.marker] for look in style.values()]},
    }
    zoom = {
        **{"type": "interval", "clear": "dblclick, #explore-controls:change"},
        # A page scrolls by the wheel or a finger, so these alone do not move the figure.
        "zoom": "wheel![event.shiftKey]",
        "translate": "[pointerdown[event.pointerType === 'mouse'], window:pointerup] > window:pointermove!",
    }

    def layer(where: str, mark: dict[str, Any], encoding: dict[str, Any]) -> dict[str, Any]:
        return {"transform": [{"filter": where}], "mark": {"clip": True, **mark}, "encoding": encoding}

    interval = {"type": "rule", "strokeWidth": 1.3, "opacity": 0.7}
    bars = [
        layer(
            f"isValid(datum.{axis}_low) && isValid(datum.{axis}_high)",
            interval,
            {axis: _axis(results, axis, f"{axis}_low"), f"{axis}2": {"field": f"{axis}_high"}, "stroke": drawn},
        )
        for axis in ("x", "y")
    ]
    marked = {channel: {**label, "scale": scale} for channel, scale in scales.items()}
    points = layer("!datum.control", {"type": "point", "filled": True, "size": 120, "opacity": 0.9}, marked | named)
    size = {"type": "text", "dx": 9, "dy": -8, "fontSize": 11, "fill": "#444", "aria": False}
    return [
        layer("datum.reference", {"type": "line", "strokeDash": [5, 3], "strokeWidth": 1.4}, lines),
        layer("!datum.control && !datum.reference", {"type": "line", "strokeWidth": 1, "opacity": 0.45}, lines),
        *bars,
        layer("datum.control", {"type": "circle", "size": 30, "color": CONTROL_COLOUR}, named),
        points | {"params": [{"name": "zoom", "bind": "scales", "select": zoom}]},
        layer("!datum.control", size, {"text": {"field": "size"}}),
    ]


def _choice(name: str, title: str, options: list[str], titles: dict[str, str], default: str) -> dict[str, Any]:
    labels = [titles[option] for option in options]
    bind = {"input": "select", "name": title, "options": options, "labels": labels, "element": "#explore-axes"}
    return {"name": name, "value": default if default in options else options[0], "bind": bind}


def _switch(name: str, title: str, on: bool) -> dict[str, Any]:
    return {"name": name, "value": on, "bind": {"input": "checkbox", "name": title, "element": "#explore-shown"}}


def _axis(results: Results, axis: str, field: str = "") -> dict[str, Any]:
    """An axis of the chosen quantity; an equivalent beyond the measured curve stands at a label that says so."""
    is_dee = equivalents(results).format(axis=axis)
    beyond = "datum.value < 1 ? '< 1' : datum.value >= beyond ? '> ' + (beyond - 0.5) : datum.label"
    return {
        **{"field": field or axis, "type": "quantitative", "scale": {"zero": False, "nice": False, "padding": 14}},
        "axis": {
            "title": {"expr": f"titles[{axis}]"},
            "labelExpr": f"{is_dee} ? ({beyond}) : datum.label",
            "tickMinStep": {"expr": f"{is_dee} ? 0.5 : 0"},
        },
    }


def _transforms(results: Results) -> list[dict[str, Any]]:
    """Fill `x`, `y`, the ends of their intervals and `about` from the columns that the axes ask for."""
    is_dee = {axis: equivalents(results).format(axis=axis) for axis in ("x", "y")}
    steps: list[dict[str, Any]] = [{"filter": "shown[datum.family] && (controls || !datum.control)"}]
    for axis in ("x", "y"):
        for end in ("", "_low", "_high"):
            # An equivalent beyond the curve stands below 1, or above the largest ensemble.
            value = f"toNumber(datum[{axis} + '{end}'])"
            clamped = f"{is_dee[axis]} ? clamp({value}, 0.5, beyond) : {value} * factors[{axis}]"
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
        known = f"isValid({high}) && {is_dee[axis]}"
        steps.append({"calculate": f"{known} ? {cut} : {high}", "as": f"{axis}_high"})
    noisy = "(indexof(x + y, 'latency') >= 0 && datum.latency_noisy ? '\\nlatency: a noisy measurement' : '')"
    label = "name" if "name" in results.summary else "label"
    name = f"datum.{label} + ', size ' + datum.size + ', n = ' + datum.n"
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
