"""The handwritten digits of scikit-learn: real data without a download."""

from __future__ import annotations

from typing import ClassVar, Literal

from dbn_core.data.dataset import Dataset, Split, stratified_split
from dbn_core.data.sources import BundledSource, Fraction
from dbn_core.rng import generator

# Of all 1,797 images scaled to [0, 1]; constants, so that they do not depend on the split.
MEAN, STD = (0.3053,), (0.3759,)


class DigitsSource(BundledSource):
    """The 1,797 digits of 8x8 pixels; test is cut first, then validation out of the rest, both stratified.

    Attributes:
        validation_fraction: share of the rest after test is cut.
    """

    summary: ClassVar[str] = "scikit-learn's 1,797 handwritten digits of 8x8 pixels; needs no download"

    source: Literal["digits"] = "digits"
    validation_fraction: Fraction = 0.2

    def load(self) -> Dataset:
        """Scale pixel values from 0..16 to 0..255, and split."""
        if self.resplits:
            return self.for_repetition(0).load()
        import torch
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(digits.target).to(torch.int64)
        test, rest = stratified_split(labels, self.test_fraction, generator(purpose="split/test", seed=self.split_seed))
        held_out, train = stratified_split(
            labels[rest], self.validation_fraction, generator(purpose="split/validation", seed=self.split_seed)
        )
        return Dataset(
            name="digits",
            title="Handwritten digits (8x8)",
            train=Split(images[rest[train]], labels[rest[train]]),
            validation=Split(images[rest[held_out]], labels[rest[held_out]]),
            test=Split(images[test], labels[test]),
            classes=tuple(str(digit) for digit in digits.target_names),
            mean=MEAN,
            std=STD,
            flip=False,
            test_ids=test,
        )
