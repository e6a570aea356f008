"""Read the result files of a suite and check that they hold what the report needs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ValidationError

from benchmarks.published import Published, published_for
from benchmarks.report.model import COSTS, ENDS, EXTERNAL_FAMILY, RUNTIMES, Results, TaskInfo, classification
from benchmarks.report.training import with_training
from dbn_core.errors import ArtefactError, shown

_ENDS = ("mean", "low", "high")
_NAMES = ("method", "label", "family")
_REMEDY = "run `dbn-bench run SUITE` to write it again"


def read_results(rows_dir: Path) -> Results:
    """Read `summary.csv`, `rows.csv`, `comparisons.csv` and `meta.json` of `rows_dir`, and what else there is.

    `reliability.csv` and `risk_coverage.csv` belong to suites that classify, `records.csv` to methods that recorded
    something in training, `shifts.csv` to suites that test shifted images (:mod:`benchmarks.results.shifts`), and
    `exhibits.safetensors` to tasks that store samples.  If the suite names a data set of the papers, their figures come
    along.

    The summary starts with the reference, then each other label in order of appearance, by size.  Controls are last,
    marked by the column `control`; the column `added` marks rows that are not of the suite's file.

    Raises:
        ArtefactError: a file or a column is missing or unreadable.
        SpecError: the suite names a data set for which nothing is published.
    """
    meta = read_meta(rows_dir / "meta.json")
    task = TaskInfo.model_validate(meta.get("task") or classification())
    # Rows may be older than a score; one that is there is there whole, and the headline always is.
    known = _columns(rows_dir / "summary.csv")
    there = {
        name: score
        for name, score in task.scores.items()
        if name == task.headline or any(f"{name}_{end}" in known for end in (*_ENDS, "mark"))
    }
    scores = [f"{name}_{end}" for name in there for end in _ENDS]
    curves = [f"{curve}{end}" for curve, score in task.curves.items() if score in there for end in ENDS]
    fitted = [f"{curve}_fit{end}" for curve in task.curves for end in ENDS]
    summary = _read(
        rows_dir / "summary.csv",
        text=(*_NAMES, *(f"{name}_mark" for name, score in there.items() if score.better)),
        numbers=("size", "n", *scores, *curves, *COSTS),
        flags=("latency_noisy",),
        optional=(*fitted, *RUNTIMES, "member_passes"),
    )
    if summary.empty:
        raise ArtefactError(f"{rows_dir / 'summary.csv'} holds no row; {_REMEDY}.")
    summary["cost_stated"] = summary.get("cost_stated", pd.Series("", summary.index)).str.lower() == "true"
    summary = with_training(summary, task.reference)
    rows = _read(
        rows_dir / "rows.csv",
        text=("suite", *_NAMES, "split", "metric"),
        numbers=("size", "repetition", "value"),
    )
    comparisons = _read(
        rows_dir / "comparisons.csv",
        text=("method", "label", "reference", "metric"),
        numbers=("size", "difference", "low", "high", "p_value"),
        optional=("p_holm",),
    )
    if "p_holm" not in comparisons:  # a test that is not corrected; `meta.json` names it
        comparisons["p_holm"] = comparisons["p_value"]
    reliability = pd.DataFrame(columns=["label", "method"])
    if task.name == "classification":
        bins = ("size", "bin", "lower", "upper", "count", "confidence", "accuracy")
        reliability = _read(rows_dir / "reliability.csv", text=_NAMES, numbers=bins, flags=("calibrated",))
    records = shifts = risk_coverage = None
    if (path := rows_dir / "records.csv").is_file():
        records = _read(path, text=(*_NAMES, "part", "training", "name"), numbers=("size", "repetition", "value"))
    if (path := rows_dir / "shifts.csv").is_file():
        numbers = ("size", "level", "n", "mean", "low", "high")
        shifts = _read(path, text=(*_NAMES, "set", "metric"), numbers=numbers)
    if (path := rows_dir / "risk_coverage.csv").is_file():
        risk_coverage = _read(path, text=_NAMES, numbers=("size", "coverage", "risk"))
    summary["control"] = summary["label"].isin(meta.get("controls") or [])
    if summary.loc[summary["family"] != task.reference, "control"].all():
        summary["control"] = False  # a run of controls alone is about them
    summary["added"] = _added(summary, str(meta.get("command") or ""))
    # Labels that two methods share give way to the methods' full specs.
    shared = set(summary.loc[summary.duplicated(["label", "size"], keep=False), "label"])
    some = [frame for frame in (records, shifts, risk_coverage) if frame is not None]
    for frame in (summary, rows, comparisons, reliability, *some):
        frame["label"] = frame["label"].where(~frame["label"].isin(shared), frame["method"])
    if (twice := summary.duplicated(["label", "size"])).any():
        label, size = summary.loc[twice, ["label", "size"]].iloc[0]
        raise ArtefactError(f"{rows_dir / 'summary.csv'} has two rows of '{label}' at size {size}; {_REMEDY}.")
    summary = _ordered(summary, task.reference)
    published = _published(meta, rows_dir / "meta.json")
    exhibits = _exhibits(summary, rows_dir / "exhibits.safetensors")
    return Results(summary, rows, comparisons, reliability, meta, published, records, shifts, exhibits, risk_coverage)


def _columns(path: Path) -> frozenset[str]:
    """The columns of a CSV; none where it cannot be read, which reading it then says."""
    try:
        return frozenset(pd.read_csv(path, dtype=str, nrows=0).columns)
    except (OSError, ValueError):
        return frozenset()


def _read(
    path: Path, text: Sequence[str], numbers: Sequence[str], flags: Sequence[str] = (), optional: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a CSV as text first, so that a label such as "NA" or "None" stays a label.

    `optional` numbers may be missing.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing; {_REMEDY}.") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{path} is not a readable CSV file ({error}); {_REMEDY}.") from None
    missing = [column for column in (*text, *numbers, *flags) if column not in frame]
    if missing:
        raise ArtefactError(f"{path} lacks the column{'s'[: len(missing) > 1]} {', '.join(missing)}; {_REMEDY}.")
    for column in (*numbers, *(column for column in optional if column in frame)):
        try:
            frame[column] = frame[column].replace("", "nan").to_numpy(dtype=object).astype(float)
        except ValueError as error:
            raise ArtefactError(f"{path} has a value in {column} that is no number ({error}); {_REMEDY}.") from None
    if not frame["size"].between(1, 1e6).all():
        raise ArtefactError(f"{path} has a row without a size; {_REMEDY}.")
    frame["size"] = frame["size"].astype(int)
    for column in flags:
        frame[column] = frame[column].str.lower().isin(["true", "1", "1.0"])
    return frame.copy()  # in one piece again, after columns were replaced one by one


class Tuning(BaseModel):
    """How many settings of a method were tried, and what chose among them."""

    settings: int | None = None
    on: str
    varied: str = ""


class _Meta(BaseModel):
    """What the report and the claims read of `meta.json`, each of it optional."""

    suite: str | None = None
    title: str | None = None
    description: str | None = None
    command: str | None = None
    report_command: str | None = None
    dataset: dict[str, Any] | None = None
    controls: list[str] | None = None
    failures: list[Any] | None = None
    latency: dict[str, Any] | None = None
    versions: dict[str, Any] | None = None
    budget: str | list[Any] | None = None
    protocol: str | list[Any] | None = None
    dee: dict[str, int | None] | None = None
    tuning: dict[str, Tuning | None] | None = None
    task: TaskInfo | None = None
    statistics: list[str] = []
    intervals: list[str] = []
    test: str | None = None
    recorded: dict[str, dict[str, str]] = {}


def read_meta(path: Path) -> dict[str, Any]:
    """Read a `meta.json`.

    Raises:
        ArtefactError: the file is missing or unreadable, or a field that is read here is not of its type.
    """
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"{path} is missing; {_REMEDY}.") from None
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is not readable JSON ({error}); {_REMEDY}.") from None
    if not isinstance(meta, dict):
        raise ArtefactError(f"{path} does not hold a JSON object; {_REMEDY}.")
    try:
        _Meta.model_validate(meta)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise ArtefactError(f"{path}: '{where}' is {shown(problem['input'])}: {problem['msg']}; {_REMEDY}.") from None
    return meta


def _added(summary: pd.DataFrame, command: str) -> pd.Series:
    """Mark predictions made elsewhere, and what `--add METHOD@SIZE` in the command names."""
    try:
        words = shlex.split(command.replace("--add=", "--add "))
    except ValueError:
        words = []
    named = {_identity(*word.rpartition("@")[::2]) for flag, word in pairwise(words) if flag == "--add"}
    rows = zip(summary["method"], summary["size"], strict=True)
    joined = pd.Series([_identity(method, str(size)) in named for method, size in rows], summary.index)
    return joined | (summary["family"] == EXTERNAL_FAMILY)


def _identity(spec: str, size: str) -> tuple[frozenset[str], str]:
    """Name and options of a spec in any order, and the size."""
    return frozenset(re.split(r"[\[\],\s]+", spec.strip())), size.strip()


def _published(meta: Mapping[str, Any], path: Path) -> Published | None:
    spec = meta.get("published")
    if spec is None:
        return None
    if not isinstance(spec, Mapping) or not isinstance(spec.get("data"), str):
        raise ArtefactError(f"{path} has a `published` that names no `data`; {_REMEDY}.")
    differences = spec.get("differences") or []
    return published_for(spec["data"], [differences] if isinstance(differences, str) else map(str, differences))


def _ordered(summary: pd.DataFrame, reference: str) -> pd.DataFrame:
    first_seen = {label: position for position, label in enumerate(dict.fromkeys(summary["label"]))}
    keys = summary.assign(_other=summary["family"] != reference, _seen=summary["label"].map(first_seen))
    order = keys.sort_values(["_other", "control", "_seen", "size"], kind="stable").index
    return summary.loc[order].reset_index(drop=True)


def _exhibits(summary: pd.DataFrame, path: Path) -> dict[str, dict[str, np.ndarray]]:
    """Arrays by method and name, of the first repetition, in the order of tables after the data themselves."""
    if not path.is_file():
        return {}
    from safetensors.numpy import load_file

    found: dict[str, dict[str, np.ndarray]] = {"Data": {}}
    arrays = load_file(path)
    for label, size in zip(summary["label"], summary["size"], strict=True):
        who = f"{label}@{size}"
        for key in (key for key in arrays if key.rpartition("/")[0] == who):
            name = key.rpartition("/")[2]
            owner, name = ("Data", name.removeprefix("data:")) if name.startswith("data:") else (who, name)
            found.setdefault(owner, {})[name] = arrays[key]
    return found
