"""Files that are whole or absent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dbn_core.errors import StoreError


def atomic_write(path: Path, content: bytes) -> None:
    """Write, flush to disk, rename: a reader sees the whole file or none, also after a power cut.

    Raises:
        StoreError: the disk is full, or the folder cannot be written to.
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> StoreError:
    """The error for a file or folder that the system refuses to write."""
    remedy = "free space there, or choose a folder that can be written."
    return StoreError(f"Cannot write '{path}': {error.strerror or error}: {remedy}")


@contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of ``path`` when the block ends without an error; its mode is the umask's.

    Args:
        sync: whether the content reaches the disk first, so that a power cut leaves the old file or the new one.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp lets nobody else read
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The process's umask; the system returns it only when another one is set."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
