"""The tables of a suite file: pool, students, latency, shift, published figures, methods.  Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from dbn_core.data.corruptions import CORRUPTIONS, LEVELS
from dbn_core.data.ood import OOD_SETS
from dbn_core.errors import did_you_mean
from dbn_core.options import KeyedOptions


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it has characters that do not print, such as escape sequences: take them out")
    return text


# Text of one line that reaches terminals, pages and tables.
Printable = Annotated[str, AfterValidator(_printable)]


class GivenMember(KeyedOptions):
    """A weights file of a member that is trained already.

    Attributes:
        path: of the file; in a suite file also a pattern.
        network: what it is the weights of, as a name or a table like [network]; None: the suite's network.
    """

    path: str
    network: str | dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


class PoolSpec(KeyedOptions):
    """The trained members that all methods and sizes share.

    Attributes:
        members: how many there are in a pool.
        sharing: ``independent``: each repetition has its own pool.  ``shared``: one pool, from which each repetition
            draws another source and another order of members, as the papers do where members are expensive.
        weights: ``bf16`` rounds the kernels of a finished member, which halves its file; networks that use it still
            compute in float32.
        checkpoints: weights files of members that are trained already, as paths or patterns such as ``runs/*.pt``;
            nothing is trained for members then.  Files of another network than the suite's are tables,
            ``{ path = "big/*.pt", network = "torchvision:resnet50" }``, whose network is a name or a table like
            [network], with the mean and std of [network] unless it has its own.
    """

    members: int = Field(8, ge=1, le=1000)
    sharing: Literal["independent", "shared"] = "independent"
    weights: Literal["fp32", "bf16"] = "fp32"
    checkpoints: tuple[GivenMember, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _members_are_the_files(cls, values: Any) -> Any:
        if not (isinstance(values, dict) and isinstance(given := values.get("checkpoints"), list | tuple) and given):
            return values
        if "members" in values or values.get("sharing", "shared") != "shared":
            raise ValueError("the files of `checkpoints` are one shared pool: remove members and sharing")
        tables = [dict(entry) if isinstance(entry, Mapping) else {"path": entry} for entry in given]
        files = [{**table, "path": str(file)} for table in tables for file in matching_files(str(table.get("path")))]
        if len({file["path"] for file in files}) < len(files):
            raise ValueError("`checkpoints` names a file twice")
        return {**values, "checkpoints": files, "members": len(files), "sharing": "shared"}

    @model_serializer(mode="wrap")
    def _without_what_follows(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        if self.checkpoints:  # members and sharing follow from them
            values = {name: value for name, value in values.items() if name not in ("members", "sharing")}
        return values


def matching_files(pattern: str) -> list[Path]:
    """The files that a path or a pattern names, absolute, in the order of their names."""
    path = Path(pattern).expanduser().absolute()
    if path.is_file():
        return [path]
    found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if set(pattern) & set("*?[") else []
    if not found or not all(file.is_file() for file in found):
        raise ValueError(
            f"there is no file '{pattern}': give the paths of weights files, or a pattern such as runs/*.pt"
        )
    return found


# ``online``: teachers run on every augmented batch, as in the papers.  ``views(V)``: they run once, on V seeded
# augmented copies of the training split, and each epoch of a student uses the next copy.  ``views(V, unseen)``: the
# copies are of images on which no member was trained.
Teachers = Annotated[str, Field(pattern=r"^(online|views\([1-9]\d*(, unseen)?\))$")]
_UNSEEN = ", unseen)"


def view_count(teachers: str) -> int | None:
    """V of ``views(V)`` and ``views(V, unseen)``, None for ``online``."""
    found = re.match(r"views\((\d+)", teachers)
    return int(found[1]) if found else None


def on_unseen(teachers: str) -> bool:
    """Whether students are taught on images on which no member was trained."""
    return teachers.endswith(_UNSEEN)


class StudentSpec(KeyedOptions):
    """The training budget of every trained component of every method, and how members teach it.

    Attributes:
        epochs: of each component.
        teachers: ``online``: members run on every augmented batch.  ``views(V)``: they run once, on V augmented copies
            of the training split.  ``views(V, unseen)``: the copies are of images on which no member was trained.
        precision: of the students' training; None: the members'.  A suite file may say ``auto``, see
            :func:`benchmarks.suite.load.load_suite`.
    """

    epochs: int = Field(200, ge=1, le=1_000_000)
    teachers: Teachers = "online"
    precision: Literal["fp32", "bf16"] | None = None


class LatencySpec(KeyedOptions):
    """How wall-clock time is measured: rounds at batch size 1, and rounds at ``batch``, in each runtime.

    Runtimes other than ``eager`` have at most 12 rounds.  ``compiled`` is torch.compile, which takes a minute or more
    for each method and batch.  A runtime that is not installed is skipped with a message.

    Attributes:
        batch: the second batch size that is timed.
        repeats: rounds at batch size 1.
        batch_repeats: rounds at ``batch``.
        runtimes: ``eager`` and any of the others.
    """

    batch: int = Field(128, ge=1, le=1_000_000)
    repeats: int = Field(50, ge=3, le=1_000_000)
    batch_repeats: int = Field(20, ge=3, le=1_000_000)
    runtimes: tuple[Literal["eager", "compiled", "onnxruntime"], ...] = ("eager",)

    @field_validator("runtimes")
    @classmethod
    def _eager_and_others(cls, runtimes: tuple[str, ...]) -> tuple[str, ...]:
        if "eager" not in runtimes or len(set(runtimes)) < len(runtimes):
            raise ValueError("name eager, which every method can run in, and each other runtime once")
        return runtimes


class ShiftSpec(KeyedOptions):
    """Images on which methods predict in addition to the test split: corrupted and out-of-distribution ones.

    Attributes:
        corruptions: kinds of corruption.
        levels: severities, from 1 to 5.
        ood: sets of out-of-distribution images.
        images: how many test images are corrupted, from the first; and how many each out-of-distribution set has.
    """

    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    levels: tuple[int, ...] = LEVELS
    ood: tuple[str, ...] = ("svhn-like", "patches", "textures")
    images: int = Field(2000, ge=1, le=1_000_000)

    @field_validator("corruptions", "ood")
    @classmethod
    def _known(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = CORRUPTIONS if info.field_name == "corruptions" else OOD_SETS
        for name in names:
            if name not in known:
                raise ValueError(f"there is no '{name}'{did_you_mean(name, known)}")
        return tuple(dict.fromkeys(names))

    @field_validator("levels")
    @classmethod
    def _levels_exist(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if not levels or not set(levels) <= set(LEVELS):
            raise ValueError("levels are some of 1 to 5")
        return tuple(sorted(set(levels)))

    @model_validator(mode="after")
    def _has_sets(self) -> ShiftSpec:
        if not (self.corruptions or self.ood):
            raise ValueError("name a corruption or a set of out-of-distribution images, or remove [shift]")
        return self

    @property
    def sets(self) -> int:
        """How many sets of images there are."""
        return len(self.corruptions) * len(self.levels) + len(self.ood)

    def images_key(self, test: int) -> dict[str, Any]:
        """JSON that identifies the images in keys, where the test split has ``test`` of them."""
        return {
            "corruptions": sorted(self.corruptions),
            "levels": list(self.levels),
            "ood": sorted(self.ood),
            "images": min(self.images, test),
        }


class PublishedSpec(KeyedOptions):
    """Published figures (``results/published``) that the report shows next to the suite's own.

    Attributes:
        data: a data set of ``results/published``.
        differences: how the papers' protocol differs from the suite's, one sentence each; the report prints them.
    """

    data: str = Field(min_length=1)
    differences: tuple[str, ...] = ()


class TuningSpec(KeyedOptions):
    """How the settings of a method were chosen; the report prints it, and no key depends on it.

    Attributes:
        settings: how many were tried, the chosen one included; None: unknown.
        on: the split on which they were compared; ``paper``: they are the paper's.
        varied: which options were varied.
    """

    settings: int | None = Field(None, ge=1)
    on: Literal["validation", "test", "paper"]
    varied: str = ""


Repetitions = Annotated[int, Field(ge=1, le=1000)]


class MethodEntry(KeyedOptions):
    """One method of the suite.

    Attributes:
        use: the method as a spec, for example ``dbn[steps=5]``.
        sizes: how many members the method stands for, each a row of the table.
        options: further options, which must not repeat those of the spec.
        label: name in tables; None: the method's title.
        series: figures of tasks other than classification connect the entries of one series.
        teachers, precision: where they differ from those of all students.
        repetitions: only the suite's first ones, for what is too expensive to train in all of them: one number, or
            those of some sizes, as in ``{ 3 = 2 }``.
        control: whether the entry answers a question about another method; tables list controls separately.
        tuning: how its settings were chosen.
    """

    use: str
    sizes: tuple[Annotated[int, Field(le=1000)], ...] = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)
    label: Printable | None = None
    series: Printable | None = None
    teachers: Teachers | None = None
    precision: Literal["fp32", "bf16"] | None = None
    repetitions: Repetitions | dict[int, Repetitions] | None = None
    control: bool = False
    tuning: TuningSpec | None = None

    @model_validator(mode="after")
    def _repetitions_of_own_sizes(self) -> MethodEntry:
        sizes = self.repetitions if isinstance(self.repetitions, dict) else {}
        if others := sorted(set(sizes) - set(self.sizes)):
            raise ValueError(f"'repetitions' names the size {others[0]}, which is none of 'sizes'")
        return self
