"""The papers' own figures, as data: one CSV file a paper, each value with its source.  Imports no torch or pandas."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dbn_core.errors import ArtefactError, SpecError, did_you_mean

FOLDER = Path("results/published")

# The unit of a value, by metric.
UNITS = {
    **{"acc": "fraction", "nll": "nats", "brier": "squared error", "ece": "fraction"},
    **{"cnll": "nats", "cbrier": "squared error", "cece": "fraction"},
    **{"dee_raw": "members", "dee_cal": "members", "flops_rel": "ratio", "params_rel": "ratio"},
    **{"fid": "distance", "fid_10k": "distance", "kid": "squared distance", "w1": "distance"},
    "score_matching_loss": "squared error",
}

# Where a value comes from.
MARKS = {
    "NB": "hard-coded in a plotting notebook or script of the official DBN repository: what the authors plotted",
    "BNY": "a reference file (YAML) of the official BN repository",
    "A": "an author's repository, README or web page",
    "B": "a third party's published notes on the paper",
    "REV": "quoted by a reviewer or in a third party's review of the paper",
    "SUM": "a machine-written summary of the paper",
    "C": "a machine-written summary of the paper, known to be in conflict with another source",
    "DER": "computed or inferred by this project from other published values",
    "O": "measured by this project",
    "?": "exists in the paper, not recovered",
}
PRIMARY = frozenset({"NB", "BNY", "A"})
SIZE_KINDS = ("members", "steps", "nfe", "trees")
PAPERS = {"arXiv 2404.15814": "Kim et al. (2024)", "arXiv 2306.11304": "Yun et al. (2023)"}

_BELOW_ONE = Decimal("-Infinity")
_IDENTITY = ("paper", "source", "data", "network", "method", "variant", "size", "size_kind", "bridges", "metric")


class PublishedFigure(BaseModel):
    """One number of one paper; `results/README.md` explains the columns.

    Numbers are decimals, so that a report shows as many digits as the paper did.  A deep-ensemble equivalent "worse
    than one network" is written `<1` and read as minus infinity, as in the suite's own result rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, defer_build=True)

    paper: str = Field(min_length=1)
    source: str = Field(min_length=1)
    data: str = Field(min_length=1)
    network: str
    method: str = Field(min_length=1)
    variant: str
    size: int | None = Field(ge=1)
    size_kind: str
    bridges: int | None = Field(ge=0)
    metric: str
    unit: str
    value: Decimal | None = Field(allow_inf_nan=True)
    spread: Decimal | None = Field(ge=0)
    spread_kind: str
    provenance: str
    note: str

    @field_validator("size", "bridges", "spread", mode="before")
    @classmethod
    def _empty(cls, text: str) -> str | None:
        return text.strip() or None

    @field_validator("value", mode="before")
    @classmethod
    def _number(cls, text: str) -> Decimal | None:
        text = text.strip()
        if text in ("", "<1"):
            return _BELOW_ONE if text else None
        try:
            value = Decimal(text)
        except InvalidOperation:
            value = Decimal("nan")
        if not value.is_finite():
            raise ValueError("write a finite number, or <1 for a deep-ensemble equivalent worse than one network")
        return value

    @field_validator("metric", "provenance", "size_kind")
    @classmethod
    def _known(cls, word: str, info: Any) -> str:
        known: Iterable[str] = {"metric": UNITS, "provenance": MARKS, "size_kind": SIZE_KINDS}[info.field_name]
        if word not in known:
            raise ValueError(f"unknown {info.field_name} '{word}'{did_you_mean(word, known)}")
        return word

    @model_validator(mode="after")
    def _consistent(self) -> PublishedFigure:
        if self.unit != UNITS[self.metric]:
            raise ValueError(f"the unit of {self.metric} is '{UNITS[self.metric]}', not '{self.unit}'")
        if (self.value is None) != (self.provenance == "?"):
            raise ValueError("a value is empty if, and only if, its provenance is '?'")
        if self.below_one and not self.metric.startswith("dee_"):
            raise ValueError(f"only dee_raw and dee_cal can be <1, not {self.metric}")
        if self.unit == "fraction" and self.value is not None and not 0 <= self.value <= 1:
            raise ValueError(f"{self.metric} {self.value} is no fraction: divide a percentage by 100")
        if (self.spread is not None and self.value is None) or (self.spread is None) != (self.spread_kind == ""):
            raise ValueError("a spread needs a value and a spread_kind (for example 'not stated'), and vice versa")
        return self

    @property
    def below_one(self) -> bool:
        """Whether this is a deep-ensemble equivalent below one network."""
        return self.value == _BELOW_ONE

    @property
    def primary(self) -> bool:
        """Whether the authors released the value; any other is shown with a caveat."""
        return self.provenance in PRIMARY

    @property
    def paper_name(self) -> str:
        """Short name of the paper, for legends and tables."""
        return PAPERS.get(self.paper, self.paper)


@dataclass(frozen=True)
class Published:
    """The published figures for a suite's data set, and how their protocol differs from the suite's."""

    data: str
    differences: tuple[str, ...]
    figures: tuple[PublishedFigure, ...]


def published_folder() -> Path | None:
    """Folder of the CSV files: below the working directory, or else in the checkout of this file."""
    places = (FOLDER, Path(__file__).resolve().parent.parent / FOLDER)
    return next((place for place in places if any(place.glob("*.csv"))), None)


def load_published(folder: Path) -> tuple[PublishedFigure, ...]:
    """Read and check every CSV file of `folder`, in the order of their names.

    Raises:
        ArtefactError: a wrong column, row or value, named with its file and line.
    """
    figures: dict[tuple[Any, ...], PublishedFigure] = {}
    for path in sorted(folder.glob("*.csv")):
        try:
            with path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file, restkey="(a field without a column)", restval="", strict=True)
                rows = [(reader.line_num, row) for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ArtefactError(f"{path} is not a readable CSV file in UTF-8 ({error}): restore it.") from None
        for line, row in rows:
            try:
                figure = PublishedFigure.model_validate(row)
            except ValidationError as error:
                _refuse(path, line, _reason(error))
            identity = tuple(getattr(figure, name) for name in _IDENTITY)
            if identity in figures:
                _refuse(path, line, f"repeats a row of {figure.method}, size {figure.size}, {figure.metric}")
            figures[identity] = figure
    return tuple(figures.values())


def published_for(data: str, differences: Iterable[str] = ()) -> Published | None:
    """Figures published for a data set; None if the files are missing (an install without the checkout).

    Raises:
        ArtefactError: see `load_published`.
        SpecError: no file has a figure for that data set.
    """
    folder = published_folder()
    if folder is None:
        return None
    figures = load_published(folder)
    chosen = tuple(figure for figure in figures if figure.data == data)
    if not chosen:
        raise SpecError(
            f"{folder} has no figures for the data set '{data}'{did_you_mean(data, {f.data for f in figures})}: "
            "correct `data` in the suite's [published], or leave that table out."
        )
    return Published(data, tuple(differences), chosen)


def _refuse(path: Path, line: int, reason: str) -> NoReturn:
    where = "correct that row (results/README.md explains the columns)"
    raise ArtefactError(f"{path}, line {line}: {reason}; {where}.") from None


def _reason(error: ValidationError) -> str:
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    value = "" if problem["type"] == "missing" else f" '{problem['input']}'"
    return f"{problem['loc'][0]}{value}: {message[0].lower()}{message[1:]}"
