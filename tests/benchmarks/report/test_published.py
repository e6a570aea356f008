"""The papers' figures as data, and the report that shows them beside ours."""

from __future__ import annotations

import csv
import json
import re
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import benchmarks.published as published
from benchmarks.published import MARKS, PublishedFigure, load_published, published_folder, published_for
from benchmarks.report import read_results, render
from benchmarks.report.figures.overlay import MARKERS, published_points
from benchmarks.report.figures.style import MARKERS as OURS
from benchmarks.report.page.captions import captions
from benchmarks.report.tables.published import figure_text, matched, published_table
from benchmarks.run import Options, _meta, plan_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.work.schedule import Outcome
from dbn_core.errors import ArtefactError, BenchError, SpecError
from tests.benchmarks.report.made_up import METHODS, change_meta, write_results

CHECKOUT = Path(__file__).resolve().parents[3] / "results/published"
FIGURES = load_published(CHECKOUT)
DBN, BN = "arXiv 2404.15814", "arXiv 2306.11304"


def find(paper: str, data: str, method: str, size: int, metric: str, **more: object) -> PublishedFigure:
    wanted = {"paper": paper, "data": data, "method": method, "size": size, "metric": metric} | more
    (found,) = [f for f in FIGURES if all(getattr(f, name) == value for name, value in wanted.items())]
    return found


# --- the figures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "value", "spread", "mark"),
    [
        ((DBN, "CIFAR-10", "de", 1, "acc"), "0.9130", "0.0010", "NB"),
        ((DBN, "CIFAR-10", "de", 9, "acc"), "0.9400", "0.0000", "NB"),
        ((DBN, "CIFAR-10", "bn", 5, "flops_rel"), "1.822", None, "NB"),
        ((DBN, "CIFAR-10", "bn", 7, "dee_raw"), "1.940", None, "NB"),
        ((DBN, "CIFAR-10", "dbn", 3, "acc", ""), "0.9298", "0.0016", "NB"),
        ((DBN, "CIFAR-10", "dbn", 3, "nll", ""), "0.240", None, "DER"),
        ((DBN, "CIFAR-10", "dbn", 5, "dee_raw", ""), "3.031", None, "NB"),
        ((DBN, "CIFAR-10", "dbn", 7, "flops_rel"), "1.498", None, "DER"),
        ((DBN, "CIFAR-10", "dbn", 9, "dee_raw"), None, None, "?"),
        ((DBN, "CIFAR-10", "dbn", 8, "acc", "capacity"), "0.9294", "0.0006", "NB"),
        ((DBN, "CIFAR-10", "dbn", 8, "nll", "capacity"), "0.2378", None, "DER"),
        ((DBN, "CIFAR-10", "ed", 3, "acc"), "0.9196", "0.0042", "NB"),
        ((DBN, "CIFAR-10", "end2", 7, "acc"), "0.9197", "0.0026", "NB"),
        ((DBN, "CIFAR-10", "ed", 7, "dee_raw"), "-Infinity", None, "DER"),
        ((DBN, "TinyImageNet", "de", 3, "acc"), "0.6098", None, "REV"),
        ((DBN, "TinyImageNet", "dbn", 3, "acc"), "0.6215", None, "REV"),
        ((DBN, "ImageNet 64x64", "de", 3, "cnll"), "1.1969", None, "NB"),
        ((DBN, "ImageNet 64x64", "dbn", 3, "acc"), None, None, "?"),
        ((BN, "CIFAR-10", "de", 3, "cnll", "", "ResNet-32 x2 (FRN)"), "0.2156", "0.0036", "BNY"),
        ((BN, "CIFAR-10", "de", 7, "acc", "", "ResNet-32 x2 (BatchNorm)"), "0.9491", "0.0004", "BNY"),
        ((BN, "CIFAR-100", "de", 1, "acc", "", "ResNet-32 x4 (FRN)"), "0.7406", "0.0031", "BNY"),
        ((BN, "TinyImageNet", "de", 2, "acc", "", "ResNet-34 (BatchNorm)"), "0.6692", "0.0022", "BNY"),
        ((BN, "ImageNet", "de", 7, "acc"), "0.7824", "0.0004", "BNY"),
        ((BN, "TinyImageNet", "bn", 4, "acc"), "0.6582", None, "REV"),
        ((BN, "TinyImageNet", "bn", 5, "cnll", "small"), "1.380", "0.001", "NB"),
        ((BN, "ImageNet", "bn", 2, "flops_rel", "medium"), "1.194", None, "NB"),
        (("arXiv 2602.15971", "CIFAR-10", "pd+b-dense", 128, "fid"), "20.81", None, "A"),
        (("arXiv 2602.15971", "ImageNet 64x64", "sfd+b-dense", 3, "fid"), "6.54", None, "A"),
        (("arXiv 2601.11444", "FFHQ 256x256", "mixture-of-experts", 4, "fid_10k"), "20.36", None, "B"),
        (("arXiv 2601.11444", "Iris", "dominant", 100, "w1"), "0.46", None, "B"),
    ],
)
def test_values_are_those_of_the_papers(where: tuple, value: str | None, spread: str | None, mark: str) -> None:
    more = dict(zip(("variant", "network"), where[5:], strict=False))
    figure = find(*where[:5], **more)
    # As text, so that no digit of the source is lost.
    assert (figure.value is None) == (value is None)
    assert value is None or str(figure.value) == value
    assert (None if figure.spread is None else str(figure.spread)) == spread
    assert figure.provenance == mark


