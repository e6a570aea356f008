"""Base classes of data sources: the contract, limits, and cutting validation out of train."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Union

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema

from dbn_core.data.dataset import CUT, Dataset, Split, example_count, stratified_split
from dbn_core.errors import DataError, SpecError
from dbn_core.rng import generator, seed_for
from dbn_core.tables import LazyTable

if TYPE_CHECKING:
    from torch import Tensor

Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
PerChannel = tuple[Annotated[float, Field(ge=0, le=1)], ...]
PerChannelScale = tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]

# The DBN and Bridge Network papers normalise every set with CIFAR-10's rounded statistics.
PAPER_MEAN, PAPER_STD = (0.49, 0.48, 0.44), (0.2, 0.2, 0.2)


SOURCES: LazyTable[Source] = LazyTable("Data source")


class _ByName:
    """Makes pydantic check ``[data]`` with the registered class that its ``source`` names."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(Annotated[Union[tuple(set(SOURCES.values()))], Field(discriminator="source")])  # noqa: UP007


class Source(BaseModel, ABC):
    """Options of a data source.  Frozen; unknown options are errors.

    ``version`` is part of the identity: raise it when a change of the code changes the data.
    """

    if TYPE_CHECKING:
        source: str  # the name in the suite file; each class narrows it to its own

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    summary: ClassVar[str] = ""  # one line for a listing
    version: ClassVar[int] = 1

    @abstractmethod
    def load(self) -> Dataset:
        """Read the data; raises :class:`DataError` if they are missing, damaged or not in the expected layout."""

    @property
    def resplits(self) -> bool:
        """Whether each repetition of a suite draws its own train, validation and test split."""
        return False

    def for_repetition(self, repetition: int, seed: int = 0) -> Source:
        """The source for the split of one repetition: this source, unless it :attr:`resplits`.

        Args:
            repetition: from 0.
            seed: of the suite; built-in suites have 0.
        """
        return self

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """A JSON value that changes whenever the data may have changed, computed without reading them."""


@dataclass(frozen=True)
class Records:
    """Labelled images that are not decoded yet: splits and limits are applied first, and only the rest is decoded.

    ``index`` [n] are the kept positions, ``labels`` [n] their labels; ``read`` maps positions to uint8 images.
    """

    labels: Tensor
    index: Tensor
    read: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, labels: Tensor, read: Callable[[Tensor], Tensor]) -> Records:
        """All records, in order."""
        import torch

        return cls(labels, torch.arange(len(labels)), read)

    def take(self, chosen: Tensor) -> Records:
        """Some of the records, by their place among these."""
        return Records(self.labels[chosen], self.index[chosen], self.read)

    def split(self) -> Split:
        """The decoded images with their labels."""
        return Split(self.read(self.index), self.labels)


