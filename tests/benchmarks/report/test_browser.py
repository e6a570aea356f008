"""The HTML report in a browser, from a file and without a network: what a reader can do with it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.report import render
from tests.benchmarks.report.made_up import change_meta, write_results
from tests.support.sketches import explorable

ROOT = Path(__file__).resolve().parents[3]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium: install Debian's package `chromium`")

# Does in the page what a reader would do, and writes what is then seen into the document.
PROBE = """<script type="module">
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const figure = document.querySelector("#explore-figure");
for (let i = 0; i < 200 && !figure.querySelector("canvas, svg"); i++) await wait(50);
const seen = {};
const box = document.querySelector(".table");
const heads = [...box.querySelector("table").tHead.rows[0].cells];
const head = (name) => heads.find((one) => one.textContent === name);
const rows = (name) => [...box.querySelectorAll("tbody tr")].filter((row) => !row.hidden)
  .map((row) => row.cells[row.cells.length === 1 ? 0 : heads.indexOf(head(name))].textContent);
const press = async (one) => { one.click(); await wait(300); };
const points = () => [...figure.querySelectorAll("[aria-roledescription=point]")]
  .map((point) => point.getAttribute("aria-label"));
const control = (name) => [...figure.querySelectorAll(".vega-bind")]
  .find((one) => one.querySelector(".vega-bind-name").textContent === name).querySelector("input, select");
const choose = async (name, value) => {
  const select = control(name);
  select.value = value;
  for (const type of ["input", "change"]) select.dispatchEvent(new Event(type, { bubbles: true }));
  await wait(300);
};

seen.atFirst = { rows: rows("Method"), points: points(), wide: document.documentElement.scrollWidth };
await press(head("NLL ↓"));
seen.sorted = rows("NLL ↓");
await press(head("DEE (raw) ↑"));
await press(head("DEE (raw) ↑"));
seen.sortedByDee = rows("DEE (raw) ↑");
const find = box.querySelector("input[type=search]");
find.value = "dbn";
find.dispatchEvent(new Event("input", { bubbles: true }));
seen.found = rows("Method");
const shown = () => heads.filter((one) => getComputedStyle(one).display !== "none").map((one) => one.textContent);
seen.columns = shown();
await press(box.querySelector(".all"));
seen.allColumns = shown();

