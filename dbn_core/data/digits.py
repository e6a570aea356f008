"""Scikit-learn's handwritten digits: real data that need no download."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dbn_core.data.dataset import Dataset, Split, stratified_split
from dbn_core.data.sources import Fraction, Source
from dbn_core.errors import SpecError
from dbn_core.seeds import generator, seed_for

if TYPE_CHECKING:
    from torch import Tensor

# Of all 1,797 images scaled to [0, 1]; constants, so that they do not move with the split.
MEAN, STD = (0.3053,), (0.3759,)


class DigitsSource(Source):
    """The 1,797 digits of 8x8 pixels; test is cut first, then validation out of what is left, both stratified.

    Attributes:
        test_fraction: share of all images.
        validation_fraction: share of the images that are not for test.
        split: ``fixed``, the same for all repetitions of a suite, or ``repetition``, a new one for each.
        split_seed: seed of the split, or of all of them.
    """

    summary: ClassVar[str] = "scikit-learn's 1,797 handwritten digits of 8x8 pixels; needs no download"

    source: Literal["digits"] = "digits"
    test_fraction: Fraction = 0.5
    validation_fraction: Fraction = 0.2
    split: Literal["fixed", "repetition"] = "fixed"
    split_seed: int = 0

    @property
    def splits_anew(self) -> bool:
        """Whether every repetition has a split of its own."""
        return self.split == "repetition"

    def of_repetition(self, seed: int, repetition: int) -> DigitsSource:
        """These digits with the split of one repetition, fixed."""
        if not self.splits_anew:
            return self
        axes = {"split_seed": self.split_seed, "seed": seed, "repetition": repetition}
        return self.model_copy(update={"split": "fixed", "split_seed": seed_for(purpose="split", **axes)})

    def identity(self) -> dict[str, Any]:
        """Options and the version of scikit-learn, which carries the data."""
        from importlib.metadata import version

        options = self.model_dump(mode="json", exclude=None if self.splits_anew else {"split"})
        return {**options, "version": self.version, "scikit-learn": version("scikit-learn")}

    def load(self) -> Dataset:
        """Pixel values 0..16 become 0..255.

        Raises:
            SpecError: every repetition has a split of its own, and none is chosen.
        """
        if self.splits_anew:
            raise SpecError(
                "These digits are split anew for every repetition: load those of one, "
                "`suite.source(repetition).load()`, or set `split` of the data source to fixed."
            )
        images, labels, classes = _all_digits()
        test, rest = stratified_split(labels, self.test_fraction, generator(purpose="split/test", seed=self.split_seed))
        held_out, train = stratified_split(
            labels[rest], self.validation_fraction, generator(purpose="split/validation", seed=self.split_seed)
        )
        return Dataset.build(
            name="digits",
            title="Handwritten digits (8x8)",
            train=Split(images[rest[train]], labels[rest[train]]),
            validation=Split(images[rest[held_out]], labels[rest[held_out]]),
            test=Split(images[test], labels[test]),
            classes=classes,
            mean=MEAN,
            std=STD,
            flip=False,
            test_ids=test,
        )


@lru_cache(maxsize=1)
def _all_digits() -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """All images and labels in scikit-learn's order, and the names of the classes."""
    import torch
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(digits.target).to(torch.int64)
    return images, labels, tuple(str(digit) for digit in digits.target_names)
