"""The results of a suite as the report reads them: its tables, and what its task says of scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel

from benchmarks.environment import RUNTIME_PREFIXES
from benchmarks.published import Published
from dbn_core.tasks.base import Score

EXTERNAL_FAMILY = "external"  # predictions made elsewhere
ENDS = ("", "_low", "_high")

COSTS = (
    *("params", "params_rel", "macs", "flops", "macs_rel"),
    *("latency_b1_p50_ms", "latency_b1_p95_ms", "latency_b1_ratio", "latency_batch_ratio", "throughput_examples_per_s"),
    *("train_seconds", "train_seconds_with_members", "student_passes", "teacher_passes"),
)
_TRAINING = ("train_member_equivalents", "train_member_equivalents_least")  # derived, see `training`
RUNTIMES = tuple(
    f"{prefix}_{place}_{value}"
    for prefix in RUNTIME_PREFIXES.values()
    for place in ("b1", "batch")
    for value in ("p50_ms", "p95_ms", "ratio")
    if f"{prefix}_{place}_{value}" not in COSTS
)


@dataclass(frozen=True)
class ScoreInfo(Score):
    """One score of a task, as tables and figures show it."""

    @property
    def scale(self) -> int:
        """Factor from a value to what is shown."""
        return 100 if self.percent else 1


class TaskInfo(BaseModel):
    """What a suite is about: see :meth:`dbn_core.tasks.base.Task.describe`."""

    name: str
    headline: str
    reference: str
    reference_label: str
    plotted_scores: list[str]
    axis: tuple[str, str]
    summary: str
    curves: dict[str, str]
    scores: dict[str, ScoreInfo]
    sample_figures: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Results:
    """The result files of one suite, see `load_results` for their columns, and the papers' published figures.

    `records` is there if a method recorded something in training, `shifts` if the suite tests shifted images,
    `risk_coverage` if it classifies and its rows are not older than that, and `samples` if the task stores some: arrays
    by method and name.
    """

    summary: pd.DataFrame
    rows: pd.DataFrame
    comparisons: pd.DataFrame
    reliability: pd.DataFrame
    meta: dict[str, Any]
    published: Published | None = None
    records: pd.DataFrame | None = None
    shifts: pd.DataFrame | None = None
    samples: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    risk_coverage: pd.DataFrame | None = None

    @cached_property
    def task(self) -> TaskInfo:
        """What the suite is about; classification unless `meta.json` says otherwise."""
        return TaskInfo.model_validate(self.meta.get("task") or classification())

    @property
    def classifies(self) -> bool:
        """Whether the suite is about the classification of images."""
        return self.task.name == "classification"

    @property
    def lite(self) -> bool:
        """Whether methods were only tried (`run --lite`), so that nothing is ranked."""
        return bool(self.meta.get("lite"))

    @property
    def reference(self) -> pd.DataFrame:
        """Rows of the reference method (deep ensembles in classification), by size."""
        return self.summary[self.summary["family"] == self.task.reference]

    @property
    def others(self) -> pd.DataFrame:
        """Rows of all other methods."""
        return self.summary[self.summary["family"] != self.task.reference]

    @property
    def main(self) -> pd.DataFrame:
        """Rows of the summary without controls, as the figures show them."""
        return self.summary[~self.summary["control"]]

    @property
    def statistics(self) -> list[str]:
        """How intervals and p-values were computed, in sentences."""
        return list(self.meta.get("statistics") or self.meta.get("intervals") or [])

    @property
    def bootstrapped(self) -> bool:
        """Whether the rows have bootstrap intervals in place of the present ones; claims do not rest on them."""
        return "statistics" not in self.meta

    @property
    def test(self) -> str:
        """The test behind marks and p-values."""
        return str(self.meta.get("test") or "paired t test, corrected by Holm, 5 %")

    @cached_property
    def scores(self) -> dict[str, ScoreInfo]:
        """The scores of the task that the summary has a value for."""
        return {
            name: score
            for name, score in self.task.scores.items()
            if f"{name}_mean" in self.summary and self.summary[f"{name}_mean"].notna().any()
        }

    def scores_of(self, table: str) -> dict[str, ScoreInfo]:
        """Those of them that a table of the report shows."""
        return {name: score for name, score in self.scores.items() if score.table == table}

    def curves_of(self, table: str) -> dict[str, str]:
        """The columns of equivalents that a table of the report shows, and their scores."""
        task = self.task
        return {
            curve: score
            for curve, score in task.curves.items()
            if task.scores[score].table == table and curve in self.summary
        }

    @property
    def series(self) -> dict[str, str]:
        """The name under which figures connect the entries of a series, by label."""
        return dict(self.meta.get("series") or {}) if not self.classifies else {}

    @property
    def runtimes(self) -> list[str]:
        """The runtimes in which something was timed."""
        timed = {runtime: f"{prefix}_batch_p50_ms" for runtime, prefix in RUNTIME_PREFIXES.items()}
        return [runtime for runtime, column in timed.items() if self.summary.get(column, pd.Series()).notna().any()]

    @property
    def costs(self) -> list[str]:
        """The columns of cost that the summary has."""
        runtimes = (column for column in RUNTIMES if self.runtimes and column in self.summary)
        return [*COSTS, *_TRAINING, *runtimes]

    @property
    def max_size(self) -> int | None:
        """Largest size of the reference: a deep-ensemble equivalent above it is censored."""
        stated = (self.meta.get("dee") or {}).get("max_size")
        sizes = self.reference["size"]
        return int(stated) if stated else (int(sizes.max()) if len(sizes) else None)


def classification() -> dict[str, Any]:
    """What `meta.json` leaves out for suites that classify."""
    from dbn_core.tasks.classification import Classification

    return Classification().describe()
