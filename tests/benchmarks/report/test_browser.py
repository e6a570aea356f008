"""The HTML report in a browser, from a file and without a network: what a reader can do with it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.report import render
from tests.benchmarks.report.test_report import write_results

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium: install Debian's package `chromium`")

# Runs in the page when it is ready, does what a reader would do, and leaves what is then seen in the document.
PROBE = """<script type="module">
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
for (let i = 0; i < 200 && !document.documentElement.dataset.explorable; i++) await wait(50);
const seen = {};
const table = document.querySelector("table.dataTable");
const container = table.closest(".dt-container");
const heads = () => [...table.tHead.rows[0].cells];
const titles = () => heads()
  .map((head) => head.querySelector(".dt-column-title").textContent.replaceAll("\\u00a0", " "));
const head = (name) => heads()[titles().indexOf(name)];
const rows = (name, of = table) => [...of.tBodies[0].rows].map((row) =>
  row.cells.length === 1 ? row.textContent : row.cells[name ? titles().indexOf(name) : 0].textContent);
const points = () => [...document.querySelectorAll("#explore-figure path[aria-roledescription=point]")]
  .map((point) => point.getAttribute("aria-label"));
const axes = () => [...document.querySelectorAll("#explore-figure .role-axis-title text")]
  .map((text) => text.textContent);
const choose = async (select, value) => {
  select.value = value;
  for (const type of ["input", "change"]) select.dispatchEvent(new Event(type, { bubbles: true }));
  await wait(200);
};
const press = async (button) => { button.click(); await wait(200); };
const filter = async (name, ...values) => {
  await press(head(name).querySelector(".dtcc-button_dropdown"));
  for (const value of values) await press(document.querySelector(`.dtcc-dropdown button[aria-label="${value}"]`));
  await press(document.body);
};

seen.tables = document.querySelectorAll("table.dataTable").length;
seen.atFirst = { rows: rows(), points: points(), axes: axes() };

await press(head("NLL ↓").querySelector(".dt-column-order"));
seen.sorted = rows("NLL ↓");
await press(head("DEE (raw) ↑").querySelector(".dt-column-order"));
await press(head("DEE (raw) ↑").querySelector(".dt-column-order"));
seen.sortedByDee = rows("DEE (raw) ↑");
await filter("Size", "3");
seen.ofSizeThree = rows("Size");
await filter("Method", "ED", "DBN (blind, MSE)");
seen.ofTwoMethods = rows();
const find = container.querySelector("input[type=search]");
find.value = "dbn";
find.dispatchEvent(new Event("input", { bubbles: true }));
await wait(600);
seen.found = rows();

const scores = (box) => box.querySelector("label > select");
await choose(scores(container), "calibrated");
seen.calibrated = titles();
await choose(scores(container), "raw and calibrated");
seen.both = titles();
const bySize = document.querySelectorAll("table.dataTable")[1];
await choose(scores(bySize.closest(".dt-container")), "raw");
seen.rawBlocks = rows("", bySize).filter((text, i) => bySize.tBodies[0].rows[i].cells.length === 1);

const box = (name) => [...document.querySelectorAll("#explore-shown label")]
  .find((label) => label.textContent === name).querySelector("input");
await press(box("DBN"));
seen.withoutDbn = points();
await press(box("DBN"));
await press(box("Controls"));
seen.controls = document.querySelectorAll("#explore-figure path[aria-roledescription=circle]").length;
await press(box("Every size of the deep ensemble"));
seen.everySize = points();
const [across, up] = document.querySelectorAll("#explore-axes select");
await choose(across, "latency_b1_p50_ms");
await choose(up, "acc");
seen.otherAxes = { points: points(), axes: axes() };

