"""What the figures of a report show, and where: points, labels, the range that is enlarged."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import seaborn as sns
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from benchmarks.report import read_results, render
from benchmarks.report.figures.diagnostics import representative_sizes
from benchmarks.report.figures.figures import FIGURES, RC
from benchmarks.report.figures.labels import stack
from benchmarks.report.figures.overlay import published_points
from benchmarks.report.figures.ranges import crowded, spans
from benchmarks.report.figures.selection import MOST, drawn, selection_note
from benchmarks.report.figures.style import CONTROL_COLOUR, PALETTE, in_series, styles
from benchmarks.report.model import Results
from benchmarks.report.page.captions import captions
from benchmarks.report.page.explorer import chart_data
from tests.benchmarks.report.made_up import METHODS, ODD, change_meta, write_results

REFERENCE = Path(__file__).resolve().parents[3] / "results/reference"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return read_results(write_results(tmp_path_factory.mktemp("rows")))


def test_figures_of_other_tasks_and_of_shifted_images_can_be_drawn() -> None:
    """The others are drawn by the tests below."""
    for suite, others in (("digits-diffusion", set()), ("digits-shift", set(FIGURES) - {"severity"})):
        results = in_series(read_results(REFERENCE / suite))
        names = set(captions(results)) - set(results.task.sample_figures) - others
        assert names
        assert all(FIGURES[name](results, styles(results)).axes for name in names)


def test_one_colour_for_each_label_and_a_neutral_one_for_ensembles(results: Results) -> None:
    chosen = styles(results)
    assert len({style.colour for style in chosen.values()}) == len(chosen)
    assert [label for label, style in chosen.items() if style.reference] == ["DE"]
    # Safe for the colour-blind.
    colours = [to_hex(colour) for colour in sns.color_palette("colorblind")]
    assert list(PALETTE) == [colour for colour in colours if colour != "#949494"]


def places(figure: Figure) -> list[set[tuple[float, float]]]:
    """What each panel draws as a point of ours or a published one: within its axis, censored values left out."""
    found = []
    for ax in figure.axes:
        points = [tuple(at) for drawn in ax.collections for at in np.asarray(drawn.get_offsets()).tolist()]
        found.append({(round(x, 6), round(y, 6)) for x, y in points if ax.get_xlim()[0] <= x <= ax.get_xlim()[1]})
    return found


def test_every_point_of_the_dee_figure_stands_at_its_cost_and_its_equivalent(results: Results) -> None:
    with matplotlib.rc_context(RC):
        figure = FIGURES["dee_vs_flops"](results, styles(results))
    assert len(figure.axes) == 4
    panels = places(figure)
    whole, near = spans(results)
    assert whole[0] < 1 < 1.82 < whole[1]
    assert near is not None
    assert near[0] < 1 < 1.33 < near[1] < 1.41  # ED, END², DBN and the smallest BN
    for row, kind in enumerate(("raw", "cal")):
        rows = results.others[results.others["macs_rel"].notna() & np.isfinite(results.others[f"dee_{kind}"])]
        all_of_it = {(x, round(y, 6)) for x, y in zip(rows["macs_rel"], rows[f"dee_{kind}"], strict=True)}
        assert all_of_it <= panels[2 * row]
        assert {x for x, _ in panels[2 * row]} == set(results.others["macs_rel"].dropna())  # the censored ones too
        assert {at for at in all_of_it if near[0] <= at[0] <= near[1]} <= panels[2 * row + 1]
        assert {x for x, _ in panels[2 * row + 1]} == {1.0, 1.17, 1.21, 1.33}


def test_the_risk_coverage_figure_draws_the_rows(results: Results) -> None:
    left, right = FIGURES["risk_coverage"](results, styles(results)).axes
    assert results.risk_coverage is not None
    curves = {key: part["risk"].to_numpy() for key, part in results.risk_coverage.groupby(["label", "size"])}
    names = [("DE", 1), ("DE", 5), ("DE", 8), ("ED", 5), ("END²", 5), ("BN", 5)]
    for line, difference, key in zip(left.lines, right.lines, names, strict=False):
        assert line.get_ydata() == pytest.approx(100 * curves[key])
        coverage = line.get_xdata() / 100
        assert difference.get_ydata() == pytest.approx(100 * coverage * (curves[key] - curves["DE", 1]))


def test_controls_are_grey_dots(tmp_path: Path) -> None:
    results = read_results(change_meta(write_results(tmp_path), controls=["DBN (paper)", ODD]))
    with matplotlib.rc_context(RC):
        figure = FIGURES["dee_vs_flops"](results, styles(results))
    dots = [line for line in figure.axes[0].lines if line.get_color() == CONTROL_COLOUR]
    paper = results.summary[results.summary["label"] == "DBN (paper)"]  # the other control has no known cost
    assert np.sort(np.concatenate([dot.get_ydata() for dot in dots])) == pytest.approx(np.sort(paper["dee_raw"]))
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "controls"


def names_of(rows: pd.DataFrame) -> set[str]:
    """Labels of the points: three sizes or more of a method are connected and have one."""
    found = set()
    for label, sizes in rows.groupby("label")["size"]:
        found |= (
            {f"{label}, {sizes.min()} to {sizes.max()}"} if len(sizes) > 2 else {f"{label}, {size}" for size in sizes}
        )
    return found


@pytest.mark.parametrize(
    ("suite", "line"), [("cifar10-small", "BN (medium), 2 to 5"), ("cifar10-cpu", "DE (TTA), 1 to 8")]
)
def test_labels_of_the_dee_figure_name_every_point_once_and_do_not_overlap(suite: str, line: str) -> None:
    results = read_results(REFERENCE / suite)
    with matplotlib.rc_context(RC):
        figure = FIGURES["dee_vs_flops"](results, styles(results))
        renderer = FigureCanvasAgg(figure).get_renderer()
    shown = results.others[~results.others["control"] & results.others["macs_rel"].notna()]
    near = spans(results)[1]
    assert near is not None
    names = names_of(shown) | names_of(shown[shown["macs_rel"].between(*near)])
    assert line in names
    for row, kind in enumerate(("raw", "cal")):
        texts = [text for ax in figure.axes[2 * row : 2 * row + 2] for text in ax.texts if text.get_text()]
        published = [f"{p.method}, {p.size}" for p in published_points(results) if p.kind == kind and p.y > 0]
        ensembles = [f"DE-{m}" for m in range(2, 9) if m < figure.axes[0].get_xlim()[1]]
        assert sorted(text.get_text() for text in texts) == sorted([*names, *published, *ensembles])
        boxes = [Text.get_window_extent(text, renderer) for text in texts]
        assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_costs_are_enlarged_where_most_of_them_crowd() -> None:
    low, high = crowded(np.array([1.0, 1.0, 1.1, 1.16, 1.16, 1.2, 2.4]), 1.5)
    assert (low, high) == pytest.approx((0.98, 1.22))
    assert crowded(np.array([1.0, 1.5, 2.0, 2.5]), 1.6) is None  # spread already
    assert crowded(np.array([1.16, 1.16, 1.16]), 1.1) is None  # nothing would spread
    assert crowded(np.array([1.0866, 1.0867, 1.0868, 1.0867]), 1.1) is None  # hardly anything would
    assert crowded(np.array([]), 1.1) is None


@given(st.lists(st.floats(0, 10), max_size=12), st.floats(0.01, 2))
def test_stacked_labels_keep_their_distance_order_and_limits(heights: list[float], gap: float) -> None:
    moved = stack(heights, gap, 0, 10)
    least = min(gap, 10 / max(1, len(heights) - 1))
    ordered = moved[np.argsort(heights, kind="stable")]
    assert (np.diff(ordered) >= least - 1e-9).all()
    assert ((moved >= -1e-9) & (moved <= 10 + 1e-9)).all()


def test_stacked_labels_move_no_further_than_they_must() -> None:
    assert stack([1.0, 5.0, 9.0], 1, 0, 10) == pytest.approx([1, 5, 9])
    assert stack([5.0, 5.0, 9.0, 5.0], 1, 0, 10) == pytest.approx([4, 5, 9, 6])
    assert stack([0.0, 0.1], 1, 0, 10) == pytest.approx([0, 1])


def test_representative_size_is_the_commonest_or_the_nearest() -> None:
    frame = pd.DataFrame({"label": ["DE", "DE", "A", "A", "B", "C"], "size": [1, 5, 3, 5, 2, 5]})
    assert representative_sizes(frame) == {"DE": 5, "A": 5, "B": 2, "C": 5}


# ---------------------------------------------------------------------------- more methods than a figure can show


def methods(count: int) -> list[tuple]:
    """Deep ensembles and ``count`` methods, each worse than the one before it; the last one is the cheapest."""
    others = [
        (f"M{i}", f"m{i}", "ed", 3, 0.08 + 0.0001 * i, 0.078 + 0.0001 * i, 0.968, 1.0 if i == count - 1 else 1.2)
        for i in range(count)
    ]
    return METHODS[:8] + others


def test_as_many_methods_as_figures_can_show_are_all_drawn(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path, methods(MOST)))
    assert drawn(results) is results
    assert selection_note(results) == ""


def test_of_more_methods_figures_draw_the_front_and_the_best_and_tables_have_all(tmp_path: Path) -> None:
    rows = write_results(tmp_path / "rows", methods(60))
    results = read_results(rows)
    for frame in (drawn(results).summary, drawn(results).rows, drawn(results).reliability):
        assert set(frame["label"]) == {"DE", "M59", *(f"M{i}" for i in range(MOST - 1))}
    render(rows, tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert page.count(f"The figure shows {MOST} of 60 methods: those on the Pareto front of cost and cNLL") == 8
    for name in ("main", "sizes"):
        assert {f"M{i}" for i in range(60)} < set(pd.read_csv(tmp_path / "out/tables" / f"{name}.csv")["label"])
    assert page.count('<th scope="row" class="text">M47</th>') == 2 + 3 + 3  # in tables of scores, sizes, differences
    assert {f"M{i}" for i in range(60)} < {row["label"] for row in chart_data(results)}
