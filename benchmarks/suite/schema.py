"""Suites: one TOML file says what is compared, on which data, with which budget.  Imports no torch."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from benchmarks.environment import computes_bf16
from benchmarks.published import published_for
from benchmarks.suite.builtin import available
from dbn_core.data.corruptions import CORRUPTIONS, LEVELS
from dbn_core.data.ood import INSIDE, OUTSIDE
from dbn_core.data.sources import SOURCES, DataSpec
from dbn_core.errors import BenchError, PluginError, SpecError, did_you_mean, shown
from dbn_core.methods.method import Method
from dbn_core.methods.registry import canonical, parse_method
from dbn_core.nets.spec import NetworkOptions
from dbn_core.tasks.base import Task, task_named
from dbn_core.tasks.classification import Classification
from dbn_core.train.recipe import Recipe


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it has characters that do not print, such as escape sequences: take them out")
    return text


# Text of one line that reaches terminals, pages and tables.
Printable = Annotated[str, AfterValidator(_printable)]


class PoolSpec(_Model):
    """The trained members that every method and size shares.

    ``independent``: each repetition has a pool of its own.  ``shared``: one pool; each repetition draws another source
    and another order of members from it, as the papers do where members are expensive.

    ``weights = "bf16"``: the kernels of a finished member are rounded, so that half the bytes hold it exactly; what
    uses it computes in float32.
    """

    members: int = Field(8, ge=1, le=1000)
    sharing: Literal["independent", "shared"] = "independent"
    weights: Literal["fp32", "bf16"] = "fp32"


# ``online``: teachers run on every augmented batch, as in the papers.  ``views(V)``: they run once, on V seeded
# augmented copies of the training split, which all students then see in turn, one an epoch.  ``views(V, unseen)``: the
# copies are of images that no member was trained on.
Teachers = Annotated[str, Field(pattern=r"^(online|views\([1-9]\d*(, unseen)?\))$")]
_UNSEEN = ", unseen)"


def view_count(teachers: str) -> int | None:
    """V of ``views(V)`` and ``views(V, unseen)``, None for ``online``."""
    found = re.match(r"views\((\d+)", teachers)
    return int(found[1]) if found else None


def on_unseen(teachers: str) -> bool:
    """Whether students are taught on images that no member was trained on."""
    return teachers.endswith(_UNSEEN)


class StudentSpec(_Model):
    """The budget that every trained component of every method gets, in epochs, and how members teach it.

    ``precision``: of their own training; without it the members'.  So a pool that was trained where bf16 is fast can
    teach students where it is emulated.  Here, in the recipe and in an entry a file may say ``auto``, see
    :func:`load_suite`.
    """

    epochs: int = Field(200, ge=1, le=1_000_000)
    teachers: Teachers = "online"
    precision: Literal["fp32", "bf16"] | None = None


class LatencySpec(_Model):
    """How wall-clock is measured: rounds at batch size 1, and rounds at ``batch``, in each of the runtimes.

    ``compiled`` is torch.compile, which takes a minute or more for each method and batch; a runtime that the machine
    lacks is left out with a line that says so.
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


