"""Entries of the leaderboard: a folder for each, with one JSON file, predictions and perhaps a plugin.  No torch.

``results/entries/SUITE/NAME/entry.json`` says what the method is, who submits it and how it scored; the predictions
next to it can be scored again (:mod:`benchmarks.results.entries`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dbn_core.errors import ArtefactError, SpecError, did_you_mean

FOLDER = Path("results/entries")
FILE, PREDICTIONS = "entry.json", "predictions.safetensors"
# Accuracy is a fraction, NLL in nats, a DEE in members.
FIGURES = ("acc", "nll", "cnll", "dee_raw", "dee_cal", "dee_augrc")
DOI = r"10\.\d{4,9}/[^\s()<>|\[\]]+"
ADDRESS = r"https?://[^\s()<>|\[\]]+"
NONE = "none"  # in the place of a paper or of code that does not exist

_CONFIG = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, ser_json_inf_nan="strings")
_EXAMPLE: dict[str, Any] = {
    **{"suite": "example", "name": "example", "method": "Example", "paper": NONE, "code": NONE, "licence": NONE},
    **{"who": "nobody", "size": 1, "repetitions": 1, "predictions": "0", "scores": {"acc": {"value": 0.5}}},
}
_PAPER = re.compile(rf"(arXiv[ :]*)?\d{{4}}\.\d{{4,5}}(v\d+)?|(doi[ :]*)?{DOI}|{ADDRESS}|{NONE}", re.I)
_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")


class Figure(BaseModel):
    """A number with its 95 % interval; a deep-ensemble equivalent may be ``-Infinity`` (< 1) or ``Infinity``."""

    model_config = _CONFIG

    value: float
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _known(self) -> Figure:
        if any(end is not None and math.isnan(end) for end in (self.value, self.low, self.high)):
            raise ValueError("a figure is a number, not NaN; leave out what is unknown")
        return self


class EntryCost(BaseModel):
    """What a method costs, as whoever submits it states it; null where unknown.

    Attributes:
        macs: multiply-adds of one prediction, every network and step included.
        params: parameters of the whole predictor.
        train_passes: examples that went through networks in training, members and teachers included; a network that
            costs twice a member of the suite counts twice.
    """

    model_config = _CONFIG

    macs: float | None = Field(None, ge=1, allow_inf_nan=False)
    params: float | None = Field(None, ge=1, allow_inf_nan=False)
    train_passes: float | None = Field(None, ge=1, allow_inf_nan=False)


class LeaderboardEntry(BaseModel):
    """One method of somebody on one suite.

    Attributes:
        suite, name: the folders that it is in.
        method: its name in the table.
        paper, code: an arXiv number, a DOI or an address; ``none`` if there is none.
        licence: of code and predictions.
        who: who submitted it.
        size: how many members it stands for; 1 for a single network.
        repetitions: how many sets of predictions there are; null if none.
        cost: as stated.
        plugin: name of the plugin file in the folder, or null.
        status: ``scored`` (its predictions were scored here), ``reproduced`` (its plugin was run here), ``stated``
            (figures of a paper, without predictions), ``disputed``.
        reason: why it is disputed.
        on: the data and network that stated figures are of; empty for predictions.
        note: a sentence for readers.
        predictions: SHA-256 of the file of predictions; empty if there is none.
        scores: figures by name, as scored here, or as stated.
    """

    model_config = _CONFIG

    suite: str = Field(min_length=1)
    name: str
    method: str = Field(min_length=1, max_length=80)
    paper: str = Field(min_length=1, max_length=200)
    code: str = Field(min_length=1, max_length=200)
    licence: str = Field(min_length=1, max_length=80)
    who: str = Field(min_length=1, max_length=120)
    size: int = Field(ge=1, le=1_000_000)
    repetitions: int | None = Field(None, ge=1)
    cost: EntryCost = EntryCost()
    plugin: str | None = None
    status: Literal["scored", "reproduced", "stated", "disputed"] = "scored"
    reason: str = ""
    on: str = Field("", max_length=120)
    note: str = Field("", max_length=500)
    predictions: str = ""
    scores: Mapping[str, Figure] = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name) or len(name) > 64:
            raise ValueError("use lower-case letters, digits and hyphens, as in 'mimo-3'")
        return name

    @field_validator("method", "paper", "code", "licence", "who", "on", "note", "reason")
    @classmethod
    def _one_line(cls, text: str) -> str:
        if not text.isprintable():
            raise ValueError("write one line of printable characters")
        return text

    @field_validator("code")
    @classmethod
    def _address(cls, code: str) -> str:
        if code != NONE and not re.fullmatch(ADDRESS, code):
            raise ValueError(f"write an address that begins with https://, or '{NONE}'")
        return code

    @field_validator("paper")
    @classmethod
    def _source(cls, paper: str) -> str:
        if not _PAPER.fullmatch(paper):
            raise ValueError(f"write a number as in 'arXiv 2010.06610', a DOI, an address, or '{NONE}'")
        return NONE if paper.lower() == NONE else paper

    @field_validator("plugin")
    @classmethod
    def _in_the_folder(cls, plugin: str | None) -> str | None:
        if plugin is not None and (Path(plugin).name != plugin or not plugin.endswith(".py")):
            raise ValueError("name a .py file in the folder of the entry")
        return plugin

    @field_validator("scores")
    @classmethod
    def _figures(cls, scores: Mapping[str, Figure]) -> Mapping[str, Figure]:
        for name, figure in scores.items():
            if name not in FIGURES:
                raise ValueError(f"unknown figure '{name}'{did_you_mean(name, FIGURES)}")
            if not name.startswith("dee_") and not 0 <= figure.value < math.inf:
                raise ValueError(f"{name} is a finite number from 0")
            if name.startswith("dee_") and -math.inf < figure.value <= 0:
                raise ValueError(f"{name} is a number of members above 0, or '<1'")
            if name == "acc" and figure.value > 1:
                raise ValueError("acc is a fraction: divide a percentage by 100")
        return scores

    @model_validator(mode="after")
    def _consistent(self) -> LeaderboardEntry:
        if self.status == "disputed" and not self.reason:
            raise ValueError("a disputed entry needs a reason")
        if self.status == "reproduced" and self.plugin is None:
            raise ValueError("a reproduced entry needs its plugin")
        if (self.status == "stated" and self.predictions) or (
            self.status in ("scored", "reproduced") and not self.predictions
        ):
            raise ValueError("an entry with predictions is scored or reproduced, one without is stated")
        if self.status == "stated" and (self.paper == NONE or not self.on):
            raise ValueError("stated figures need their --paper and, as --on, their data and network")
        if self.on and self.predictions:
            raise ValueError("--on is for stated figures: predictions are of the suite's own data")
        if bool(self.predictions) != (self.repetitions is not None):
            raise ValueError("repetitions counts the sets of predictions")
        return self

    def to_json(self) -> bytes:
        """The content of its file; the same entry gives the same bytes."""
        return (self.model_dump_json(indent=1) + "\n").encode()


def check_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Some fields of an entry, each checked by itself.

    Raises:
        SpecError: a value that an entry does not take, named by its option.
    """
    entry = make_entry(_EXAMPLE | dict(fields))
    return {name: getattr(entry, name) for name in fields}


