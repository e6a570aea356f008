"""Read the result files of a suite and check that they hold what the report needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ValidationError

from benchmarks.environment import RUNTIME_PREFIXES
from benchmarks.published import Published, published_for
from benchmarks.report.training import with_training
from dbn_core.errors import ArtefactError, shown

SCORES = ("acc", "nll", "brier", "ece", "cnll", "cbrier", "cece", "temperature", "kl_to_ensemble")
NEWER_SCORES = ("ece_debiased", "cece_debiased")  # rows of before there were such have no columns of them
MARKED_SCORES = tuple(score for score in (*SCORES, *NEWER_SCORES) if score != "temperature")
REFERENCE_FAMILY = "de"
ADDED_FAMILY = "external"  # predictions made elsewhere

_NAMES = ("method", "label", "family")
COSTS = (
    *("params", "params_rel", "macs", "flops", "macs_rel"),
    *("latency_b1_p50_ms", "latency_b1_p95_ms", "latency_b1_ratio", "latency_batch_ratio", "throughput_examples_per_s"),
    *("train_seconds", "train_seconds_with_members", "student_passes", "teacher_passes"),
)
TRAINING = ("train_member_equivalents", "train_member_equivalents_least")  # derived, see `training`
# Rows of before there were several runtimes have columns of eager torch alone, and not its time for a batch.
_RUNTIMES = tuple(
    f"{prefix}_{place}_{value}"
    for prefix in RUNTIME_PREFIXES.values()
    for place in ("b1", "batch")
    for value in ("p50_ms", "p95_ms", "ratio")
    if f"{prefix}_{place}_{value}" not in COSTS
)
_DEE = tuple(f"dee_{kind}{end}" for kind in ("raw", "cal") for end in ("", "_low", "_high"))
_FITTED = tuple(f"dee_{kind}_fit{end}" for kind in ("raw", "cal") for end in ("", "_low", "_high"))
_BOOTSTRAPPED = (
    "Intervals of means: Student's t over repetitions alone, which leaves out what test examples add.",
    "Differences, p-values and the intervals of DEE: a paired bootstrap over (repetition, example); both methods are "
    "scored on the same resampled examples, so a difference can be significant although the two intervals overlap. "
    "With three repetitions such intervals are too narrow (where repetitions matter most they cover three quarters), "
    "the more so where repetitions share one pool of members. The p-values are not corrected for the number of "
    "comparisons. The predictions behind these rows were not kept, so today's tests cannot be made from them.",
)
_REMEDY = "run `dbn-bench run SUITE` to write it again"


@dataclass(frozen=True)
class Results:
    """The result files of one suite, see `load_results` for their columns, and the papers' figures beside them.

    `records` is there where a method recorded something in training, `shifts` where the suite tries shifted images.
    """

    summary: pd.DataFrame
    rows: pd.DataFrame
    comparisons: pd.DataFrame
    reliability: pd.DataFrame
    meta: dict[str, Any]
    published: Published | None = None
    records: pd.DataFrame | None = None
    shifts: pd.DataFrame | None = None

    @property
    def task(self) -> dict[str, Any] | None:
        """What the suite is about (:meth:`dbn_core.tasks.base.Task.describe`); None where images are classified."""
        return self.meta.get("task")

    @property
    def reference_family(self) -> str:
        """The method that is the yardstick."""
        return self.task["reference"] if self.task else REFERENCE_FAMILY

    @property
    def reference(self) -> pd.DataFrame:
        """Rows of the summary that are deep ensembles, by size."""
        return self.summary[self.summary["family"] == self.reference_family]

    @property
    def others(self) -> pd.DataFrame:
        """Rows of the summary that are not deep ensembles."""
        return self.summary[self.summary["family"] != self.reference_family]

    @property
    def main(self) -> pd.DataFrame:
        """Rows of the summary without controls: what the figures show."""
        return self.summary[~self.summary["control"]]

    @property
    def bootstrapped(self) -> bool:
        """Whether the rows are older than the t intervals over repetitions and examples."""
        return "statistics" not in self.meta

    @property
    def statistics(self) -> list[str]:
        """How intervals and p-values were made and what they speak of, in sentences."""
        return list(_BOOTSTRAPPED if self.bootstrapped else self.meta["statistics"])

    @property
    def scores(self) -> list[str]:
        """The scores that the summary has."""
        return [score for score in (*SCORES, *NEWER_SCORES) if f"{score}_mean" in self.summary]

    @property
    def runtimes(self) -> list[str]:
        """The runtimes in which something was timed; none for rows that are older than such times."""
        timed = {runtime: f"{prefix}_batch_p50_ms" for runtime, prefix in RUNTIME_PREFIXES.items()}
        return [runtime for runtime, column in timed.items() if self.summary.get(column, pd.Series()).notna().any()]

    @property
    def costs(self) -> list[str]:
        """The columns of cost that the summary has."""
        runtimes = (column for column in _RUNTIMES if self.runtimes and column in self.summary)
        return [*COSTS, *TRAINING, *runtimes]

    @property
    def max_size(self) -> int | None:
        """Largest deep ensemble measured: a deep-ensemble equivalent above it is censored."""
        stated = (self.meta.get("dee") or {}).get("max_size")
        sizes = self.reference["size"]
        return int(stated) if stated else (int(sizes.max()) if len(sizes) else None)


def load_results(rows_dir: Path) -> Results:
    """Read `summary.csv`, `rows.csv`, `comparisons.csv`, `reliability.csv` and `meta.json` of `rows_dir`.

    So are `records.csv`, which suites have whose methods recorded something while they trained, and `shifts.csv` of
    suites that try shifted images (its columns: :mod:`benchmarks.results.shifts`).

    Where the suite names a data set of the papers, their figures come along (see `benchmarks.published`).
    The rows of the summary come back with deep ensembles first, then each other label in order of appearance, by size;
    controls, which their column `control` marks, go last.

    Raises:
        ArtefactError: a file or a column is missing or unreadable.
        SpecError: the suite names a data set for which nothing is published.
    """
    meta = read_meta(rows_dir / "meta.json")
    scores, marked, dee = SCORES, [score for score in MARKED_SCORES if score not in NEWER_SCORES], _DEE
    if task := meta.get("task"):
        scores = tuple(task["scores"])
        marked = [name for name, score in task["scores"].items() if score["better"]]
        dee = tuple(f"{name}{end}" for name in task["curves"] for end in ("", "_low", "_high"))
    summary = _read(
        rows_dir / "summary.csv",
        text=(*_NAMES, *(f"{score}_mark" for score in marked)),
        numbers=("size", "n", *(f"{s}_{end}" for s in scores for end in ("mean", "low", "high")), *dee, *COSTS),
        flags=("latency_noisy",),
        newer=(
            *(f"{s}_{end}" for s in NEWER_SCORES for end in ("mean", "low", "high")),
            *(*_FITTED, *_RUNTIMES, "member_passes"),
        ),
    )
    if "cost_stated" not in summary:  # rows of before methods could state a cost
        summary["cost_stated"] = "False"
    summary["cost_stated"] = summary["cost_stated"].str.lower() == "true"
    if summary.empty:
        raise ArtefactError(f"{rows_dir / 'summary.csv'} holds no row; {_REMEDY}.")
    summary = with_training(summary, REFERENCE_FAMILY)
    rows = _read(
        rows_dir / "rows.csv",
        text=("suite", *_NAMES, "split", "metric"),
        numbers=("size", "repetition", "value"),
    )
    comparisons = _read(
        rows_dir / "comparisons.csv",
        text=("method", "label", "reference", "metric"),
        numbers=("size", "difference", "low", "high", "p_value"),
        newer=("p_holm",),
    )
    bins = ("size", "bin", "lower", "upper", "count", "confidence", "accuracy")
    reliability = pd.DataFrame(columns=["label", "method"])
    if not task:
        reliability = _read(rows_dir / "reliability.csv", text=_NAMES, numbers=bins, flags=("calibrated",))
    records = None
    if (rows_dir / "records.csv").is_file():
        records = _read(
            rows_dir / "records.csv",
            text=(*_NAMES, "part", "training", "name"),
            numbers=("size", "repetition", "value"),
        )
    reference = task["reference"] if task else REFERENCE_FAMILY
    summary["control"] = summary["label"].isin(meta.get("controls") or [])
    if summary.loc[summary["family"] != reference, "control"].all():
        summary["control"] = False  # a run of controls alone is about them
    renamed = _clashing_labels(summary)
    shifts = None
    if (rows_dir / "shifts.csv").is_file():
        numbers = ("size", "level", "n", "mean", "low", "high")
        shifts = _read(rows_dir / "shifts.csv", text=(*_NAMES, "set", "metric"), numbers=numbers)
    for frame in (summary, rows, comparisons, reliability, *(f for f in (records, shifts) if f is not None)):
        frame["label"] = frame["label"].where(~frame["label"].isin(renamed), frame["method"])
    if (twice := summary.duplicated(["label", "size"])).any():
        label, size = summary.loc[twice, ["label", "size"]].iloc[0]
        raise ArtefactError(f"{rows_dir / 'summary.csv'} has two rows of '{label}' at size {size}; {_REMEDY}.")
    published = _published(meta, rows_dir / "meta.json")
    return Results(_ordered(summary, reference), rows, comparisons, reliability, meta, published, records, shifts)


def _read(
    path: Path, text: Sequence[str], numbers: Sequence[str], flags: Sequence[str] = (), newer: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a CSV as text first, so that a label such as "NA" or "None" stays a label.

    `newer` numbers may be missing.
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
    for column in (*numbers, *(column for column in newer if column in frame)):
        try:
            frame[column] = frame[column].replace("", "nan").to_numpy(dtype=object).astype(float)
        except ValueError as error:
            raise ArtefactError(f"{path} has a value in {column} that is no number ({error}); {_REMEDY}.") from None
    if not frame["size"].between(1, 1e6).all():
        raise ArtefactError(f"{path} has a row without a size; {_REMEDY}.")
    frame["size"] = frame["size"].astype(int)
    for column in flags:
        frame[column] = frame[column].str.lower().isin(["true", "1", "1.0"])
    return frame


class Tuning(BaseModel):
    """How many settings of a method were tried, and what chose among them."""

    settings: int | None = None
    on: str
    varied: str = ""


class _Task(BaseModel):
    """What a suite is about, where it is not classification: see :meth:`dbn_core.tasks.base.Task.describe`."""

    name: str
    headline: str
    reference: str
    reference_label: str
    plotted_scores: list[str]
    axis: tuple[str, str]
    summary: str
    curves: list[str]
    scores: dict[str, dict[str, Any]]
    sample_figures: dict[str, dict[str, str]]


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
    task: _Task | None = None
    statistics: list[str] = []
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


def _published(meta: Mapping[str, Any], path: Path) -> Published | None:
    spec = meta.get("published")
    if spec is None:
        return None
    if not isinstance(spec, Mapping) or not isinstance(spec.get("data"), str):
        raise ArtefactError(f"{path} has a `published` that names no `data`; {_REMEDY}.")
    differences = spec.get("differences") or []
    return published_for(spec["data"], [differences] if isinstance(differences, str) else map(str, differences))


def _clashing_labels(summary: pd.DataFrame) -> set[str]:
    """Labels that two methods share at one size; their full specs are shown instead."""
    return set(summary.loc[summary.duplicated(["label", "size"], keep=False), "label"])


def _ordered(summary: pd.DataFrame, reference: str) -> pd.DataFrame:
    first_seen = {label: position for position, label in enumerate(dict.fromkeys(summary["label"]))}
    keys = summary.assign(_other=summary["family"] != reference, _seen=summary["label"].map(first_seen))
    order = keys.sort_values(["_other", "control", "_seen", "size"], kind="stable").index
    return summary.loc[order].reset_index(drop=True)
