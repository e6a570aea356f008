"""Data sources: digits, CIFAR (one copy comes with the package), Parquet files, image folders, points and tables.

``DataSpec`` is what a suite file may say of its data.  Checking one imports neither torch nor a reader of any format.
"""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from dbn_core.data.cifar import CifarSource as CifarSource
from dbn_core.data.cifar10_jpeg import Cifar10JpegSource as Cifar10JpegSource
from dbn_core.data.dataset import Dataset as Dataset
from dbn_core.data.dataset import Split as Split
from dbn_core.data.dataset import stratified_split as stratified_split
from dbn_core.data.digits import DigitsSource as DigitsSource
from dbn_core.data.folder import FolderSource as FolderSource
from dbn_core.data.parquet import ParquetSource as ParquetSource
from dbn_core.data.points import Mixture2dSource as Mixture2dSource
from dbn_core.data.points import TableSource as TableSource
from dbn_core.data.sources import Source as Source

DataSpec = Annotated[
    DigitsSource | Cifar10JpegSource | CifarSource | ParquetSource | FolderSource | Mixture2dSource | TableSource,
    Field(discriminator="source"),
]

# What `source` may be, and the class of each.
SOURCES: dict[str, type[Source]] = {
    name: kind for kind in get_args(get_args(DataSpec)[0]) for name in get_args(kind.model_fields["source"].annotation)
}