class ShiftSpec(_Model):
    """On which images methods predict beside the test split: corrupted ones, and some of no class.

    ``images``: how many of the test images, from the first; and how many of no class in each set.
    """

    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    levels: tuple[int, ...] = LEVELS
    outside: tuple[str, ...] = ("svhn-like", "patches", "textures")
    images: int = Field(2000, ge=1, le=1_000_000)

    @field_validator("corruptions", "outside")
    @classmethod
    def _known(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = CORRUPTIONS if info.field_name == "corruptions" else OUTSIDE
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
        if not (self.corruptions or self.outside):
            raise ValueError("name a corruption or a set of images of no class, or leave [shift] out")
        return self

    @property
    def sets(self) -> int:
        """How many sets of images there are."""
        return len(self.corruptions) * len(self.levels) + len(self.outside)

    def key(self, test: int) -> dict[str, Any]:
        """JSON that identifies the images in keys, where the test split has ``test`` of them."""
        return {
            "corruptions": sorted(self.corruptions),
            "levels": list(self.levels),
            "outside": sorted(self.outside),
            "images": min(self.images, test),
        }


class PublishedSpec(_Model):
    """Which published figures (``results/published``) the report shows beside the suite's own.

    ``differences``: how the papers' protocol differs from the suite's, one sentence each; printed with them.
    """

    data: str = Field(min_length=1)
    differences: tuple[str, ...] = ()


class TuningSpec(_Model):
    """How the settings of a method were chosen; printed beside its results, and part of no key.

    ``settings``: how many were tried, the one that is run included; None where nobody counted.  ``on``: what they were
    judged by; ``paper`` where they were taken from it.
    """

    settings: int | None = Field(None, ge=1)
    on: Literal["validation", "test", "paper"]
    varied: str = ""


class MethodEntry(_Model):
    """One method of the suite: spec, options, ensemble sizes, what the tables call it, and its teachers if others.

    ``precision``: of its own trainings, if another than that of all students.
    ``repetitions``: only the first of the suite's, for what is too dear to be trained in all of them.

    A ``control`` answers a question about another method: tables list it apart, and figures keep it in the background.
    Entries of one ``series`` are connected in the figures of tasks other than classification.
    """

    use: str
    sizes: tuple[Annotated[int, Field(le=1000)], ...] = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)
    label: Printable | None = None
    series: Printable | None = None
    teachers: Teachers | None = None
    precision: Literal["fp32", "bf16"] | None = None
    repetitions: int | None = Field(None, ge=1, le=1000)
    control: bool = False
    tuning: TuningSpec | None = None


def _task(given: Any) -> Any:
    """``task = "generation"``, or a table with its name and options."""
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        return given
    if "name" not in given:
        raise ValueError("a table [task] needs a name")
    return task_named(str(given["name"]))(**{key: value for key, value in given.items() if key != "name"})