def test_nothing_is_missing() -> None:
    count = {mark: sum(f.provenance == mark for f in FIGURES if f.paper in (DBN, BN)) for mark in MARKS}
    assert count["BNY"] == 2 * (7 * 4 + 5 * 3)  # ACC and cNLL of DE-1 to 7 on four data sets, and with BatchNorm
    assert count["REV"] == 3
    assert count["NB"] == 109
    bridges = [f for f in FIGURES if f.paper == BN and f.method == "bn"]
    assert len(bridges) == 2 * 2 * 4 * 3 + 1  # data sets, sizes of bridge, their number, metrics; and a reviewer's


def test_only_what_the_authors_released_counts_as_primary() -> None:
    for figure in FIGURES:
        derived = figure.source.startswith("computed") or figure.below_one
        quoted = any(word in figure.source for word in ("review", "third party", "printed tables"))
        assert figure.primary != (derived or quoted), figure
        assert derived == (figure.provenance == "DER"), figure
        assert (figure.value is None) == (figure.provenance == "?"), figure
        if figure.paper == DBN and figure.data == "TinyImageNet":
            assert figure.note.startswith("unreliable")


@pytest.mark.parametrize("data", ["CIFAR-10", "TinyImageNet", "ImageNet"])
def test_derived_values_follow_from_the_published_ones(data: str) -> None:
    """Invert NLL and DEE on the deep-ensemble curve of the same paper, by linear interpolation."""
    paper, score, dee = (DBN, "nll", "dee_raw") if data == "CIFAR-10" else (BN, "cnll", "dee_cal")
    curve: dict[int, float] = {}
    for f in FIGURES:  # the first in the file counts, as in the report: the second is rounded
        if (f.paper, f.data, f.method, f.metric) == (paper, data, "de", score) and "BatchNorm" not in f.network:
            curve.setdefault(f.size or 0, float(f.value or 0))
    sizes, values = sorted(curve), [curve[size] for size in sorted(curve)]
    assert sizes[:5] == [1, 2, 3, 4, 5]
    checked = 0
    for f in FIGURES:
        if (f.paper, f.data, f.metric) != (paper, data, dee) or f.method == "de" or f.below_one or f.value is None:
            continue
        same = (f.method, f.variant, f.size)
        scores = [
            g
            for g in FIGURES
            if (g.paper, g.data, g.metric) == (paper, data, score) and (g.method, g.variant, g.size) == same
        ]
        for g in scores:
            assert g.value is not None
            assert np.interp(-float(g.value), [-v for v in values], sizes) == pytest.approx(float(f.value), abs=0.07)
            checked += 1
    assert checked >= 8


# --- refusals ---------------------------------------------------------------------------------------------------------

COLUMNS = list(PublishedFigure.model_fields)
GOOD = dict(zip(COLUMNS, [
    "arXiv 1", "Table 1", "X", "net", "de", "", "3", "members", "", "acc", "fraction", "0.93", "0.001", "std", "A", "",
], strict=True))  # fmt: skip


def write(folder: Path, *rows: dict[str, str], columns: list[str] = COLUMNS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mine.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([row[name] for name in columns if name in row] for row in rows)
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"provenance": "BNYY"}, "unknown provenance 'BNYY' (did you mean 'BNY'?)"),
        ({"value": "ninety"}, "value 'ninety': write a finite number"),
        ({"value": ""}, "a value is empty if, and only if, its provenance is '?'"),
        ({"value": "93.0"}, "divide a percentage by 100"),
        ({"value": "<1"}, "only dee_raw and dee_cal can be <1"),
        ({"spread": "-0.001"}, "spread '-0.001'"),
        ({"unit": "%"}, "the unit of acc is 'fraction', not '%'"),
        ({}, "repeats a row of de, size 3, acc"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line(tmp_path: Path, change: dict[str, str], words: str) -> None:
    folder = write(tmp_path, GOOD, {**GOOD, "size": "5"}, {**GOOD, **({"size": "7"} if change else {}), **change})
    with pytest.raises(ArtefactError) as error:
        load_published(folder)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'mine.csv'}, line 4: ")
    assert words in message
    assert message.count("\n") == 0