await press(control("DBN"));
seen.withoutDbn = points();
await press(control("DBN"));
await press(control("Every size of DE"));
seen.everySize = points();
await choose("Horizontal", "latency_b1_p50_ms");
await choose("Vertical", "acc");
seen.otherAxes = points();
const result = document.createElement("pre");
result.id = "probe";
result.textContent = JSON.stringify(seen);
document.body.append(result);
</script>"""


def browse(page: Path, option: str) -> str:
    """Open a page, let its scripts run, do what the option says; return what is written, the browser's log last."""
    flags = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *(
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            "--virtual-time-budget=60000",
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ),
        *("--window-size=1280,6000", f"--user-data-dir={page.parent / 'profile'}"),
    )
    command = [BROWSER, *flags, option, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + "".join(f"{line}\n" for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    with explorable():
        render(change_meta(write_results(folder / "rows"), controls=["DBN (paper)"]), folder / "out")
    return folder / "out/report.html"


@pytest.fixture(scope="module")
def seen(page: Path) -> dict:
    tried = page.with_name("tried.html")
    before, end, after = page.read_text(encoding="utf-8").rpartition("</body>")  # scripts may hold the same text
    tried.write_text(f"{before}{PROBE}{end}{after}", encoding="utf-8")
    document = browse(tried, "--dump-dom")
    log = document.rpartition("</html>")[2]
    assert "Uncaught" not in log, log
    assert "ERROR" not in log, log
    found = re.search(r'<pre id="probe">(.*?)</pre>', document, re.DOTALL)
    assert found, "the page was never ready"
    return json.loads(html.unescape(found[1]))


def blocks(cells: list[str]) -> dict[str, list[str]]:
    """Cells by the heading of their block."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        if cell in ("Reference", "Other methods", "Controls"):
            found[cell] = []
        else:
            found[list(found)[-1]].append(cell)
    return found


def number(text: str) -> float:
    return -1e9 if text.startswith("<") else 1e9 if text.startswith(">") else float(re.findall(r"[\d.]+", text)[0])


def test_tables_sort_within_their_blocks_and_are_searched(seen: dict) -> None:
    at_first = blocks(seen["atFirst"]["rows"])
    assert list(at_first) == ["Reference", "Other methods", "Controls"]
    for cells in blocks(seen["sorted"]).values():
        values = [number(cell) for cell in cells]
        assert values == sorted(values)
    worths = {title: [number(cell) for cell in cells] for title, cells in blocks(seen["sortedByDee"]).items()}
    assert all(values == sorted(values, reverse=True) for values in worths.values())
    assert (worths["Other methods"][0], worths["Other methods"][-1]) == (1e9, -1e9)  # "> 8" first, "< 1" last
    assert {label for cells in blocks(seen["found"]).values() for label in cells} == {"DBN (fixed)", "DBN (paper)"}


def test_the_page_does_not_scroll_sideways_and_details_are_shown_on_demand(seen: dict) -> None:
    assert seen["atFirst"]["wide"] <= 1280
    assert {"NLL ↓", "DEE (raw) ↑", "DEE (calibrated) ↑", "FLOPs rel."} <= set(seen["columns"])
    assert {"BS ↓", "Params rel."} <= set(seen["allColumns"]) - set(seen["columns"])


def test_points_name_their_values_and_families_can_be_hidden(seen: dict, page: Path) -> None:
    points = seen["atFirst"]["points"]
    row = pd.read_csv(page.parent.parent / "rows/summary.csv").set_index(["label", "size"]).loc["BN", 2]
    [point] = [point for point in points if "method: BN;" in point and "size: 2" in point]
    assert f"DEE (raw), members ↑: {row['dee_raw']:.4g} [" in point
    assert "FLOPs (one network = 1): 1.21" in point
    assert {point for point in points if point not in seen["withoutDbn"]} == {p for p in points if "method: DBN" in p}
    assert len(seen["everySize"]) > len(points)
    [point] = [point for point in seen["otherAxes"] if "method: BN;" in point and "size: 2" in point]
    assert f"ACC % ↑: {100 * row['acc_mean']:.4g} [" in point
    assert f"Latency at batch 1, median (ms): {row['latency_b1_p50_ms']:.4g} (noisy)" in point


def test_the_leaderboard_of_the_documentation_is_filtered_and_sorted(tmp_path: Path) -> None:
    rows = [("ED", "2.04 [1.8, 2.5]"), ("DE (TTA)", "&gt; 8"), ("Other", "–"), ("DE", "≈ 8"), ("BN", "&lt; 1")]
    lines = "".join(
        f"<tr><td>{label}</td><td>{dee}</td><td><a href=x/report.html>report</a></td></tr>" for label, dee in rows
    )
    table = f"<table><thead><tr><th>Method</th><th>DEE raw</th></tr></thead><tbody>{lines}</tbody></table>"
    probe = """<script>
      const seen = {}, rows = () => [...document.querySelectorAll("tbody tr")].filter((row) => !row.hidden)
        .map((row) => row.cells[0].textContent);
      const [method, dee] = document.querySelectorAll("th");
      for (const name of ["up", "down"]) { dee.click(); seen[name] = rows(); }
      method.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
      seen.named = rows();
      const find = document.querySelector("input");
      for (const words of ["  DE x/REP", "de nothing", ""]) {
        find.value = words;
        find.oninput();
        seen[words] = [...rows(), ...[...document.querySelectorAll("h2, p")].filter((one) => !one.hidden)
          .map((one) => one.textContent)];
      }
      document.body.insertAdjacentHTML("beforeend", `<pre id="probe">${JSON.stringify(seen)}</pre>`);
    </script>"""
    script = (ROOT / "docs/leaderboard.js").read_text(encoding="utf-8")
    other = "<table><thead><tr><th>Key</th></tr></thead><tbody><tr><td>2</td></tr></tbody></table>"
    page = tmp_path / "page.html"
    body = f"<h2>A suite</h2><p>Its data</p>{table}<p>Note</p><h2>B</h2><p>End</p><script>{script}</script>{probe}"
    page.write_text(f"<meta charset=utf-8>{body}", encoding="utf-8")
    seen = json.loads(re.findall(r'<pre id="probe">(.*?)</pre>', browse(page, "--dump-dom"))[-1])
    assert seen["up"] == ["BN", "ED", "DE", "DE (TTA)", "Other"]
    assert seen["down"] == ["DE (TTA)", "DE", "ED", "BN", "Other"]
    assert seen["named"] == sorted(label for label, _ in rows)
    around = ["A suite", "Its data", "Note", "B", "End"]
    assert seen["  DE x/REP"] == ["DE", "DE (TTA)", *around]
    assert seen["de nothing"] == ["B", "End"]  # a section without rows is hidden
    assert seen[""] == [*seen["named"], *around]
    page.write_text(f"<meta charset=utf-8><h2>A page</h2>{other}<script>{script}</script>", encoding="utf-8")
    assert "<input" not in browse(page, "--dump-dom").partition("<script")[0]
