"""The suite: one TOML file says what is compared, on which data, with which budget.  Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from benchmarks.suite.specs import (
    LatencySpec,
    MethodEntry,
    PoolSpec,
    Printable,
    PublishedSpec,
    ShiftSpec,
    StudentSpec,
    on_unseen,
)
from dbn_core.data.ood import OOD_SET_FROM_SOURCE
from dbn_core.data.sources import DataSpec
from dbn_core.errors import BenchError, PluginError, SpecError
from dbn_core.methods.method import Method
from dbn_core.methods.registry import canonical, parse_method
from dbn_core.nets.spec import NetworkOptions
from dbn_core.options import KeyedOptions
from dbn_core.tasks.base import Task, task_named
from dbn_core.tasks.classification import Classification
from dbn_core.train.recipe import Recipe


def _task(given: Any) -> Any:
    """``task = "generation"``, or a table with its name and options."""
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        return given
    if "name" not in given:
        raise ValueError("a table [task] needs a name")
    return task_named(str(given["name"]))(**{key: value for key, value in given.items() if key != "name"})


class Suite(KeyedOptions):
    """A whole suite; ``benchmarks/suites/digits.toml`` is a commented example.

    Attributes:
        task: what methods predict: ``classification``, ``generation`` or ``tabular``; a table gives it options.
        name: of the suite and its folders; the file's name when not given.
        title: heading of the report.
        description: one paragraph below it.
        seed: from which all other seeds are derived.
        repetitions: how often everything is trained and measured.
        predictions: ``fp16`` rounds log-probabilities when they are computed; all scores are of the rounded ones.
        data: a data source and its options.
        network: the network of the members.
        pool: the members.
        recipe: how members are trained.
        students: budget of everything else that is trained.
        latency: how time is measured.
        shift: corrupted and out-of-distribution images to predict on, none unless given.
        published: published figures to show in the report, none unless given.
        methods: what is compared, one ``[[methods]]`` table for each.
    """

    task: Annotated[Task, BeforeValidator(_task), PlainSerializer(lambda task: task.definition())] = Classification()
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
        return given if isinstance(given, NetworkOptions) else task.network_spec(given)

    @field_validator("name")
    @classmethod
    def _folder(cls, name: str) -> str:
        if not is_name(name):
            raise ValueError("the name of a suite is also that of its folders: write a short word without slashes")
        return name

    @model_validator(mode="after")
    def _repetitions_fit(self) -> Suite:
        if self.pool.sharing == "shared" and self.repetitions > 1 and self.pool.members < 2:
            raise ValueError("a shared pool of one member cannot give several repetitions")
        return self

    @model_validator(mode="after")
    def _networks_of_members_exist(self) -> Suite:
        for index, member in enumerate(self.pool.checkpoints):
            try:
                self.network_of(index)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"])) or "it"
                raise ValueError(f"the network of {member.path}: '{where}': {first['msg']}") from error
        return self

    @model_validator(mode="after")
    def _pools_fit_splits(self) -> Suite:
        if self.pool.sharing == "shared" and self.data.resplits:
            raise ValueError(
                "members of a shared pool were trained on test images of other repetitions: set [data] split = "
                "'fixed' or [pool] sharing = 'independent'"
            )
        return self

    @model_validator(mode="after")
    def _task_can(self) -> Suite:
        if self.recipe.keep != "last" and not self.task.validates:
            raise ValueError(f"the task {self.task.name} has no validation between epochs: set keep = 'last'")
        if self.task.name != "classification" and (self.pool.weights, self.predictions) != ("fp32", "fp32"):
            raise ValueError(f"the task {self.task.name} rounds nothing: remove [pool] weights and predictions")
        if not self.task.stored_views and any(self.teachers(entry) != "online" for entry in self.methods):
            raise ValueError(f"teachers of the task {self.task.name} run online: remove `teachers`")
        return self

    @model_validator(mode="after")
    def _can_shift(self) -> Suite:
        if self.shift is None:
            return self
        if self.task.name != "classification":
            raise ValueError(f"the task {self.task.name} has no shifted images: remove [shift]")
        if (same := OOD_SET_FROM_SOURCE.get(self.data.source)) in self.shift.ood:
            raise ValueError(f"'{same}' consists of images of '{self.data.source}': remove it from [shift] ood")
        return self

    @model_validator(mode="after")
    def _unseen_images_exist(self) -> Suite:
        asked = any(on_unseen(self.teachers(entry)) for entry in self.methods)
        if asked and getattr(self.data, "unseen_limit", None) is None:
            raise ValueError(
                "teachers on unseen images need images on which no member is trained: set [data] train_limit and "
                "unseen_limit"
            )
        return self

    def network_of(self, index: int) -> NetworkOptions:
        """The network of a member of the pool, by its index there: ``network``, unless it is given with another one."""
        given = self.pool.checkpoints[index].network if self.pool.checkpoints else None
        if given is None:
            return self.network
        table = {"name": given} if isinstance(given, str) else given
        spec = self.task.network_spec(table)
        for name in ("mean", "std"):  # members of one ensemble were mostly trained on images normalised alike
            known = getattr(self.network, name, None)
            if known is not None and name not in table and name in type(spec).model_fields:
                spec = spec.model_copy(update={name: known})
        return spec

    @property
    def mixes_networks(self) -> bool:
        """Whether a member has another network than ``network``."""
        return any(self.network_of(index) != self.network for index in range(len(self.pool.checkpoints)))

    @property
    def sources(self) -> list[int]:
        """Indices of the members of a pool that may be the source: those with the suite's network, if there are any."""
        members = list(range(self.pool.members))
        if not self.mixes_networks:
            return members
        return [index for index in members if self.network_of(index) == self.network] or members

    def precision(self, entry: MethodEntry) -> str:
        """Precision of the trainings of an entry."""
        return entry.precision or self.students.precision or self.recipe.precision

    def teachers(self, entry: MethodEntry) -> str:
        """How members teach the students of an entry."""
        return entry.teachers or self.students.teachers

    def repetitions_of(self, entry: MethodEntry, size: int) -> int:
        """How many repetitions, from the first, a size of an entry takes part in."""
        own = entry.repetitions
        count = own.get(size) if isinstance(own, dict) else own
        return min(self.repetitions, count or self.repetitions)

    def entries(self) -> list[tuple[MethodEntry, Method, str]]:
        """Each method built and checked, with its label.

        Raises:
            SpecError: an unknown method or option, a size, a network or a pool that the method does not support, a
                label or a method given twice, or a reference method that is a control or has fewer repetitions.
        """
        built, seen, labels = [], set(), set()
        methods = [parse_method(entry.use, entry.options) for entry in self.methods]
        names = [method.name for method in methods]
        mixed = self.mixes_networks
        for entry, method in zip(self.methods, methods, strict=True):
            if method.task != self.task.name:
                raise SpecError(
                    f"'{method.name}' is a method of the task {method.task}, the suite's task is {self.task.name}: "
                    f"remove the method, or set task = '{method.task}'."
                )
            if method.name == self.task.reference and (entry.control or entry.repetitions):
                surplus = "control = true" if entry.control else f"repetitions = {entry.repetitions}"
                raise SpecError(f"'{method.name}' is the reference of every report and repetition: remove `{surplus}`.")
            with naming_method(method):
                method.check_network(self.network)
                if mixed:
                    method.check_pool(self.network_of(self.sources[0]) == self.network, self.network)
            for size in entry.sizes:
                with naming_method(method):
                    method.check_size(size)
                    positions = [*method.members(size), *(m for p in method.parts(size) for m in p.members)]
                    needed = max(positions, default=-1) + 1
                if needed > self.pool.members:
                    raise SpecError(
                        f"'{entry.use}' at size {size} needs {needed} members, the pool has {self.pool.members}: "
                        "raise [pool] members or remove the size."
                    )
            spec = canonical(method)
            unique = names.count(method.name) == 1  # then its label needs no options
            label = entry.label or (method.title if unique else spec.replace(method.name, method.title, 1))
            if (spec, self.teachers(entry)) in seen:
                raise SpecError(f"Method '{spec}' appears twice in the suite: merge the two lists of sizes.")
            if label in labels:
                raise SpecError(f"Two methods have the label '{label}': give one of them another label.")
            seen.add((spec, self.teachers(entry)))
            labels.add(label)
            built.append((entry, method, label))
        return built


@contextmanager
def naming_method(method: Method) -> Iterator[None]:
    """Turn an error of a method's planning calls into a :class:`PluginError` that names the method."""
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        raise PluginError(
            f"Method '{method.name}' cannot be planned ({type(error).__name__}: {error}): "
            f"fix what `dbn-bench check {method.name}` reports."
        ) from error


def is_name(name: str) -> bool:
    """Whether a text can be the name of a suite, and so of its folders."""
    short = name.isprintable() and len(name.encode()) <= 200
    return short and bool(name.strip(". ")) and "/" not in name and "\\" not in name