def test_a_wrong_header_or_field_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"mine\.csv, line 2: metric: field required"):
        load_published(write(tmp_path, GOOD, columns=[c for c in COLUMNS if c != "metric"]))
    (tmp_path / "mine.csv").write_text(",".join(COLUMNS) + "\n" + ",".join(GOOD.values()) + ",one too many\n")
    with pytest.raises(ArtefactError, match=r"line 2: \(a field without a column\)"):
        load_published(tmp_path)
    (tmp_path / "mine.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ArtefactError, match=r"mine\.csv is not a readable CSV"):
        load_published(tmp_path)


def test_the_working_directory_comes_before_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert published_folder() == CHECKOUT
    write(tmp_path / "results/published", GOOD)
    found = published_for("X", ["other splits"])
    assert found is not None
    assert found.differences == ("other splits",)
    (figure,) = found.figures
    assert (figure.value, figure.spread, figure.bridges) == (Decimal("0.93"), Decimal("0.001"), None)
    monkeypatch.setattr(published, "FOLDER", Path("results/nowhere"))
    assert published_for("X") is None


# --- suites -----------------------------------------------------------------------------------------------------------


def test_a_suite_names_its_data_set_and_the_report_hears_of_it(tmp_path: Path) -> None:
    extra = {"published.data": "CIFAR-10", "published.differences": ["Fewer epochs."]}
    plan = plan_suite(load_suite("smoke", extra), Store(tmp_path))
    meta = json.loads(json.dumps(_meta(plan, Options(), {"predictors": {}}, [], Outcome())))
    assert meta["published"] == {"data": "CIFAR-10", "differences": ["Fewer epochs."]}
    plain = plan_suite(load_suite("smoke"), Store(tmp_path))
    assert "published" not in _meta(plain, Options(), {"predictors": {}}, [], Outcome())


def test_a_misspelt_data_set_is_refused_at_once() -> None:
    with pytest.raises(SpecError, match="did you mean 'CIFAR-10'"):
        load_suite("smoke", {"published.data": "CIFAR10"})


# --- the report -------------------------------------------------------------------------------------------------------

DIFFERENCES = ["The papers train on <other> splits", "They train longer."]


def results_for(folder: Path, data: str | None, methods: list[tuple] = METHODS) -> Path:
    write_results(folder, methods)
    return folder if data is None else change_meta(folder, published={"data": data, "differences": DIFFERENCES})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    render(results_for(folder / "rows", "CIFAR-10"), folder / "out")
    return folder


def test_ours_stand_above_the_published_ones_of_the_same_size(report: Path) -> None:
    table = published_table(read_results(report / "rows"))
    assert table is not None
    assert table.header == ["Method", "Size", "ACC % ↑", "NLL ↓", "cNLL ↓", "DEE (raw) ↑", "FLOPs rel."]
    blocks = {
        block.title.split(" (")[-1].rstrip(")"): [[c.text for c in row] for row in block.rows] for block in table.blocks
    }
    assert list(blocks) == ["DE", "ED", "END²", "BN", "DBN"]
    dbn = [row for row in blocks["DBN"] if row[1] == "5"]
    assert [row[0] for row in dbn] == [
        "DBN (fixed)",
        "DBN (paper)",
        "Kim et al. (2024): ResNet-32 x2 (FRN), 2 bridges",
    ]
    assert dbn[0][3] == "0.0825 ± 0.0021"
    assert dbn[0][-1] == "1.33×"
    assert dbn[2][2:] == ["93.23 ± 0.07 (NB)", "≈ 0.225 (DER)", "–", "3.031 (NB)", "1.332× (NB)"]
    ed = [row for row in blocks["ED"] if row[0].startswith("Kim")]
    assert ed[0][2:] == ["91.96 ± 0.42 (NB†)", "–", "–", "< 1 (DER†)", "≈ 1× (DER)"]
    # Size 8 has no published deep ensemble, and published sizes that we do not measure stay out.
    assert {row[1] for row in blocks["DE"]} == set("1234567")
    assert {row[1] for row in blocks["BN"]} == set("235")
    marks = {cell.mark for block in table.blocks for row in block.rows for cell in row if row[0].text.startswith("Kim")}
    assert marks == {"published"}


def test_a_bridge_of_five_members_is_not_two_bridges_of_three(tmp_path: Path) -> None:
    wide = ("DBN wide", "dbn[members_per_bridge=5,preset=fixed]", "dbn", 5, 0.085, 0.082, 0.97, 1.17)
    results = read_results(results_for(tmp_path, "CIFAR-10", [*METHODS[:8], wide]))
    theirs = [line for _, found in matched(results) for line in found if line.method == "dbn"]
    assert [(line.bridges, line.variant) for line in theirs] == [(1, "capacity")]


def test_every_format_has_the_section(report: Path) -> None:
    page, text = (report / "out/report.html").read_text(), (report / "out/report.md").read_text()
    for content in (page, text):
        assert "Published figures" in content
        assert "93.23 ± 0.07 (NB)" in content
        assert "≈ 0.225 (DER)" in content
        assert "They train longer." in content
        assert "ours count the multiply-adds" in content
    assert "DER, computed or inferred by this project" in text
    assert "&lt;other&gt; splits" in page
    assert "<other>" not in page
    assert '<span class="published">93.23 ± 0.07 (NB)</span>' in page
    tex = (report / "out/tables/published.tex").read_text()
    assert r"$\approx$ 0.225 (DER)" in tex
    assert r"(NB\textdagger{})" in tex
    assert all(char not in tex for char in "≈†±×²")
    frame = pd.read_csv(report / "out/tables/published.csv")
    row = frame[
        (frame["paper"] == DBN) & (frame["family"] == "dbn") & (frame["size"] == 5) & (frame["metric"] == "acc")
    ]
    assert row[["value", "spread", "provenance", "bridges"]].to_numpy().tolist() == [[0.9323, 0.0007, "NB", 2]]


def test_without_the_key_or_the_files_the_report_does_not_mention_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in (None, "CIFAR-10"):
        rows = results_for(tmp_path / "rows", data)
        written = render(rows, tmp_path / "out")
        assert not [path for path in written if path.name.startswith("published")]
        for name in ("report.md", "report.html"):
            text = re.sub(r"base64,[^\"]+", "", (tmp_path / "out" / name).read_text())
            assert "Published figures" not in text
            assert "Kim et al." not in text
        assert not published_points(read_results(rows))
        monkeypatch.setattr(published, "FOLDER", Path("results/nowhere"))


def test_a_data_set_nobody_published_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no figures for the data set 'CIFAR-11'"):
        read_results(results_for(tmp_path, "CIFAR-11"))
    with pytest.raises(ArtefactError, match="`published` that names no `data`"):
        read_results(change_meta(tmp_path, published=["CIFAR-10"]))


def test_points_go_to_the_panel_of_their_nll(report: Path, tmp_path: Path) -> None:
    results = read_results(report / "rows")
    points = {(p.kind, p.method, p.size): (p.x, p.y, p.primary) for p in published_points(results)}
    assert {kind for kind, *_ in points} == {"raw"}
    assert not set(MARKERS) & set(OURS)
    assert points["raw", "DBN", 5] == (1.332, 3.031, True)
    assert points["raw", "BN (medium)", 7] == (2.233, 1.94, True)  # also a size that the suite does not measure
    assert points["raw", "BN (medium)", 2] == (1.2055, 1.871, False)
    assert points["raw", "ED", 3] == (1.0, -np.inf, False)
    assert not [key for key in points if key[1] == "DE"]
    tiny = published_points(read_results(results_for(tmp_path, "TinyImageNet")))
    assert {(p.kind, p.primary) for p in tiny} == {("cal", False)}
    assert len(tiny) == 8


def test_the_caption_says_what_cannot_be_compared(report: Path) -> None:
    text = captions(read_results(report / "rows"))["dee_vs_flops"].text
    assert "published for CIFAR-10 (above, raw NLL: Kim et al. (2024))" in text
    assert "DBN) is on raw NLL and that of Yun et al. (2023, BN) on calibrated NLL: the two are not comparable." in text
    assert "dotted: derived or uncertain" in text
    assert "worse than one network: ED, END²." in text
    assert text.endswith("The protocols differ: The papers train on <other> splits. They train longer.")


def test_every_uncertain_value_is_shown_as_such() -> None:
    for figure in FIGURES:
        text = figure_text(figure)
        assert f"({figure.provenance}" in text
        assert ("≈" in text) == (not figure.primary and figure.value is not None and not figure.below_one)
        assert ("†" in text) == bool(figure.note)