class ImageSource(Source):
    """A source with official splits; validation is cut out of train unless the data have a validation split.

    Attributes:
        validation_fraction: share of train to use for validation; 0.1 unless this or ``validation_count`` is given.
        validation_count: the same as a number; if the data have a validation split, the most images to keep of it.
        train_limit: keep a stratified subset of at most this many training images, after validation is cut.
        unseen_limit: keep this many of the training images that ``train_limit`` leaves out, to teach students on images
            that their teachers never saw (``teachers = "views(V, unseen)"``).
        test_limit: keep a stratified subset of at most this many test images.
        split_seed: seed of all these choices.
        mean: per channel, for images scaled to [0, 1]; by default the papers' constants.
        std: per channel, likewise.
        flip: whether a horizontal flip keeps the label.
        title: name for tables and figures.
    """

    validation_fraction: Fraction | None = None
    validation_count: Count | None = None
    train_limit: Count | None = None
    unseen_limit: Count | None = None
    test_limit: Count | None = None
    split_seed: int = 0
    mean: PerChannel | None = None
    std: PerChannelScale | None = None
    flip: bool = True
    title: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ImageSource:
        if self.validation_fraction is not None and self.validation_count is not None:
            raise ValueError("give validation_fraction or validation_count, not both")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self._channels:
                raise ValueError(f"{name} has {len(values)} value(s) but images have {self._channels} channel(s)")
        return self

    @property
    def _channels(self) -> int:
        return 3

    def _cut(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Indices for validation and for train, out of the official training labels."""
        return stratified_split(labels, self._validation_count(len(labels)), self._generator("validation"))

    def _validation_count(self, n: int) -> int:
        if self.validation_count is None:
            return example_count(self.validation_fraction or 0.1, n)
        if self.validation_count >= n:
            raise SpecError(
                f"validation_count = {self.validation_count} leaves none of the {n} training images: lower it."
            )
        return self.validation_count

    def _generator(self, purpose: str) -> Any:
        return generator(purpose=f"split/{purpose}", seed=self.split_seed)

    def _limited(self, records: Records, limit: int | None, purpose: str) -> Records:
        if limit is None or limit >= len(records.labels):
            return records
        return records.take(stratified_split(records.labels, limit, self._generator(purpose))[0])

    def _assemble(
        self,
        name: str,
        title: str,
        classes: tuple[str, ...],
        train: Records,
        validation: Records | None,
        test: Records | None,
    ) -> Dataset:
        """Cut, limit and decode.  Without a test split, the official validation split serves as test."""
        splitting = CUT if validation is None else "Validation is a split of its own"
        if test is None:
            splitting = (
                f"There is no labelled test split: the validation images serve as test, and {CUT[0].lower()}{CUT[1:]}"
            )
            test, validation = validation, None
        if test is None:
            raise DataError(f"{name} has neither a test nor a validation split with labels: add one.")
        if validation is None:
            held_out, rest = self._cut(train.labels)
            validation, train = train.take(held_out), train.take(rest)
        else:
            validation = self._limited(validation, self.validation_count, "validation")
        kept = self._limited(train, self.train_limit, "train")
        default_mean, default_std = (PAPER_MEAN, PAPER_STD) if self._channels == 3 else ((0.5,), (0.25,))
        return Dataset(
            name=name,
            title=self.title or title,
            train=kept.split(),
            validation=validation.split(),
            test=self._limited(test, self.test_limit, "test").split(),
            classes=classes,
            mean=self.mean or default_mean,
            std=self.std or default_std,
            flip=self.flip,
            unseen=self._unseen(name, train, kept),
            splitting=splitting,
        )

    def _unseen(self, name: str, train: Records, kept: Records) -> Split | None:
        import torch

        if self.unseen_limit is None:
            return None
        left = train.take(~torch.isin(train.index, kept.index))
        if self.unseen_limit > len(left.labels):
            raise DataError(
                f"unseen_limit = {self.unseen_limit}, but train_limit leaves out {len(left.labels)} images of {name}: "
                "lower unseen_limit, or set train_limit lower."
            )
        return self._limited(left, self.unseen_limit, "unseen").split()


class BundledSource(Source):
    """A data set that comes with scikit-learn, without official splits.

    Attributes:
        test_fraction: share of the examples for the test split, which is cut first.
        split: ``repetition`` draws a new split in each repetition of a suite, so that intervals cover the choice of it.
        split_seed: seed of the splits.
    """

    test_fraction: Fraction = 0.5
    split: Literal["fixed", "repetition"] = "fixed"
    split_seed: int = 0

    @property
    def resplits(self) -> bool:
        """Whether ``split`` is ``repetition``."""
        return self.split == "repetition"

    def for_repetition(self, repetition: int, seed: int = 0) -> Self:
        """The source with the seed of the repetition's split."""
        if not self.resplits:
            return self
        own = seed_for(purpose="split", split_seed=self.split_seed, seed=seed, repetition=repetition)
        return self.model_copy(update={"split": "fixed", "split_seed": own})

    def identity(self) -> dict[str, Any]:
        """Options and the version of scikit-learn, which contains the data."""
        from importlib.metadata import version

        return {**self.model_dump(mode="json"), "version": self.version, "scikit-learn": version("scikit-learn")}


class FileSource(ImageSource):
    """A source that decodes image files under ``root``.

    Attributes:
        root: folder of the data; ``~`` is the home folder.
        image_size: side of a square to resize to, in pixels; required if the images differ in size.
        channels: 3 decodes to RGB, 1 to grey.
        obtain: how to get the data and what ``root`` must contain, in a sentence that is shown if they are missing.
    """

    root: Path | None = None
    image_size: Count | None = None
    channels: Literal[1, 3] = 3
    obtain: str | None = None

    @property
    def _channels(self) -> int:
        return self.channels

    def _folder(self) -> Path:
        source = getattr(self, "source", "file")
        if self.root is None:
            raise self._missing(f"The data source '{source}' needs a folder: set `root` to it.")
        root = self.root.expanduser().resolve()
        if not root.is_dir():
            raise self._missing(f"There is no folder {root}: set `root` of the data source '{source}' to the data.")
        return root

    def _missing(self, message: str) -> DataError:
        return DataError(f"{message} {self.obtain}" if self.obtain else message)

    def _identity(self, root: Path, files: Iterable[Path]) -> dict[str, Any]:
        """Options, files and the version of Pillow, since releases of it decode some JPEG pixels differently by 1."""
        from importlib.metadata import version

        stats = [(path, path.stat()) for path in files]
        return {
            **self.model_dump(mode="json", exclude={"title", "obtain"}),
            "version": self.version,
            "root": str(root),
            "pillow": version("pillow"),
            "files": [[path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns] for path, stat in stats],
        }


DataSpec = Annotated[Source, _ByName]
