"""The content-addressed store of artefacts: tensors in safetensors, their description in a JSON sidecar.

The key of an artefact is the hash of its recipe, so results do not depend on the order of a suite, and a store can be
copied to another machine.  The sidecar is written last and holds the checksum of the tensors: an artefact without a
sidecar does not exist, and one with a wrong checksum is set aside.

Several runs, on several machines, may share a store on a common file system.  The process that makes an artefact holds
its lock, which the operating system releases when the process dies.  Lock files stay, since two processes could
otherwise hold a lock of one name.  The file ``.dbn-store`` marks a folder as a store.

Artefacts that the store lacks are read from released results (:mod:`benchmarks.store.released`), which are read-only.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.store.released import Released, opened
from dbn_core.errors import ArtefactError, StoreError
from dbn_core.files import atomic_write
from dbn_core.rng import digest

if TYPE_CHECKING:
    import numpy as np

# Artefacts of a plan; then facts about data, timings, and records of external predictions.
KINDS = ("member", "views", "part", "predictions", "shifts", "cost", "data", "latency", "external")
KEY = re.compile("[0-9a-f]{40}")
MARK = ".dbn-store"
CLEANING = "gc"  # the lock that `store gc` holds while it works
CLEANING_WAIT_S = 30.0
_USE = "use-"  # prefix of the locks of processes that use a store


class Store:
    """Artefacts under one folder, by kind and key.

    Args:
        root: the folder, the only one that is written to.
        released: read where the store lacks an artefact.
    """

    def __init__(self, root: Path | str, released: Sequence[Released] = ()) -> None:
        self.root, self.released = Path(root), tuple(released)
        self.damaged: list[str] = []  # what this object found damaged, without a full stop

    def _base(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / key

    def tensors_path(self, kind: str, key: str) -> Path:
        """Where the tensors of an artefact are."""
        return self._base(kind, key).with_suffix(".safetensors")

    def sidecar_path(self, kind: str, key: str) -> Path:
        """Where the description of an artefact is."""
        return self._base(kind, key).with_suffix(".json")

    def checkpoint_path(self, key: str) -> Path:
        """Prefix of the checkpoints of an artefact; files are ``<key>.<purpose>....``."""
        return self.root / "checkpoints" / key

    def drop_checkpoints(self, key: str) -> None:
        """Remove the checkpoints of an artefact that is now stored, and temporary files of killed writes."""
        for pattern in (f"{key}.*", f".{key}.*.tmp"):
            for path in self.checkpoint_path(key).parent.glob(pattern):
                path.unlink(missing_ok=True)

    def lock_path(self, key: str) -> Path:
        """Where the lock of an artefact is."""
        return self.root / "locks" / f"{key}.lock"

    @contextmanager
    def locked(self, key: str, wait_s: float = 0.0) -> Iterator[bool]:
        """Hold the lock of an artefact; yields whether it was obtained within ``wait_s`` seconds (-1: no limit)."""
        from filelock import FileLock, Timeout

        path = self.lock_path(key)
        lock = FileLock(path, thread_local=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=wait_s, poll_interval=0.2)
        except Timeout:
            yield False
            return
        except OSError as error:
            raise StoreError(f"Cannot write to the store '{self.root}': {error.strerror or error}.") from error
        try:
            yield True
        finally:
            lock.release()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Mark the folder as a store, and lock out ``store gc``; a read-only store is only read.

        Raises:
            StoreError: ``store gc`` is at work.
        """
        name = f"{_USE}{uuid.uuid4().hex}"
        with ExitStack() as stack:
            try:
                with self.locked(CLEANING, wait_s=CLEANING_WAIT_S) as free:
                    if free and not self.marked:
                        atomic_write(self.root / MARK, b"A store of dbn-bench; `store gc` cleans no other folder.\n")
                    if free:
                        stack.enter_context(self.locked(name))
            except StoreError:
                free = True
            if not free:
                raise StoreError(
                    f"`dbn-bench store gc` is at work on the store '{self.root}': try again when it has ended."
                )
            try:
                yield
            finally:
                with suppress(OSError):
                    self.lock_path(name).unlink(missing_ok=True)  # the name is unique

    @property
    def marked(self) -> bool:
        """Whether the folder is marked as a store."""
        return (self.root / MARK).is_file()

    def locks(self) -> dict[str, bool]:
        """Whether each existing lock is held, by name."""
        held = {}
        for path in sorted(self.lock_path("*").parent.glob("*.lock")):
            if KEY.fullmatch(path.stem) or path.stem.startswith(_USE):
                with self.locked(path.stem) as free:
                    held[path.stem] = not free
        return held

    def has(self, kind: str, key: str) -> bool:
        """Whether the artefact is complete: its sidecar exists, and its tensors if it has any."""
        return self._holds(kind, key) or any(layer.has(kind, key) for layer in self.released)

    def _holds(self, kind: str, key: str) -> bool:
        sidecar = self.sidecar_path(kind, key)
        if not sidecar.is_file():
            return False
        try:
            meta = json.loads(sidecar.read_text(encoding="utf-8"))
            return not meta["bytes"] or self.tensors_path(kind, key).stat().st_size == meta["bytes"]
        except (ValueError, KeyError, OSError):
            return False

    def described(self, kind: str, key: str) -> bool:
        """Whether the artefact has a sidecar; its tensors may be missing."""
        return self.sidecar_path(kind, key).is_file() or any(layer.described(kind, key) for layer in self.released)

    def intact(self, kind: str, key: str) -> bool:
        """Whether the artefact is complete and unaltered; reads all of it, and sets an altered one aside."""
        if not self.described(kind, key):
            return False
        try:
            self.content(kind, key)
        except ArtefactError:
            return False
        return True

    def put(self, kind: str, key: str, value: Mapping[str, Any], content: bytes = b"") -> None:
        """Store an artefact.

        Args:
            value: JSON: the recipe and facts about the computation.
            content: serialised safetensors; empty for an artefact without tensors.
        """
        if content:
            atomic_write(self.tensors_path(kind, key), content)
        meta = {
            "kind": kind,
            "key": key,
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "value": dict(value),
        }
        meta["meta_sha256"] = digest(meta, 64)
        atomic_write(self.sidecar_path(kind, key), json.dumps(meta, indent=1).encode())

    def value(self, kind: str, key: str) -> dict[str, Any]:
        """The JSON of an artefact; raises :class:`ArtefactError` when it is missing or altered."""
        return self._described(kind, key)[0]

    def known(self, kind: str, key: str) -> dict[str, Any]:
        """The ``value`` of an artefact's JSON; empty where it is missing or damaged."""
        if not self.described(kind, key):
            return {}
        try:
            return self.value(kind, key)["value"]
        except ArtefactError:  # damaged during this run; set aside, and made again by the next
            return {}

    def sidecar(self, kind: str, key: str) -> bytes:
        """The verified bytes of an artefact's sidecar; raises as :meth:`value` does."""
        return self._described(kind, key)[1]

    def _described(self, kind: str, key: str) -> tuple[dict[str, Any], bytes]:
        try:
            content = self.sidecar_path(kind, key).read_bytes()
        except FileNotFoundError as error:
            for layer in self.released:
                if layer.described(kind, key):
                    return layer.description(kind, key)
            raise ArtefactError(
                f"Artefact {kind}/{key} is not in the store '{self.root}': run the suite again."
            ) from error
        try:
            return opened(content, kind, key), content
        except ValueError as error:
            raise self._set_aside(kind, key, str(error)) from error

    def content(self, kind: str, key: str) -> bytes:
        """The verified bytes of an artefact's tensors; empty for one without tensors."""
        meta = self.value(kind, key)
        if not meta["bytes"]:
            return b""
        if not (self.sidecar_path(kind, key).is_file() and self.tensors_path(kind, key).is_file()):
            for layer in self.released:
                if layer.has(kind, key):
                    return layer.content(kind, key)
        try:
            content = self.tensors_path(kind, key).read_bytes()
        except FileNotFoundError as error:  # no damage: bundles may leave weights out
            raise ArtefactError(
                f"The tensors of artefact {kind}/{key} are not in the store '{self.root}': run the suite again."
            ) from error
        if hashlib.sha256(content).hexdigest() != meta["sha256"]:
            raise self._set_aside(kind, key, "its checksum does not match")
        return content

    def arrays(self, kind: str, key: str) -> dict[str, np.ndarray]:
        """The tensors as NumPy arrays, without torch."""
        from safetensors import SafetensorError  # here, since looking up artefacts needs no NumPy
        from safetensors.numpy import load

        try:
            return load(self.content(kind, key))
        except SafetensorError as error:
            raise self._set_aside(kind, key, "it is no safetensors file") from error

    def _set_aside(self, kind: str, key: str, reason: str) -> ArtefactError:
        """Rename a damaged artefact, so that the next run makes it again; the error that says so."""
        done = "set aside as *.damaged"
        for path in (self.sidecar_path(kind, key), self.tensors_path(kind, key)):
            try:
                path.replace(path.with_name(path.name + ".damaged"))
            except FileNotFoundError:
                pass
            except OSError as error:  # a read-only store is still read
                done = f"to be set aside when '{self.root}' is writable ({error.strerror or error})"
        damage = f"Artefact {kind}/{key} is damaged ({reason}), {done}"
        self.damaged.append(damage)
        return ArtefactError(f"{damage}: run the suite again.")

    def own(self, kind: str = "*") -> Iterator[tuple[str, str]]:
        """(kind, key) of all artefacts under ``root``, of one kind or of all, in order."""
        for path in sorted(self.root.glob(f"{kind}/??/*.json")):
            if path.stem.startswith(path.parent.name) and KEY.fullmatch(path.stem):
                yield path.parent.parent.name, path.stem

    def artefacts(self, kind: str = "*") -> Iterator[tuple[str, str]]:
        """(kind, key) of all artefacts here and in released results, in order."""
        yield from sorted({*self.own(kind), *(found for layer in self.released for found in layer.artefacts(kind))})