class Suite(_Model):
    """A whole suite; see ``benchmarks/suites/digits.toml`` for a commented example.

    ``predictions = "fp16"``: log-probabilities are rounded when they are made, and all scores are those of the rounded.
    """

    task: Annotated[Task, BeforeValidator(_task), PlainSerializer(lambda task: task.key())] = Classification()
    name: str = ""
    title: Printable
    description: str = ""
    seed: int = Field(0, ge=0)
    repetitions: int = Field(3, ge=1, le=1000)
    predictions: Literal["fp32", "fp16"] = "fp32"
    data: DataSpec
    network: SerializeAsAny[NetworkOptions]
    pool: PoolSpec = PoolSpec()
    recipe: Recipe
    students: StudentSpec
    latency: LatencySpec = LatencySpec()
    shift: ShiftSpec | None = None
    published: PublishedSpec | None = None
    methods: tuple[MethodEntry, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _fill_what_is_not_trained(cls, values: Any) -> Any:
        given = values.get("task") if isinstance(values, dict) else None
        name = given.get("name") if isinstance(given, Mapping) else given
        return {**{key: {} for key in task_named(name).optional}, **values} if isinstance(name, str) else values

    @field_validator("network", mode="before")
    @classmethod
    def _of_the_task(cls, given: Any, info: ValidationInfo) -> Any:
        task = info.data.get("task", Classification())
        return given if isinstance(given, task.networks) else task.networks.model_validate(given)

    @field_validator("name")
    @classmethod
    def _folder(cls, name: str) -> str:
        if not is_name(name):
            raise ValueError("the name of a suite is that of its folders, so write a short word without slashes")
        return name

    @model_validator(mode="after")
    def _repetitions_fit(self) -> Suite:
        if self.pool.sharing == "shared" and self.repetitions > 1 and self.pool.members < 2:
            raise ValueError("a shared pool of one member cannot give several repetitions")
        return self

    @model_validator(mode="after")
    def _pools_fit_splits(self) -> Suite:
        if self.pool.sharing == "shared" and self.data.resplits:
            raise ValueError(
                "a shared pool has seen the test images of other repetitions' splits: set [data] split = 'fixed' or "
                "[pool] sharing = 'independent'"
            )
        return self

    @model_validator(mode="after")
    def _task_can(self) -> Suite:
        if self.recipe.keep != "last" and not self.task.validates:
            raise ValueError(f"trainings for {self.task.name} are not validated between epochs: set keep = 'last'")
        if self.task.name != "classification" and (self.pool.weights, self.predictions) != ("fp32", "fp32"):
            raise ValueError(f"nothing of {self.task.name} is rounded: leave [pool] weights and predictions out")
        if not self.task.stored_views and any(self.teachers(entry) != "online" for entry in self.methods):
            raise ValueError(f"the teachers of {self.task.name} run online: leave `teachers` out")
        return self

    @model_validator(mode="after")
    def _can_shift(self) -> Suite:
        if self.shift is None:
            return self
        if self.task.name != "classification":
            raise ValueError(f"nothing of {self.task.name} is tried on shifted images: leave [shift] out")
        if (same := INSIDE.get(self.data.source)) in self.shift.outside:
            raise ValueError(f"'{same}' is made of the images of '{self.data.source}': take it out of [shift] outside")
        return self

    @model_validator(mode="after")
    def _unseen_images_exist(self) -> Suite:
        asked = any(on_unseen(self.teachers(entry)) for entry in self.methods)
        if asked and getattr(self.data, "unseen_limit", None) is None:
            raise ValueError(
                "teachers on unseen images need some that no member is trained on: set [data] train_limit and "
                "unseen_limit"
            )
        return self

    def precision(self, entry: MethodEntry) -> str:
        """In which precision what an entry trains is trained."""
        return entry.precision or self.students.precision or self.recipe.precision

    def teachers(self, entry: MethodEntry) -> str:
        """How the members teach the students of an entry."""
        return entry.teachers or self.students.teachers

    def repetitions_of(self, entry: MethodEntry) -> int:
        """In how many repetitions, the first ones, an entry takes part."""
        return min(self.repetitions, entry.repetitions or self.repetitions)

    def entries(self) -> list[tuple[MethodEntry, Method, str]]:
        """Each method built and checked, with its label.

        Raises:
            SpecError: an unknown method or option, a size that the method or the pool cannot serve, a label or a
                method given twice, a deep ensemble as control or in fewer repetitions.
        """
        built, seen, labels = [], set(), set()
        methods = [parse_method(entry.use, entry.options) for entry in self.methods]
        names = [method.name for method in methods]
        for entry, method in zip(self.methods, methods, strict=True):
            if method.task != self.task.name:
                raise SpecError(
                    f"'{method.name}' is a method of {method.task}, the suite is about {self.task.name}: take it out, "
                    f"or set task = '{method.task}'."
                )
            if method.name == self.task.reference and (entry.control or entry.repetitions):
                surplus = "control = true" if entry.control else f"repetitions = {entry.repetitions}"
                raise SpecError(
                    f"'{method.name}' is the yardstick of every report and repetition: drop its `{surplus}`."
                )
            for size in entry.sizes:
                with blaming(method):
                    method.check_size(size)
                    positions = [*method.members(size), *(m for p in method.parts(size) for m in p.members)]
                    needed = max(positions, default=-1) + 1
                if needed > self.pool.members:
                    raise SpecError(
                        f"'{entry.use}' at size {size} needs {needed} members, the pool has {self.pool.members}: "
                        "raise [pool] members or drop the size."
                    )
            spec = canonical(method)
            # A method that stands alone needs no options in its name.
            alone = names.count(method.name) == 1
            label = entry.label or (method.title if alone else spec.replace(method.name, method.title, 1))
            if (spec, self.teachers(entry)) in seen:
                raise SpecError(f"Method '{spec}' appears twice in the suite: merge the two lists of sizes.")
            if label in labels:
                raise SpecError(f"Two methods have the label '{label}': give one of them another label.")
            seen.add((spec, self.teachers(entry)))
            labels.add(label)
            built.append((entry, method, label))
        return built


@contextmanager
def blaming(method: Method) -> Iterator[None]:
    """Turn whatever a method's planning calls raise into a :class:`PluginError` that names the method."""
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        raise PluginError(
            f"Method '{method.name}' cannot be planned ({type(error).__name__}: {error}): "
            f"`dbn-bench check {method.name}` says what to mend."
        ) from error


def is_name(name: str) -> bool:
    """Whether a suite may be called that: its results lie in folders of this name."""
    short = name.isprintable() and len(name.encode()) <= 200
    return short and bool(name.strip(". ")) and "/" not in name and "\\" not in name


def load_suite(name: str, overrides: Mapping[str, Any] | None = None, bf16: bool | None = None) -> Suite:
    """Load a built-in suite by name, or any TOML file by path; ``precision = "auto"`` becomes bf16 or fp32.

    Args:
        overrides: dotted keys to change, for example ``{"data.root": "/data", "repetitions": 5}``.
        bf16: whether ``auto`` becomes bf16; None: as this machine's processor has it.

    Raises:
        SpecError: no such suite, not TOML, or a key or value that does not belong there.
        ArtefactError: the suite asks for published figures and their files are damaged.
    """
    path = Path(name)
    if path.suffix != ".toml":
        known = available()
        if name not in known:
            raise SpecError(
                f"Unknown suite '{name}'{did_you_mean(name, known)}; a suite of your own is a path to a .toml."
            )
        path = known[name]
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"Suite file '{path}' does not exist: check the path.") from None
    except OSError as error:
        raise SpecError(f"Suite file '{path}' cannot be read ({error.strerror}): check the path.") from error
    except (ValueError, RecursionError) as error:  # broken TOML, broken UTF-8, numbers of thousands of digits
        raise SpecError(f"Suite file '{path}' is not valid TOML: {str(error).rstrip('.')}.") from error
    for key, value in (overrides or {}).items():
        _set(content, key.split("."), value, path)
    _resolve_precision(content, computes_bf16() if bf16 is None else bf16)
    content.setdefault("name", path.stem)
    _check_integers(content, path)
    try:
        suite = Suite.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"Suite '{path.name}': {_sentence(error)}") from error
    if suite.published:
        published_for(suite.published.data)  # a misspelt data set shows now, not when the report is rendered
    return suite


