"""Predictions, bundles, result rows and published figures that are damaged: a sentence, and no file is touched."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from benchmarks.store.artefacts import Store
from dbn_core.rng import digest
from tests.stress.asking import Box, answered, sandbox, tries
from tests.stress.figures import Tally
from tests.stress.mutations import TEXTS, damaged, scrambled

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference" / "digits"
PUBLISHED = ROOT / "results" / "published" / "bridge-network.csv"
SMOKE = (ROOT / "benchmarks" / "suites" / "smoke.toml").read_text(encoding="utf-8")
ROWS = ("rows.csv", "summary.csv", "comparisons.csv", "reliability.csv")


# Predictions

SHAPES = [(6, 3), (2, 6, 3), (6,), (6, 1), (0, 3), (6, 0), (3, 6), (1, 2, 6, 3), (), (5, 3)]
DTYPES = ["f8", "f4", "f2", "i8", "u1", "?", "c16", "O", "U3", "S3", "M8[s]", "g", "f8,i4"]
SUFFIXES = (".npz", ".npy", ".csv", ".parquet", ".txt")


@st.composite
def arrays(draw: st.DrawFn, shapes: list[tuple[int, ...]] = SHAPES) -> np.ndarray:
    """Probabilities of six examples in three classes, and what people save instead."""
    shape, dtype = draw(st.sampled_from(shapes)), draw(st.sampled_from(["f8", *DTYPES]))
    numbers = np.random.default_rng(draw(st.integers(0, 3))).dirichlet(
        np.ones(shape[-1] if shape else 1) + 1, shape[:-1]
    )
    numbers = np.asarray(numbers).reshape(shape)
    if numbers.size and draw(st.booleans()):
        wrong = st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 2.0, 1e308, -1e308, 0.0, 5.0])
        numbers.reshape(-1)[draw(st.integers(0, numbers.size - 1))] = draw(wrong)
    if dtype == "f8,i4":
        return np.zeros(shape, dtype)
    with np.errstate(all="ignore"):
        return (
            np.nan_to_num(numbers, posinf=9, neginf=-9).clip(0, 9).astype(dtype)
            if dtype not in ("f8", "f4", "f2", "g")
            else numbers.astype(dtype)
        )


@st.composite
def labels(draw: st.DrawFn) -> np.ndarray:
    """Class numbers of six examples, and what people save instead."""
    good = [np.arange(6) % 3, np.arange(6), np.arange(6) - 1, np.eye(3)[[0, 1, 2, 0, 1, 2]], np.array(1)]
    bad = [np.arange(6) / 2, np.full(6, np.nan), np.full(6, 2**63, "u8"), np.array(["a"] * 6), np.zeros(0)]
    return draw(st.one_of(st.sampled_from(good), st.sampled_from(bad), arrays([(6,), (5,), (6, 1)])))


def as_file(suffix: str, array: np.ndarray, truth: np.ndarray | None) -> bytes:
    """An array as a file of that kind, as well as the kind can."""
    import pandas as pd

    stream = io.BytesIO()
    if suffix == ".npz":
        np.savez(stream, probs=array, **({} if truth is None else {"labels": truth}))
    elif suffix == ".npy":
        np.save(stream, array)
    elif suffix == ".parquet" and array.ndim:
        columns: dict[str, Any] = {str(k): list(column) for k, column in enumerate(array.T)}
        if truth is not None and truth.shape == array.shape[:1]:
            columns["label"] = list(truth)
        pd.DataFrame(columns).to_parquet(stream)
    else:
        rows = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerows([range(rows.shape[1]), *rows.tolist()])
        return text.getvalue().encode("utf-8", "replace")
    return stream.getvalue()


def saved(suffix: str, array: np.ndarray, truth: np.ndarray | None) -> bytes:
    try:
        return as_file(suffix, array, truth)
    except Exception:  # a kind of file that cannot hold such an array
        return as_file(".npy", array, truth)


@tries(400, 8)
@given(array=arrays(), truth=labels(), suffix=st.sampled_from(SUFFIXES), apart=st.booleans(), command=st.booleans())
def test_predictions(
    tally: Tally, array: np.ndarray, truth: np.ndarray, suffix: str, apart: bool, command: bool
) -> None:
    with sandbox() as box:
        box.file(f"p{suffix}", saved(suffix, array, None if apart else truth))
        box.file("labels.npy", saved(".npy", truth, None))
        words = ["score", f"p{suffix}"] if command else ["compare", f"p{suffix}", f"p{suffix}"]
        answered(tally, box, [*words, *(["--labels", "labels.npy"] if apart else [])])


GOOD = np.random.default_rng(0).dirichlet(np.ones(3), 6)


@tries(300, 6)
@given(data=st.data(), suffix=st.sampled_from(SUFFIXES), where=st.sampled_from(["p", "labels", "validation"]))
def test_files_of_predictions_that_are_damaged(tally: Tally, data: st.DataObject, suffix: str, where: str) -> None:
    with sandbox() as box:
        for name, array in {"p": GOOD, "validation": GOOD, "labels": np.arange(6) % 3}.items():
            content = saved(suffix, array, np.arange(6) % 3 if name != "labels" else None)
            box.file(name + suffix, data.draw(scrambled(content)) if name == where else content)
        words = ["score", f"p{suffix}", "--labels", f"labels{suffix}"]
        answered(tally, box, [*words, "--validation", f"validation{suffix}", "--validation-labels", f"labels{suffix}"])


def test_an_array_beyond_all_memory(tally: Tally) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }".ljust(117) + b"\n"
    with sandbox() as box:
        box.file("p.npy", b"\x93NUMPY\x01\x00v\x00" + header)
        answered(tally, box, ["score", "p.npy", "--labels", "p.npy"], ["p.npy"], refused=True)


# Bundles

KEY = digest({"kind": "cost", "macs": 5})


def bundle(names: dict[str, bytes], **manifest: Any) -> bytes:
    """A zip archive with a manifest that fits its contents, whatever they are called."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in names.items()}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"format": 1, "suite": "digits", "sha256": sums} | manifest))
        for name, content in names.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a good bundle holds: result rows and one artefact."""
    store = Store(tmp_path_factory.mktemp("store"))
    store.put("cost", KEY, {"recipe": {"macs": 5}})
    rows = {f"rows/{name}": (REFERENCE / name).read_bytes()[:2000] for name in (*ROWS, "meta.json")}
    return rows | {f"store/cost/{KEY[:2]}/{KEY}.json": store.sidecar_path("cost", KEY).read_bytes()}


_COST = f"cost/{KEY[:2]}/{KEY}"
EVIL = [
    *("../x", "/tmp/x", "store/../../x.json", "rows/../../x", "store\\..\\x", "C:\\x", "store/cost/ab/../../../x.json"),
    *(f"store/../ab/{KEY}.json", f"store/{_COST}.py", f"store/{_COST}.json/", f"STORE/{_COST}.json", "rows/rows.csv\n"),
    *("rows/", "rows/.meta.json.tmp", f"store/{_COST[:-1]}.json", "manifest.json/x", "ä"),
]


def take(tally: Tally, box: Box, content: bytes, refused: bool = False) -> None:
    box.file("bundle.zip", content)
    answer = answered(tally, box, ["store", "import", "bundle.zip", "--store", box.store], ["bundle"], refused)
    if answer.code == 0:
        written = [name for name in box.contents() if name != "cwd/bundle.zip"]
        runs = [name.split("/") for name in written if not name.startswith("store/")]
        assert all(way[:3] == ["cwd", "results", "runs"] and len(way) == 5 for way in runs), written


@tries(120, 4)
@given(name=st.sampled_from(EVIL))
def test_bundles_with_evil_names(tally: Tally, contents: dict[str, bytes], name: str) -> None:
    with sandbox() as box:
        take(tally, box, bundle(contents | {name: b"{}"}), refused=True)


@tries(150, 4)
@given(data=st.data())
def test_bundles_that_are_damaged(tally: Tally, contents: dict[str, bytes], data: st.DataObject) -> None:
    with sandbox() as box:
        take(tally, box, data.draw(scrambled(bundle(contents))))


@tries(150, 4)
@given(tree=damaged({"format": 1, "suite": "digits", "sha256": {"a": "b"}}), whole=st.booleans())
def test_bundles_with_a_wrong_manifest(
    tally: Tally, contents: dict[str, bytes], tree: dict[str, Any], whole: bool
) -> None:
    try:
        tree = json.loads(json.dumps(tree, default=str))
    except ValueError:  # a number that no JSON can hold
        reject()
    if whole:  # everything else is right
        tree.pop("sha256", None)
    with sandbox() as box:
        take(tally, box, bundle(contents, **tree))


def written(tree: dict[str, Any]) -> str:
    """A tree as JSON; half of one where it holds a number that cannot be written."""
    try:
        return json.dumps(tree, default=str, indent=1)
    except ValueError:
        return json.dumps(list(tree))[:-1]


# Result rows, published figures, claims


@st.composite
def bad_tables(draw: st.DrawFn, text: str) -> str:
    """A CSV file in which cells, rows or columns went wrong."""
    rows = list(csv.reader(io.StringIO(text)))
    for _ in range(draw(st.integers(1, 2))):
        if len(rows) < 2 or not rows[0]:
            break
        row, column = draw(st.integers(0, len(rows) - 1)), draw(st.integers(0, len(rows[0]) - 1))
        how = draw(st.sampled_from(["cell", "cell", "cell", "column", "row", "twice", "all"]))
        if how == "cell" and column < len(rows[row]):
            cells = st.sampled_from(
                ["", "nan", "inf", "-inf", "-1", "0", "1e308", "1e-300", "x", "<1", "3.5", "9" * 400]
            )
            rows[row][column] = draw(st.one_of(cells, TEXTS.map(lambda text: text[:300])))
        elif how == "column":
            rows = [cells[:column] + cells[column + 1 :] for cells in rows]
        elif how == "row":
            del rows[row]
        elif how == "twice":
            rows.insert(row, list(rows[row]))
        elif how == "all":
            rows = rows[:1]
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue()


def rows_folder(box: Box, data: st.DataObject) -> str:
    """The committed rows of digits with one file damaged; gives its name."""
    chosen = data.draw(st.sampled_from([*ROWS, "meta.json", "meta.json"]))
    for name in (*ROWS, "meta.json"):
        text = (REFERENCE / name).read_text(encoding="utf-8")
        if name == chosen == "meta.json":
            text = written(data.draw(damaged(json.loads(text))))
        elif name == chosen:
            text = data.draw(bad_tables(text))
        if name != chosen or data.draw(st.integers(0, 9)):
            content = text.encode("utf-8", "replace")
            box.file(
                f"rows/{name}",
                data.draw(scrambled(content)) if name == chosen and data.draw(st.integers(0, 3)) == 0 else content,
            )
    return chosen


@tries(150, 2)
@given(data=st.data())
def test_claims_on_damaged_rows(tally: Tally, data: st.DataObject) -> None:
    with sandbox() as box:
        chosen = rows_folder(box, data)
        answered(tally, box, ["claims", "--rows", "rows"], [chosen])


@tries(40, 1)
@given(data=st.data())
def test_report_of_damaged_rows(tally: Tally, data: st.DataObject) -> None:
    with sandbox() as box:
        chosen = rows_folder(box, data)
        answered(tally, box, ["report", "digits", "--rows", "rows"], [chosen, "no result rows"])


@tries(150, 4)
@given(table=bad_tables(PUBLISHED.read_text(encoding="utf-8")), data=st.data())
def test_published_figures(tally: Tally, table: str, data: st.DataObject) -> None:
    with sandbox() as box:
        content = table.encode("utf-8", "replace")
        box.file("results/published/mine.csv", data.draw(st.one_of(st.just(content), scrambled(content))))
        box.file("suite.toml", f'{SMOKE}\n[published]\ndata = "CIFAR-10"\n')
        answered(tally, box, ["status", "suite.toml", "--store", box.store], ["mine.csv", "published"])
