"""Data sources: digits, CIFAR (one copy comes with the package), Parquet files and image folders.

Checking the options of a source imports neither torch nor the readers of file formats.
"""

from dbn_core.data.sources import SOURCES

SOURCES.add(
    {
        "digits": "dbn_core.data.digits:DigitsSource",
        "cifar10-jpeg": "dbn_core.data.cifar10_jpeg:Cifar10JpegSource",
        "cifar10": "dbn_core.data.cifar:CifarSource",
        "cifar100": "dbn_core.data.cifar:CifarSource",
        "parquet": "dbn_core.data.parquet:ParquetSource",
        "folder": "dbn_core.data.folder:FolderSource",
    }
)
