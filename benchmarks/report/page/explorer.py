"""The figure of the HTML report whose axes are chosen: every method, with intervals, switches and tooltips.

Altair writes it, with the scripts that draw it, so that the page needs no network.  Without scripts the page shows
everything but this figure.
"""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from benchmarks.report.figures.selection import MOST
from benchmarks.report.figures.style import CONTROL_COLOUR, in_series, styles
from benchmarks.report.model import ENDS, EXTERNAL_FAMILY, Results
from benchmarks.report.tables.main import dee_name

COST_NAMES = {
    "macs_rel": "FLOPs (one network = 1)",
    "flops": "FLOPs per example",
    "params_rel": "Parameters (one network = 1)",
    "params": "Parameters",
    "latency_b1_ratio": "Latency at batch 1 (one network = 1)",
    "latency_b1_p50_ms": "Latency at batch 1, median (ms)",
    "latency_batch_ratio": "Latency at a large batch (one network = 1)",
    "latency_onnxruntime_b1_ratio": "Latency at batch 1 in onnxruntime (one network = 1)",
    "latency_onnxruntime_batch_ratio": "Latency at a large batch in onnxruntime (one network = 1)",
    "throughput_examples_per_s": "Throughput (examples a second)",
    "train_member_equivalents": "Training, at most (one member = 1)",
    "train_seconds_with_members": "Training with the members that it needs (s)",
    "train_seconds": "Its own training (s)",
    "student_passes": "Example-passes through what it trains",
    "teacher_passes": "Example-passes through its teachers",
    "size": "Ensemble members covered",
}


def quantities(results: Results) -> dict[str, str]:
    """Return what an axis can show, and its title: equivalents, scores and costs that the rows have."""
    summary, task = results.summary, results.task
    titles = {curve: dee_name(curve).replace(") ↑", "), members ↑") for curve in task.curves}
    titles |= {name: score.heading for name, score in results.scores.items()}
    titles |= COST_NAMES | ({"size": task.axis[1].capitalize()} if task.axis[0] == "size" else {})
    columns = {name: f"{name}_mean" if name in results.scores else name for name in titles}
    return {
        name: titles[name] for name, column in columns.items() if column in summary and summary[column].notna().any()
    }


def switches(results: Results) -> dict[str, str]:
    """Return the name of the checkbox of each label: one for a family, and one for each row made elsewhere."""
    summary = results.summary
    counts = summary.groupby("family")["label"].nunique()
    found: dict[str, str] = {}
    names: dict[str, str] = {}  # by family
    for label, family in zip(summary["label"], summary["family"], strict=True):
        if family == EXTERNAL_FAMILY or counts[family] == 1:
            found[label] = label
            continue
        # A family of classifiers is called by what its labels begin with.
        name = label.split(" (")[0] if results.classifies else family
        found[label] = names.setdefault(family, name if name not in found.values() else label)
    return found


def chart_data(results: Results) -> list[dict[str, Any]]:
    """Return the rows behind the figure: values and interval ends as they are drawn, and their texts for tooltips."""
    summary, titles, names = results.summary, quantities(results), switches(results)
    most, order = results.max_size or 1, list(dict.fromkeys(names.values()))
    reference = summary["family"] == results.task.reference
    costly = summary.loc[~reference, "macs_rel"].max() + 1  # ensembles of more would press the methods together
    rows = []
    for (_, row), is_reference in zip(summary.iterrows(), reference, strict=True):
        about = {
            "method": row.get("name", row["label"]),
            "label": row["label"],
            "size": int(row["size"]),
            "n": row["n"],
        }
        about |= {"switch": order.index(names[row["label"]]), "control": bool(row["control"])}
        about |= {"reference": bool(is_reference), "far": bool(is_reference and row["macs_rel"] > costly)}
        for name, title in titles.items():
            dee, score = name in results.task.curves, results.scores.get(name)
            column, scale = (f"{name}_mean", score.scale) if score else (name, 1)
            values = [float(row.get(key, math.nan)) * scale for key in (column, f"{name}_low", f"{name}_high")]
            noisy = " (noisy)" if "latency" in name and row["latency_noisy"] else ""
            about[f"{name}_text"] = f"{title}: {_interval(values, most)}{noisy}"
            # An equivalent beyond the measured curve is drawn below 1, or above the largest ensemble.
            ends = [min(max(value, 0.5), most + 0.5) if dee else value for value in values]
            about |= {
                f"{name}{end}": value if math.isfinite(value) else None for end, value in zip(ENDS, ends, strict=True)
            }
        rows.append(about)
    return rows