def _resolve_precision(content: dict[str, Any], bf16: bool | None) -> None:
    """``precision = "auto"`` is bf16 where the processor computes in it.

    It is resolved here, so that a plan, its keys and workers on other machines all have the one that came out.
    """
    entries = content.get("methods")
    for table in (content.get("recipe"), content.get("students"), *(entries if isinstance(entries, list) else ())):
        if isinstance(table, dict) and table.get("precision") == "auto":
            table["precision"] = "bf16" if bf16 else "fp32"


def _set(content: dict[str, Any], keys: list[str], value: Any, path: Path) -> None:
    for key in keys[:-1]:
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise SpecError(f"Suite '{path.name}': '{key}' is not a table, so '{'.'.join(keys)}' cannot be set.")
    content[keys[-1]] = value


def _check_integers(value: Any, path: Path) -> None:
    """TOML's integers have 64 bits; Python reads larger ones, which nothing later could write down."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_integers(inner, path)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise SpecError(f"Suite '{path.name}' holds an integer of more than 64 bits: write a smaller one.")


def _sentence(error: ValidationError) -> str:
    """The first problem of a validation, in words."""
    # A misspelt key is also a missing one: the key that is there explains more.
    problems = sorted(error.errors(), key=lambda problem: problem["loc"][:1] != ("task",))  # others may follow from it
    extra = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    first = problems[0] if problems[0]["loc"][:1] == ("task",) else extra
    loc = [str(piece) for piece in first["loc"]]
    key, where = (loc[-1] if loc else ""), ".".join(loc[:-1])
    place = f"[{where}]" if where else "the top level"
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}' in {place}{did_you_mean(key, _known_keys(loc[:-1]))}."
    if first["type"] == "missing":
        return f"the key '{key}' is missing in {place}."
    if first["type"] == "union_tag_invalid":
        given = str(first["ctx"]["tag"])
        return f"unknown data source '{given}'{did_you_mean(given, SOURCES)}."
    if first["type"] == "union_tag_not_found":
        return f"[data] needs a source{did_you_mean('', SOURCES)}."
    message = first["msg"].removeprefix("Value error, ")
    return f"'{'.'.join(loc)}' is {shown(first['input'])}: {message}." if loc else f"{message}."


def _known_keys(loc: list[str]) -> Iterable[str]:
    tables: dict[str, type[BaseModel]] = {
        "pool": PoolSpec,
        "recipe": Recipe,
        "students": StudentSpec,
        "latency": LatencySpec,
        "shift": ShiftSpec,
        "published": PublishedSpec,
        "methods": MethodEntry,
        "tuning": TuningSpec,
    }
    if not loc:
        return Suite.model_fields
    if loc[0] == "data":
        return SOURCES[loc[1]].model_fields if len(loc) > 1 and loc[1] in SOURCES else ["source"]
    return tables[loc[0]].model_fields if loc[0] in tables else ()
