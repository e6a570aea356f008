"""Images and labels in memory, cut into train, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dbn_core.errors import DataError, SpecError
from dbn_core.rng import canonical_json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CUT = "Validation comes out of train"


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images: ``images`` uint8 [N, C, H, W], ``labels`` int64 [N].

    Examples that are not images are float32 of any range; rows of a table are [N, D, 1, 1].

    Raises:
        DataError: for other shapes or types.
    """

    images: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)

    def __post_init__(self) -> None:
        import torch

        if self.images.dtype not in (torch.uint8, torch.float32) or self.images.ndim != 4:
            raise DataError(
                f"Images must be uint8 [N, C, H, W], not {self.images.dtype} {list(self.images.shape)}: convert them "
                "(float32 is accepted only for non-image data)."
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"Labels must be int64 [{len(self.images)}], one for each image, "
                f"not {self.labels.dtype} {list(self.labels.shape)}: convert them."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        """The same split on ``device``."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits, and the constants of them that networks use.

    Attributes:
        name: short name for keys and file names.
        title: name for tables and figures, for example ``CIFAR-10``.
        classes: class names; label k is ``classes[k]``.
        mean: per channel, for images scaled to [0, 1]; networks subtract it themselves.
        std: per channel, for images scaled to [0, 1]; networks divide by it themselves.
        flip: whether a horizontal flip keeps the label.
        unseen: images that belong to no split; only students are taught on them.  Most data have none.
        test_ids: index of each test example in the whole source, int64 [N], where each repetition draws its own split.
        truth: the distribution that the data were drawn from, where it is known.
        splitting: where validation and test come from, in words.
        columns: of a table, whose rows the examples are.

    Raises:
        DataError: a split is empty, image shapes differ, or a label has no class name.
    """

    name: str
    title: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    unseen: Split | None = None
    test_ids: Tensor | None = None
    truth: Any = None
    splitting: str = CUT
    columns: Any = None

    def __post_init__(self) -> None:
        shape = self.train.images.shape[1:]
        for name, split in self.splits.items():
            if not len(split):
                raise DataError(f"The {name} split of {self.name} is empty: give more data, or cut off more for it.")
            if split.images.shape[1:] != shape:
                raise DataError(
                    f"The {name} images of {self.name} are {list(split.images.shape[1:])} (C, H, W) but the train "
                    f"images are {list(shape)}: set `image_size` to resize them all."
                )
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.classes):
                raise DataError(
                    f"The {name} labels of {self.name} run from {low} to {high} but there are {len(self.classes)} "
                    f"class names: labels must lie in 0..{len(self.classes) - 1}."
                )
        if not len(self.mean) == len(self.std) == self.channels:
            raise DataError(
                f"{self.name} has {self.channels} channel(s) but {len(self.mean)} mean(s) and {len(self.std)} std(s): "
                "give one of each for every channel."
            )

    @property
    def splits(self) -> dict[str, Split]:
        """Train, validation and test by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def channels(self) -> int:
        """Number of channels of an image."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.train.images.shape[2], self.train.images.shape[3]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that training depends on; see :func:`fingerprint`."""
        return fingerprint(self.splits.values(), self.classes, self.mean, self.std, self.flip)


def fingerprint(
    splits: Iterable[Split], classes: tuple[str, ...], mean: tuple[float, ...], std: tuple[float, ...], flip: bool
) -> str:
    """SHA-256 over images and labels in order, class names, normalisation and flip.

    The name and the title are left out, so that renaming a dataset does not retrain its networks.
    """
    hasher = hashlib.sha256()
    for split in splits:
        hasher.update(canonical_json(list(split.images.shape)).encode())
        for tensor in (split.images, split.labels):
            hasher.update(tensor.cpu().contiguous().reshape(-1).numpy().data)
    hasher.update(canonical_json({"classes": classes, "mean": mean, "std": std, "flip": flip}).encode())
    return hasher.hexdigest()


def stratified_split(
    labels: Tensor, fraction_or_count: float | int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Choose a share of the examples at random, class by class.

    The total is exact: the count, or the fraction of N rounded half up.  Largest remainders distribute it over the
    classes, ties at random, so that each class gets its proportional share to within one example.

    Args:
        labels: int64 [N].
        fraction_or_count: a float in [0, 1] is a fraction, an int in 0..N a count.
        generator: the only source of randomness.

    Returns:
        Indices of the chosen examples and of the rest, each sorted, int64.

    Raises:
        SpecError: the fraction or the count is out of range.
    """
    import torch

    total, n = example_count(fraction_or_count, len(labels)), len(labels)
    if not n:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    _, group, sizes = torch.unique(labels.cpu(), return_inverse=True, return_counts=True)
    # Integer arithmetic, so that no rounding error can break the total.
    quota, remainder = total * sizes // n, total * sizes % n
    ties = torch.randperm(len(sizes), generator=generator, device=generator.device).cpu()
    by_remainder = ties[torch.argsort(remainder[ties], descending=True, stable=True)]
    quota[by_remainder[: total - int(quota.sum())]] += 1

    order = torch.randperm(n, generator=generator, device=generator.device).cpu()
    order = order[torch.argsort(group[order], stable=True)]  # grouped by class, random within a class
    rank = torch.arange(n) - (sizes.cumsum(0) - sizes)[group[order]]
    chosen = rank < quota[group[order]]
    return order[chosen].sort().values, order[~chosen].sort().values


def example_count(fraction_or_count: float | int, n: int) -> int:
    """How many of ``n`` examples a fraction (float) or a count (int) means; :class:`SpecError` when out of range."""
    if isinstance(fraction_or_count, float):
        if not 0 <= fraction_or_count <= 1:
            raise SpecError(f"A fraction of a split must lie in 0..1, not {fraction_or_count}.")
        return int(fraction_or_count * n + 0.5)
    if not 0 <= fraction_or_count <= n:
        raise SpecError(f"A split of {fraction_or_count} examples cannot be taken from {n}: take at most {n}.")
    return fraction_or_count
