"""Data that are not images: points of a mixture with known density, and the tables of scikit-learn."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.sources import BundledSource, Count, Fraction, Source
from dbn_core.rng import generator


class Mixture2dSource(Source):
    """Draws from round modes on a circle, of unit variance; a point is [2, 1, 1] and its label is its mode.

    Attributes:
        modes: number of components.
        std: standard deviation of a component.
        split_seed: seed of the draws.
        train_count, test_count: points of each split; validation is as large as test.
    """

    summary: ClassVar[str] = "points of a Gaussian mixture in the plane, whose scores are known"

    source: Literal["mixture2d"] = "mixture2d"
    modes: int = Field(8, ge=3, le=1000)
    std: float = Field(0.15, gt=0, lt=1)
    train_count: Count = 2000
    test_count: Count = 1000
    split_seed: int = 0

    def identity(self) -> dict[str, Any]:
        """Options alone."""
        return {**self.model_dump(mode="json"), "version": self.version}

    def load(self) -> Dataset:
        """Draw the points."""
        from dbn_core.generative.diffusion.mixture import ring

        truth = ring(self.modes, self.std)

        def split(name: str, count: int) -> Split:
            points, modes = truth.labelled_sample(count, generator(purpose=f"mixture/{name}", seed=self.split_seed))
            return Split(points[:, :, None, None], modes)

        return Dataset(
            name="mixture2d",
            title=f"{self.modes} modes in the plane",
            train=split("train", self.train_count),
            validation=split("validation", self.test_count),
            test=split("test", self.test_count),
            classes=tuple(str(mode) for mode in range(self.modes)),
            mean=(0.0, 0.0),
            std=(1.0, 1.0),
            flip=False,
            truth=truth,
        )


class TableSource(BundledSource):
    """A table; a row is [D, 1, 1] in the table's units, its label its class, or 0 where the target is a number.

    Validation is one row of train, since nothing is selected on it.

    Attributes:
        name: of the bundled table.
    """

    summary: ClassVar[str] = "tables that come with scikit-learn: iris, wine, diabetes, breast-cancer"

    source: Literal["table"] = "table"
    name: Annotated[str, Field(pattern=r"^(iris|wine|diabetes|breast-cancer)$")] = "iris"
    test_fraction: Fraction = 0.2
    split: Literal["fixed", "repetition"] = "repetition"

    def load(self) -> Dataset:
        """Split the table, stratified by class where it has classes."""
        if self.resplits:
            return self.for_repetition(0).load()
        import torch

        from dbn_core.data.dataset import stratified_split
        from dbn_core.generative.tabular.data import load_table

        table = load_table(self.name)
        rows = torch.from_numpy(table.values).float()[:, :, None, None]
        labels = (
            torch.from_numpy(table.target).long() if table.classifies else torch.zeros(len(rows), dtype=torch.int64)
        )
        draws = generator(purpose="table/split", table=self.name, seed=self.split_seed)
        test, train = stratified_split(labels, self.test_fraction, draws)
        last = table.columns[-1]
        return Dataset(
            name=self.name,
            title=f"{self.name} ({len(table)} rows of {len(table.columns)})",
            train=Split(rows[train], labels[train]),
            validation=Split(rows[train[:1]], labels[train[:1]]),
            test=Split(rows[test], labels[test]),
            classes=tuple(str(code) for code in range(last.categories or 1)),
            mean=(0.0,) * len(table.columns),
            std=(1.0,) * len(table.columns),
            flip=False,
            test_ids=test,
        )