def _interval(ends: list[float], most: int) -> str:
    value, low, high = ends

    def one(x: float) -> str:
        if math.isinf(x):
            return "< 1" if x < 0 else f"> {most}"
        return f"{x:,.0f}" if abs(x) >= 10_000 else f"{x:.4g}"

    if math.isnan(value):
        return "not known"
    return one(value) + ("" if math.isnan(low) or math.isnan(high) else f" [{one(low)}, {one(high)}]")


def chart(results: Results) -> Any:
    """Return the figure, with its data and its controls."""
    results = in_series(results)
    titles, looks, task = quantities(results), styles(results), results.task
    start = ("macs_rel", "dee_raw") if results.classifies else (task.axis[0].removesuffix("_mean"), task.headline)
    costs, scores = [n for n in titles if n in COST_NAMES], [n for n in titles if n not in COST_NAMES]
    names = list(dict.fromkeys(switches(results).values()))
    shown = [_switch(f"show_{i}", name, True) for i, name in enumerate(names)]
    controls = _switch("controls", "Controls", False)
    far = _switch("far", f"Every size of {task.reference_label}", False)
    base = (
        alt.Chart(alt.Data(values=chart_data(results)))
        .add_params(
            alt.param(name="titles", value=titles),
            _choice("x_axis", "Horizontal", [*costs, *scores], titles, start[0]),
            _choice("y_axis", "Vertical", [*scores, *costs], titles, start[1]),
            *(*shown, controls, far),
        )
        .transform_filter(f"[{', '.join(param.name for param in shown)}][datum.switch]")
        .transform_filter("(controls || !datum.control) && (far || !datum.far)")
        .transform_calculate(
            **{f"{axis}{end}": f"datum[{axis}_axis + '{end}']" for axis in "xy" for end in (*ENDS, "_text")}
        )
        .transform_filter("isValid(datum.x) && isValid(datum.y)")
    )
    scale = alt.Scale(zero=False, nice=False, padding=14)
    x, y = (alt.X("x:Q", scale=scale, title=None), alt.Y("y:Q", scale=scale, title=None))
    legend = alt.Legend(orient="bottom", columns=4, labelLimit=260) if len(looks) <= MOST + 1 else None
    palette = alt.Scale(domain=list(looks), range=[style.colour for style in looks.values()])
    colour = alt.Color("label:N", scale=palette, legend=legend, title=None)
    tooltip = [
        "method:N",
        "size:Q",
        "n:Q",
        alt.Tooltip("y_text:N", title="vertical"),
        alt.Tooltip("x_text:N", title="horizontal"),
    ]
    methods = base.transform_filter("!datum.control")
    marks = [
        methods.mark_line(clip=True, opacity=0.5).encode(
            x,
            y,
            colour,
            order="size:Q",
            strokeDash=alt.condition("datum.reference", alt.value([5, 3]), alt.value([1, 0])),
        ),
        base.mark_rule(clip=True, opacity=0.7).encode(x=alt.X("x_low:Q"), x2="x_high:Q", y=y, color=colour),
        base.mark_rule(clip=True, opacity=0.7).encode(x=x, y=alt.Y("y_low:Q"), y2="y_high:Q", color=colour),
        base.transform_filter("datum.control")
        .mark_circle(size=30, clip=True)
        .encode(x, y, color=alt.value(CONTROL_COLOUR), tooltip=tooltip),
        methods.mark_point(filled=True, size=120, opacity=0.9, clip=True).encode(
            x,
            y,
            colour,
            alt.Shape("label:N", scale=alt.Scale(domain=list(looks)), legend=legend, title=None),
            tooltip=tooltip,
        ),
        methods.mark_text(dx=9, dy=-8, clip=True).encode(x, y, text="size:Q"),
    ]
    title = alt.Title(alt.ExprRef("titles[y_axis] + ' against ' + titles[x_axis]"), anchor="start", fontWeight="normal")
    return alt.layer(*marks).properties(width="container", height=420, title=title).interactive()


def chart_html(results: Results) -> str:
    """Return the figure as HTML with all of its scripts."""
    options = {"renderer": "svg", "logLevel": 1, "actions": {"export": True, "source": False, "editor": False}}
    return str(chart(results).to_html(inline=True, fullhtml=False, output_div="explore-figure", embed_options=options))


def _choice(name: str, title: str, options: list[str], titles: dict[str, str], default: str) -> alt.Parameter:
    value, labels = default if default in options else options[0], [titles[option] for option in options]
    return alt.param(name=name, value=value, bind=alt.binding_select(options=options, labels=labels, name=title))


def _switch(name: str, title: str, on: bool) -> alt.Parameter:
    return alt.param(name=name, value=on, bind=alt.binding_checkbox(name=title))
