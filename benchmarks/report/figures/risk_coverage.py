"""The figure of selective prediction: errors among the accepted examples, and those saved against one network."""

from __future__ import annotations

from matplotlib.figure import Figure

from benchmarks.report.figures.diagnostics import line_handle, representative_lines
from benchmarks.report.figures.style import LineStyle, legend, open_frame
from benchmarks.report.model import Results


def risk_coverage(results: Results, style: dict[str, LineStyle]) -> Figure:
    """Draw the risk against coverage, and the rate of accepted errors minus one network's: a line a method."""
    assert results.risk_coverage is not None
    curves = {
        key: part.set_index("coverage")["risk"]
        for key, part in results.risk_coverage.groupby(["label", "size"], sort=False)
    }
    lines = {key: look for key, look in representative_lines(results, style).items() if key in curves}
    one = next((curves[key] for key, (mark, _) in lines.items() if mark.reference), None)
    figure = Figure(figsize=(8.6 if one is not None else 5, 4), layout="constrained")
    axes = figure.subplots(1, 1 if one is None else 2, squeeze=False)[0]
    for key, (mark, dash) in lines.items():
        risk, look = curves[key], {"color": mark.colour, "linestyle": dash, "linewidth": 1.5}
        symbols = {"marker": mark.marker, "markersize": 4.5, "markevery": 0.2}
        axes[0].plot(100 * risk.index, 100 * risk, **look, **symbols)
        if one is not None:
            axes[1].plot(100 * risk.index, 100 * risk.index * (risk - one), **look, **symbols)
    axes[0].set(title="selective risk", ylabel="errors among the accepted (%)")
    if one is not None:
        axes[1].set(title="against one network", ylabel="wrong and accepted, difference (points)")
    for ax in axes:
        ax.set(xlabel="coverage (% accepted, the most confident first)", xlim=(0, 100))
        open_frame(ax)
    legend(figure, [line_handle(*key, *look) for key, look in lines.items()])
    return figure
