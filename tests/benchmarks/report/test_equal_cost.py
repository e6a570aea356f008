"""Equal cost: what training cost in trainings of one member, Pareto fronts, and the best within a budget."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from benchmarks.report.figures.figures import FIGURES, RC
from benchmarks.report.figures.pareto import front
from benchmarks.report.figures.style import styles
from benchmarks.report.load import read_results
from benchmarks.report.model import Results
from benchmarks.report.page.captions import captions
from benchmarks.report.tables.budget import budget_frame, budget_note, budget_table
from benchmarks.report.tables.formatting import to_latex, to_markdown
from benchmarks.report.training import cost_text, member_equivalents

ROWS = Path(__file__).resolve().parents[3] / "results/reference"
NAN, INF = math.nan, math.inf

# ------------------------------------------------------------------------------------------------------ training cost


@pytest.mark.parametrize(
    ("passes", "macs_rel", "least", "most"),
    [
        # One member passes 60 epochs of 100 images: 6,000 forward and backward.
        ((6_000, 0, 0), 1.0, 1.0, 1.0),  # one network
        ((48_000, 0, 0), 8.0, 8.0, 8.0),  # a deep ensemble of eight trains nothing of its own
        ((18_000, 6_000, 18_000), 1.0, 3 + 1, 3 + 1 + 1),  # a student of three, as long as a member
        ((18_000, 12_000, 0), 0.25, 3, 3 + 2 * 0.25),  # twice as long, a quarter as wide, teachers' logits at hand
        ((48_000, 9_000, 72_000), 1.2, 8 + 4, 8 + 4 + 1.5 * 1.2),
        ((6_000, 0, 0), NAN, 1.0, 1.0),  # nothing is trained, so that its FLOPs do not matter
        ((6_000, 6_000, 0), NAN, 1.0, NAN),
        ((NAN, 6_000, 0), 1.0, NAN, NAN),
        ((6_000, 6_000, NAN), 1.0, NAN, NAN),
    ],
)
def test_training_is_counted_in_members(
    passes: tuple[float, float, float], macs_rel: float, least: float, most: float
) -> None:
    assert member_equivalents(*passes, macs_rel, 6_000) == pytest.approx((least, most), nan_ok=True)
    assert all(map(math.isnan, member_equivalents(*passes, macs_rel, NAN)))
    assert all(map(math.isnan, member_equivalents(*passes, macs_rel, 0)))


def test_a_committed_student_costs_what_its_passes_say() -> None:
    summary = read_results(ROWS / "digits").summary.set_index(["label", "size"])
    cost = summary["train_member_equivalents"]
    assert cost["DE"].tolist() == pytest.approx(range(1, 9))
    # Five members, five frozen passes at a third, and itself; all of 5,760 examples.
    assert cost["ED", 5] == pytest.approx(5 + 5 / 3 + 1)
    assert summary.loc[("ED", 5), "train_member_equivalents_least"] == pytest.approx(5 + 5 / 3)
    assert cost["Single (temperature-scaled)", 1] == pytest.approx(1)


def altered(folder: Path, suite: str = "digits", **columns: object) -> Results:
    """Committed rows with other columns; None drops one."""
    shutil.copytree(ROWS / suite, folder)
    summary = pd.read_csv(folder / "summary.csv", keep_default_na=False)
    gone = [name for name, value in columns.items() if value is None]
    summary = summary.assign(**{k: v for k, v in columns.items() if v is not None}).drop(columns=gone)
    summary.to_csv(folder / "summary.csv", index=False)
    return read_results(folder)


def test_rows_without_the_members_passes_say_that_they_are_not_recorded(tmp_path: Path) -> None:
    old = altered(tmp_path / "rows", member_passes=None)
    assert old.summary["train_member_equivalents"].isna().all()
    assert cost_text(old.summary["train_member_equivalents"].iloc[0]) == "not recorded"
    assert budget_table(old, budget_frame(old)) is None
    assert "Not drawn, since the training cost is not recorded: ED, END²" in captions(old)["pareto_training"].text
    with matplotlib.rc_context(RC):
        figure = FIGURES["pareto_training"](old, styles(old))
    assert all("no method's cost is known" in [text.get_text() for text in ax.texts] for ax in figure.axes)


# -------------------------------------------------------------------------------------------------------------- fronts


def test_a_front_by_hand() -> None:
    #        front, dominated, front, worse at the same cost, dearer with the same loss, front, equal to it, unknown
    costs = [1.0, 1.5, 2.0, 2.0, 3.0, 4.0, 4.0, NAN]
    losses = [0.9, 1.0, 0.7, 0.8, 0.7, 0.1, 0.1, 0.0]
    assert front(costs, losses).tolist() == [True, False, True, False, False, True, True, False]
    assert front([1, 2, 3], [NAN, INF, -INF]).tolist() == [False, True, True]  # an equivalent beyond the curve
    assert front([], []).tolist() == []


NUMBERS = st.one_of(st.integers(0, 4).map(float), st.floats(0, 4))  # whole ones, so that some are equal


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=25))
def test_nothing_dominates_the_front_and_the_front_dominates_all_else(points: list[tuple[float, float]]) -> None:
    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        return a != b and a[0] <= b[0] and a[1] <= b[1]

    on = front(*zip(*points, strict=True))
    best = [point for point, chosen in zip(points, on, strict=True) if chosen]
    assert best
    for point, chosen in zip(points, on, strict=True):
        assert any(dominates(other, point) for other in best) != chosen
        assert any(dominates(other, point) for other in points) != chosen


# ------------------------------------------------------------------------------------------------------------- figures


@pytest.fixture(scope="module")
def results() -> Results:
    return read_results(ROWS / "cifar10-small")


@pytest.fixture(scope="module", params=["macs_rel", "train_member_equivalents"])
def drawn(request: pytest.FixtureRequest, results: Results) -> tuple[str, Figure]:
    name = {"macs_rel": "pareto_flops"}.get(request.param, "pareto_training")
    with matplotlib.rc_context(RC):
        return request.param, FIGURES[name](results, styles(results))


def test_every_method_stands_at_its_cost_and_its_score(results: Results, drawn: tuple[str, Figure]) -> None:
    cost, figure = drawn
    rows = results.others[~results.others["control"]]
    for ax, score in zip(figure.axes, ("nll_mean", "dee_raw", "cnll_mean", "dee_cal"), strict=True):
        points = {tuple(np.round(at, 6)) for group in ax.collections for at in np.asarray(group.get_offsets())}
        found = rows[np.isfinite(rows[score])]
        assert {(round(x, 6), round(y, 6)) for x, y in zip(found[cost], found[score], strict=True)} <= points
        assert len({x for x, _ in points}) == rows[cost].round(6).nunique()  # the censored ones too


def test_labels_name_every_method_once_and_do_not_overlap(results: Results, drawn: tuple[str, Figure]) -> None:
    _, figure = drawn
    renderer = FigureCanvasAgg(figure).get_renderer()
    rows = results.others[~results.others["control"]]
    names = sorted(f"{label}, {size}" for label, size in zip(rows["label"], rows["size"], strict=True))
    everything: list[Text] = []
    for ax in figure.axes:
        texts = [text for text in ax.texts if text.get_text()]
        assert sorted(text.get_text() for text in texts) == names
        (left, right), heads = ax.get_xlim(), [text for text in ax.get_children() if text in ax.findobj(Text)]
        ticks = [tick for tick in ax.get_xticklabels() if left <= tick.get_position()[0] <= right]
        everything += dict.fromkeys([*heads, *ticks, ax.xaxis.label])
    figure.draw(renderer)  # titles find their places
    boxes = [Text.get_window_extent(text, renderer) for text in everything if text.get_text()]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)


def test_the_front_that_is_drawn_is_that_of_the_methods(results: Results, drawn: tuple[str, Figure]) -> None:
    cost, figure = drawn
    rows = results.others[~results.others["control"]]
    best = rows[front(rows[cost], rows["nll_mean"])]
    line = next(line for line in figure.axes[0].lines if line.get_drawstyle() == "steps-post")
    assert line.get_ydata()[:-1].tolist() == pytest.approx(sorted(best["nll_mean"], reverse=True))
    dark = {text.get_text() for text in figure.axes[0].texts if text.get_color() != "#767676"}
    assert dark == {f"{label}, {size}" for label, size in zip(best["label"], best["size"], strict=True)}
    # Rings: on the front although deep ensembles take part.  Any of them costs less training than it is worth here.
    everyone = results.summary[~results.summary["control"]]
    kept = everyone[front(everyone[cost], everyone["nll_mean"])]
    rings = next(line for line in figure.axes[0].lines if line.get_markersize() == 11)
    left, right = figure.axes[0].get_xlim()
    shown = {round(x, 6) for x in rings.get_xdata() if left <= x <= right}
    assert shown == {round(x, 6) for x in kept[cost] if left <= x <= right}


# ------------------------------------------------------------------------------------------------------------- budgets


def small(folder: Path) -> Results:
    """Deep ensembles of 1 and 2, and two students, of which one is too dear for ten members; by hand from digits."""
    shutil.copytree(ROWS / "digits", folder)
    summary = pd.read_csv(folder / "summary.csv")
    kept = summary[summary["label"].isin(["DE", "ED"]) & (summary["size"] != 4) & (summary["size"] <= 5)]
    kept = kept[~((kept["label"] == "DE") & (kept["size"] > 2))].reset_index(drop=True)
    values = {("DE", 1): 0.40, ("DE", 2): 0.30, ("ED", 3): 0.35, ("ED", 5): 0.32}
    for i, row in kept.iterrows():
        nll = values[row["label"], row["size"]]
        kept.loc[i, ["nll_mean", "nll_low", "nll_high"]] = [nll, nll - 0.01, nll + 0.01]
    kept.loc[kept["size"] == 5, "student_passes"] = 5_760 * 12  # twelve members' training of its own
    kept.to_csv(folder / "summary.csv", index=False)
    return read_results(folder)


def test_the_best_within_a_budget(tmp_path: Path) -> None:
    results = small(tmp_path / "rows")
    frame = budget_frame(results)
    raw = frame[frame["score"] == "nll"].set_index(["training_at_most", "networks_at_most"])
    found = {key: f"{row['label']} {row['size']:.0f}" for key, row in raw.iterrows()}
    assert {key: best for key, best in found.items() if key[0] >= 10} == {
        **{(10, 1.0): "ED 3", (10, 1.2): "ED 3", (10, 2.0): "DE 2"},
        **{(20, 1.0): "ED 5", (20, 1.2): "ED 5", (20, 2.0): "DE 2", (50, 1.0): "ED 5", (50, 1.2): "ED 5"},
        (50, 2.0): "DE 2",
    }
    assert raw.loc[(20, 1.0), "train_member_equivalents"] == pytest.approx(5 + 5 / 3 + 12)
    assert raw.loc[(10, 1.0), ["mean", "low", "high"]].tolist() == pytest.approx([0.35, 0.34, 0.36])
    # ED-5 is marked as the best of the methods, ED-3 as tied with it; DE-1 was tested against both, and differs.
    assert raw.loc[(20, 1.0), ["tied", "compared", "fitting"]].tolist() == ["ED, 3", 2, 3]
    table = budget_table(results, frame)
    assert table is not None
    # A larger budget is listed where it has another best: at two networks that is DE-2 for all budgets of training.
    assert [[cell.text for cell in row][:3] for row in table.blocks[0].rows] == [
        ["2 members", "1.0 networks", "DE-1"],
        ["2 members", "2.0 networks", "DE-2"],
        ["5 members", "1.0 networks", "ED, 3"],
        ["20 members", "1.0 networks", "ED, 5"],
    ]
    assert "0.350 ± 0.010" in to_markdown(table)
    assert "ED, 5 & ED, 3" in to_latex(table)
    assert "made on the test scores" in budget_note(results)


def test_a_budget_that_nothing_fits_is_not_listed(tmp_path: Path) -> None:
    results = altered(tmp_path / "rows", macs_rel=3.0)
    frame = budget_frame(results)
    assert "label" not in frame
    results = altered(tmp_path / "dear", macs_rel=1.5)
    table = budget_table(results, budget_frame(results))
    assert table is not None
    rows = [[cell.text for cell in row][:3] for row in table.blocks[0].rows]
    assert {row[1] for row in rows} == {"2.0 networks"}
    assert [row[::2] for row in rows] == [["2 members", "DE-2"], ["5 members", "DE-5"], ["10 members", "DE-8"]]