def make_entry(fields: Mapping[str, Any]) -> LeaderboardEntry:
    """An entry from the options of ``dbn-bench submit``.

    Raises:
        SpecError: a value that an entry does not take, named by its option.
    """
    try:
        return LeaderboardEntry.model_validate(fields)
    except ValidationError as error:
        where, message = _problem(error)
        parts = where.split(".")
        option = parts[1] if parts[0] == "cost" and len(parts) > 1 else parts[0]
        option = "stated" if option == "scores" else option
        raise SpecError(f"--{option.replace('_', '-')}: {message}." if option else f"{message}.") from None


def read_entry(folder: Path) -> LeaderboardEntry:
    """The entry in a folder.

    Raises:
        ArtefactError: its file is missing or wrong, or a file that it names does not exist.
    """
    path = folder / FILE
    try:
        entry = LeaderboardEntry.model_validate_json(path.read_bytes())
    except OSError:
        raise ArtefactError(f"'{folder}' has no file {FILE}: restore it, or remove the folder.") from None
    except ValidationError as error:
        where, message = _problem(error)
        named = f"{where}: " if where else ""
        raise ArtefactError(f"'{path}' is wrong: {named}{message}; results/README.md explains its fields.") from None
    if (entry.suite, entry.name) != (folder.parent.name, folder.name):
        raise ArtefactError(f"'{path}' says that it is {entry.suite}/{entry.name}: rename the folder or correct it.")
    for named_file in (PREDICTIONS if entry.predictions else None, entry.plugin):
        if named_file and not (folder / named_file).is_file():
            raise ArtefactError(f"'{path}' names the file '{named_file}', which does not exist: add it.")
    return entry


def load_entries(root: Path = FOLDER) -> dict[Path, LeaderboardEntry]:
    """All entries by folder, sorted.

    Raises:
        ArtefactError: one of them is wrong.
    """
    return {folder: read_entry(folder) for folder in sorted(root.glob("[!.]*/[!.]*/")) if folder.is_dir()}


def default_name(method: str, size: int) -> str:
    """A folder's name for a method, as in ``mimo-jax-3``."""
    return "-".join([*(re.findall(r"[a-z0-9]+", method.lower()) or ["entry"]), str(size)])


def _problem(error: ValidationError) -> tuple[str, str]:
    """Which field is wrong, and why, without a full stop."""
    problem = error.errors()[0]
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    return ".".join(map(str, problem["loc"])), f"{message[0].lower()}{message[1:]}"
