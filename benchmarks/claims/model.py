"""The vocabulary of `claims.toml`: papers, claims, and the few kinds of test that decide them.  Imports no torch."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from benchmarks.published import MARKS
from benchmarks.results.pairing import Contrast
from dbn_core.errors import SpecError, did_you_mean


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Selection(_Model):
    """Rows of one method at one size; without a label, of the subject that the claim is tested for.

    A selection without a size takes that of its subject, which is then written `label@size`.
    """

    label: str | None = Field(None, min_length=1)
    size: int | None = Field(None, ge=1)

    def of(self, subject: str) -> tuple[str, int]:
        """Label and size for one subject."""
        label, own = split_subject(subject)
        size = self.size or own
        assert size is not None, "checked by Claim"
        return self.label or label, size


def split_subject(subject: str) -> tuple[str, int | None]:
    """Label and size of a subject: `ED@5`, or `ED` where each test says the size."""
    found = re.fullmatch(r"(.+)@([1-9]\d*)", subject)
    return (found[1], int(found[2])) if found else (subject, None)


class Threshold(_Model):
    """A method's value lies above, or below, a fixed bound."""

    kind: Literal["threshold"]
    metric: Literal["dee_raw", "dee_cal", "macs_rel"]
    of: Selection
    side: Literal["above", "below"]
    bound: float


class Difference(_Model):
    """A method's value minus another's lies above, or below, a bound: zero, or the margin that the claim allows.

    `p_below` asks for a p-value below it as well: corrected for their number, where the rows have it corrected.
    """

    kind: Literal["difference"]
    metric: Literal["acc", "nll", "cnll", "ece", "cece", "macs_rel", "dsm", "energy", "fd", "w1_test", "noise_mse"]
    of: Selection
    to: Selection
    side: Literal["above", "below"]
    bound: float = 0.0
    p_below: float | None = Field(None, gt=0, lt=0.05)

    @model_validator(mode="after")
    def _tests_zero(self) -> Difference:
        if self.p_below is not None and (self.bound or self.metric == "macs_rel"):
            raise ValueError("'p_below' is about a difference of zero in a score: drop it, or 'bound'")
        return self


class Equivalence(_Model):
    """A method's value and another's differ by less than a margin, either way."""

    kind: Literal["equivalence"]
    metric: Literal["nll", "macs_rel"]
    of: Selection
    to: Selection
    within: float = Field(gt=0)


Test = Annotated[Threshold | Difference | Equivalence, Field(discriminator="kind")]


class Claim(_Model):
    """One claim of one paper, or of this project.

    Args:
        name: a few words, for the overview.
        sentence: what is claimed, in our words.
        suite: the one whose rows the claim is about, for claims of this project; others' verdicts are context.
        published: the paper's figures, and `mark`: where we have them from (see `benchmarks/published.py`).
        data: what the paper's figures were measured on.
        subjects: labels that the claim is about; it is tested for each of them by itself.
        tests: all of them must hold.
        why: why these bounds and margins.
    """

    id: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    name: str = Field(min_length=1, max_length=45)
    paper: str
    sentence: str = Field(min_length=1)
    published: str | None = Field(None, min_length=1)
    mark: str | None = None
    data: str = Field(min_length=1)
    suite: str | None = Field(None, min_length=1)
    subjects: tuple[str, ...] = Field(min_length=1)
    tests: tuple[Test, ...] = Field(min_length=1)
    why: str = Field(min_length=1)

    @field_validator("mark")
    @classmethod
    def _known_mark(cls, mark: str | None) -> str | None:
        if mark is not None and mark not in MARKS:
            raise ValueError(f"unknown mark of provenance{did_you_mean(mark, MARKS)}")
        return mark

    @model_validator(mode="after")
    def _published_has_a_source(self) -> Claim:
        if (self.published is None) != (self.mark is None):
            raise ValueError("'published' and 'mark' go together: give both or neither")
        if len(set(self.subjects)) < len(self.subjects):
            raise ValueError("a subject is named twice")
        sides = [side for test in self.tests for side in (test.of, getattr(test, "to", test.of))]
        if any(side.size is None for side in sides) and not all(split_subject(name)[1] for name in self.subjects):
            raise ValueError("a test without a size needs subjects that have one: write them as 'label@size'")
        return self


class Paper(_Model):
    """A paper, and what a reader of its claims should know first; this project, where there is no number of arXiv."""

    name: str = Field(min_length=1)
    title: str = Field(min_length=1)
    arxiv: str | None = Field(None, pattern=r"^\d{4}\.\d{5}$")
    note: str = Field(min_length=1)


class Claims(_Model):
    """The whole file: papers by key, and their claims."""

    papers: dict[str, Paper] = Field(min_length=1)
    claims: tuple[Claim, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Claims:
        seen = set()
        for claim in self.claims:
            if claim.paper not in self.papers:
                known = did_you_mean(claim.paper, self.papers)
                raise ValueError(f"claim '{claim.id}' belongs to the unknown paper '{claim.paper}'{known}")
            if claim.id in seen:
                raise ValueError(f"two claims have the id '{claim.id}'")
            seen.add(claim.id)
        return self

    def of(self, paper: str) -> list[Claim]:
        """The claims of one paper."""
        return [claim for claim in self.claims if claim.paper == paper]

    def contrasts(self) -> Iterator[Contrast]:
        """Each pair of (label, size) whose difference some claim asks for, once."""
        pairs = (
            (test.of.of(subject), test.to.of(subject))
            for claim in self.claims
            for subject in claim.subjects
            for test in claim.tests
            if not isinstance(test, Threshold)
        )
        return iter(dict.fromkeys(pairs))


def builtin_claims() -> Path:
    """The claims that come with the package."""
    return Path(str(files("benchmarks") / "claims" / "claims.toml"))


def load_claims(path: Path | None = None) -> Claims:
    """Read and check a file of claims, the built-in one by default.

    Raises:
        SpecError: no such file, not TOML, or a key or value that does not belong there.
    """
    path = path or builtin_claims()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"Claims file '{path}' does not exist: check the path.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"Claims file '{path}' is not valid TOML: {error}.") from None
    try:
        return Claims.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"Claims file '{path.name}': {_sentence(error, content)}.") from None


def _sentence(error: ValidationError, content: dict[str, Any]) -> str:
    """The first problem of a validation, in words that name the claim."""
    problems = error.errors()
    # A misspelt key is also a missing one: the key that is there explains more.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    loc = list(first["loc"])
    where = ""
    if loc[:1] == ["claims"] and len(loc) > 1:
        entry = content["claims"][loc[1]]
        name = entry.get("id", f"number {int(loc[1]) + 1}") if isinstance(entry, dict) else f"number {int(loc[1]) + 1}"
        where, loc = f"claim '{name}': ", loc[2:]
    place = ".".join(str(piece) for piece in loc)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{where}unknown key '{place}'"
    if first["type"] == "missing":
        return f"{where}the key '{place}' is missing"
    return f"{where}{place}: {message}" if place else f"{where}{message}"