const sorting = head("NLL ↓").querySelector(".dt-column-order");
const filtering = head("Method").querySelector("button");
seen.keyboard = [across, up, box("DBN"), find, scores(container), filtering, sorting].every((it) => it.tabIndex === 0);
sorting.focus();
sorting.dispatchEvent(new KeyboardEvent("keypress", { key: "Enter", keyCode: 13, which: 13, bubbles: true }));
await wait(200);
seen.sortedByKey = head("NLL ↓").getAttribute("aria-sort");
const result = document.createElement("pre");
result.id = "probe";
result.textContent = JSON.stringify(seen);
document.body.append(result);
</script>"""


def browse(page: Path, option: str) -> str:
    """Open a page, let its scripts run, do what the option says; return what is written, the browser's log last."""
    flags = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--virtual-time-budget=60000"),
        *("--window-size=1280,6000", f"--user-data-dir={page.parent / 'profile'}"),
    )
    command = [BROWSER, *flags, option, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + "".join(f"{line}\n" for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    rows = write_results(folder / "rows")
    meta = json.loads((rows / "meta.json").read_text())
    (rows / "meta.json").write_text(json.dumps(meta | {"controls": ["DBN (paper)"]}))
    render(rows, folder / "out")
    return folder / "out/report.html"


@pytest.fixture(scope="module")
def seen(page: Path) -> dict:
    tried = page.with_name("tried.html")
    tried.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    document = browse(tried, "--dump-dom")
    assert "CONSOLE" not in document.rpartition("</html>")[2]
    found = re.search(r'<pre id="probe">(.*?)</pre>', document, re.DOTALL)
    assert found, "the page was never ready"
    return json.loads(html.unescape(found[1]))


def summary(page: Path) -> pd.DataFrame:
    return pd.read_csv(page.parent.parent / "rows/summary.csv")


def blocks(cells: list[str]) -> dict[str, list[str]]:
    """Cells by the heading of their block."""
    titles = ("Deep ensembles (the yardstick)", "Other methods", "Controls")
    found: dict[str, list[str]] = {}
    for cell in cells:
        if cell in titles:
            found[cell] = []
        else:
            found[list(found)[-1]].append(cell)
    return found


def number(text: str) -> float:
    return -1e9 if text.startswith("<") else 1e9 if text.startswith(">") else float(re.findall(r"[\d.]+", text)[0])


def test_tables_sort_within_their_blocks(seen: dict, page: Path) -> None:
    at_first = blocks(seen["atFirst"]["rows"])
    assert list(at_first) == ["Deep ensembles (the yardstick)", "Other methods", "Controls"]
    for cells in blocks(seen["sorted"]).values():
        values = [number(cell) for cell in cells]
        assert values == sorted(values)
    worths = {title: [number(cell) for cell in cells] for title, cells in blocks(seen["sortedByDee"]).items()}
    assert list(worths) == list(at_first)
    assert all(values == sorted(values, reverse=True) for values in worths.values())
    assert (worths["Other methods"][0], worths["Other methods"][-1]) == (1e9, -1e9)  # "> 8" first, "< 1" last
    assert sum(map(len, worths.values())) == len(summary(page))


def test_tables_filter_by_method_size_and_text(seen: dict) -> None:
    assert {cell for cells in blocks(seen["ofSizeThree"]).values() for cell in cells} == {"3"}
    assert blocks(seen["ofTwoMethods"]) == {"Other methods": ["DBN (blind, MSE)", "ED"]}
    assert blocks(seen["found"]) == {"Other methods": ["DBN (blind, MSE)"]}


def test_tables_show_raw_or_calibrated_scores(seen: dict) -> None:
    assert {"cNLL ↓", "cECE % ↓", "DEE (calibrated) ↑", "ACC % ↑", "FLOPs rel."} <= set(seen["calibrated"])
    assert not {"NLL ↓", "BS ↓", "ECE % ↓", "DEE (raw) ↑"} & set(seen["calibrated"])
    assert {"NLL ↓", "cNLL ↓"} <= set(seen["both"])
    assert seen["rawBlocks"] == ["ACC % ↑", "NLL ↓"]
    assert seen["tables"] == 3


def test_points_name_method_values_and_intervals(seen: dict, page: Path) -> None:
    points = {point.split("\n")[0]: point.split("\n")[1:] for point in seen["atFirst"]["points"]}
    rows = summary(page).set_index(["label", "size"])
    row = rows.loc["DBN (blind, MSE)", 5]
    low, high = f"{row['dee_raw_low']:.4g}", f"{row['dee_raw_high']:.4g}"
    assert points["DBN (blind, MSE), size 5, n = 3"] == [
        f"DEE (raw), members ↑: {row['dee_raw']:.4g} [{low}, {high}]",
        "FLOPs (one network = 1): 1.33",
    ]
    assert points["ED, size 3, n = 3"][0].startswith("DEE (raw), members ↑: < 1")
    assert "DE, size 3, n = 3" not in points  # dearer than any method, and than one network beyond it
    assert "DE, size 2, n = 3" in points
    assert not any(name.startswith(("DBN (paper)", "a_b")) for name in points)  # a control; and no cost is known
    assert sorted(seen["atFirst"]["axes"]) == ["DEE (raw), members ↑", "FLOPs (one network = 1)"]


def test_families_can_be_hidden_and_controls_and_ensembles_shown(seen: dict) -> None:
    assert {point for point in seen["atFirst"]["points"] if point not in seen["withoutDbn"]} == {
        point for point in seen["atFirst"]["points"] if point.startswith("DBN")
    }
    assert seen["withoutDbn"]
    assert seen["controls"] == 2
    assert {f"DE, size {size}, n = 3" for size in range(1, 9)} <= {point.split("\n")[0] for point in seen["everySize"]}


def test_the_axes_can_be_chosen(seen: dict, page: Path) -> None:
    assert sorted(seen["otherAxes"]["axes"]) == ["ACC % ↑", "Latency at batch 1, median (ms)"]
    row = summary(page).set_index(["label", "size"]).loc["BN", 2]
    (point,) = [point for point in seen["otherAxes"]["points"] if point.startswith("BN, size 2")]
    values = [f"{100 * row[f'acc_{end}']:.4g}" for end in ("mean", "low", "high")]
    assert point.split("\n")[1:] == [
        f"ACC % ↑: {values[0]} [{values[1]}, {values[2]}]",
        f"Latency at batch 1, median (ms): {row['latency_b1_p50_ms']:.4g}",
        "latency: a noisy measurement",
    ]


def test_the_controls_can_be_reached_by_keyboard(seen: dict) -> None:
    assert seen["keyboard"]
    assert seen["sortedByKey"] == "ascending"


def test_without_scripts_the_page_looks_as_if_nothing_could_be_explored(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    forbidden = text.replace(
        "<head>", """<head><meta http-equiv="Content-Security-Policy" content="script-src 'none'">"""
    )
    bare = re.sub(r'<section id="explore".*?</section>|<script.*?</script>', "", text, flags=re.DOTALL)
    assert len(bare) < 0.9 * len(text)
    pictures = []
    for name, version in (("forbidden", forbidden), ("bare", bare), ("whole", text)):
        file = page.with_name(f"{name}.html")
        file.write_text(version, encoding="utf-8")
        pictures.append(file.with_suffix(".png"))
        logged = browse(file, f"--screenshot={pictures[-1]}")
        assert ("script-src" in logged) == (name == "forbidden")
    without, plain, lively = (np.asarray(Image.open(picture).convert("L"), np.int16) for picture in pictures)

    def differing(other: np.ndarray) -> float:
        return float((np.abs(without - other) > 16).mean())

    # The browser draws in tiles, whose edges may differ by a pixel between two runs.
    assert differing(plain) < 0.005
    assert differing(lively) > 0.05
