"""Data sources: digits, CIFAR (one copy comes with the package), Parquet files and image folders.

``DataSpec`` is what a suite file may say of its data.  Checking one imports neither torch nor a reader of any format.
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
