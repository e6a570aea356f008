"""Files that are whole or absent."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from dbn_core.errors import StoreError


def atomic_write(path: Path, content: bytes) -> None:
    """Write, flush to disk, rename: a reader sees the whole file or none, also after a power cut.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    try:
        _atomic_write(path, content)
    except OSError as error:
        raise StoreError(
            f"Cannot write '{path}': {error.strerror or error}: free space there, or choose a folder that can be "
            "written."
        ) from error


def _atomic_write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
