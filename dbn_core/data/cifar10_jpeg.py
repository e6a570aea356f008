"""CIFAR-10 as JPEG images, which come with the package in ``cifar10_jpeg/``; see the NOTICE there."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.parquet import ParquetSource
from dbn_core.data.sources import ImageSource
from dbn_core.errors import DataError

_FOLDER = Path(__file__).parent / "cifar10_jpeg"
_SHA256 = {
    "train.parquet": "47a390c637ebca147afafb1bc80cbf298da07a6a36a31255bae9229c489c5c36",
    "test.parquet": "7be750517103f7c160978a0a4e254a6f8f6b908f44dd2609b8945e726fb10b42",
}


class Cifar10JpegSource(ImageSource):
    """All 50,000 training and 10,000 test images of CIFAR-10, JPEG-compressed; validation is cut out of train.

    Attributes:
        image_size: side to shrink the 32 x 32 pixels to, by averaging areas; by default they stay as they are.
    """

    summary: ClassVar[str] = "CIFAR-10, JPEG-compressed, 18 MB: comes with the package, no download"

    source: Literal["cifar10-jpeg"] = "cifar10-jpeg"
    image_size: Literal[8, 16, 32] | None = None

    def identity(self) -> dict[str, Any]:
        """Options and checksums, which do not depend on the folder, so that trained artefacts can be shared.

        The version of the JPEG decoder is left out, although releases of it may decode a pixel differently by 1.
        """
        left_out = {"title"} if self.image_size else {"title", "image_size"}
        return {**self.model_dump(mode="json", exclude=left_out), "version": self.version, "sha256": _SHA256}

    def load(self) -> Dataset:
        """Check and decode the two files; raises :class:`DataError` if one is missing or damaged."""
        for name, expected in _SHA256.items():
            path = _FOLDER / name
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                state = "is damaged" if path.is_file() else "is missing"
                raise DataError(f"{path}, which comes with the package, {state}: install the package again.")
        options = self.model_dump(exclude={"source", "title", "image_size"})
        data = ParquetSource(root=_FOLDER, title=self.title or "CIFAR-10 (JPEG)", **options).load()
        if self.image_size is None:
            return data
        train, validation, test = (_shrunk(split, self.image_size) for split in data.splits.values())
        unseen = None if data.unseen is None else _shrunk(data.unseen, self.image_size)
        return replace(data, train=train, validation=validation, test=test, unseen=unseen)


def _shrunk(split: Split, size: int) -> Split:
    """Means of equal squares of pixels, rounded."""
    from torch.nn.functional import adaptive_avg_pool2d

    return Split(adaptive_avg_pool2d(split.images.float(), size).round().byte(), split.labels)
