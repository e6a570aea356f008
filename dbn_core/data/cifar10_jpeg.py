"""CIFAR-10 as JPEG images, which come with the package in ``cifar10_jpeg/``; see the NOTICE there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar, Literal

from dbn_core.data.dataset import Dataset
from dbn_core.data.parquet import ParquetSource
from dbn_core.data.sources import ImageSource
from dbn_core.errors import DataError

_FOLDER = Path(__file__).parent / "cifar10_jpeg"
_SHA256 = {
    "train.parquet": "47a390c637ebca147afafb1bc80cbf298da07a6a36a31255bae9229c489c5c36",
    "test.parquet": "7be750517103f7c160978a0a4e254a6f8f6b908f44dd2609b8945e726fb10b42",
}


class Cifar10JpegSource(ImageSource):
    """All 50,000 training and 10,000 test images of CIFAR-10, JPEG-compressed; validation is cut out of train."""

    summary: ClassVar[str] = "CIFAR-10, JPEG-compressed, 18 MB: comes with the package, no download"

    source: Literal["cifar10-jpeg"] = "cifar10-jpeg"

    def identity(self) -> dict[str, Any]:
        """Options and checksums, which do not depend on the folder, so that trained artefacts can be shared.

        The version of the JPEG decoder is left out, although releases of it may decode a pixel differently by 1.
        """
        return {**self.model_dump(mode="json", exclude={"title"}), "version": self.version, "sha256": _SHA256}

    def load(self) -> Dataset:
        """Check and decode the two files; raises :class:`DataError` if one is missing or damaged."""
        for name, expected in _SHA256.items():
            path = _FOLDER / name
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                state = "is damaged" if path.is_file() else "is missing"
                raise DataError(f"{path}, which comes with the package, {state}: install the package again.")
        options = self.model_dump(exclude={"source", "title"})
        return ParquetSource(root=_FOLDER, title=self.title or "CIFAR-10 (JPEG)", **options).load()
