"""Points of a mixture with known density."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.sources import Count, Source
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
