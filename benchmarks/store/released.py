"""Released results: a folder of the repository for each suite, from which stores read what they lack.

A folder holds ``manifest.json`` and the zip archives that it lists, each with its checksum.  Archives hold artefacts
as a store does, byte for byte; most trained parts are released without tensors.  Predictions are cut into pieces,
because deep ensembles of different sizes share their terms (:func:`in_pieces`).
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from dbn_core.errors import StoreError
from dbn_core.rng import digest

FORMAT = 1
MANIFEST = "manifest.json"
DESCRIPTIONS = "results.zip"  # the sidecar of everything
FOLDER = Path("results/released")
VARIABLE = "DBN_RELEASED"


def released_root() -> Path | None:
    """The folder with a folder for each released suite; None if there is none.

    The environment variable ``DBN_RELEASED`` names it (empty: none).  Without it, it is that of the working folder or
    of the repository of this package.
    """
    if VARIABLE in os.environ:
        return Path(os.environ[VARIABLE]) if os.environ[VARIABLE] else None
    own = Path(__file__).resolve().parents[2] / FOLDER
    return next((root for root in (FOLDER, own) if root.is_dir()), None)


def released_suites(root: Path | None) -> tuple[Released, ...]:
    """Every released suite of a root, by name.

    Raises:
        StoreError: there is no such folder.
    """
    if root is None:
        return ()
    if not root.is_dir():
        raise StoreError(f"There is no folder '{root}' of released results: change {VARIABLE}, or set it to nothing.")
    # A folder without a manifest is damage, and no reason to train everything.
    return tuple(Released(path) for path in sorted(root.glob("[!.]*/")) if path.is_dir())


class Released:
    """The released artefacts of one suite, read-only; every read is verified.

    Raises:
        StoreError: from every method, when a file is missing, damaged, or of another version.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._archives: dict[str, zipfile.ZipFile] = {}

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What is released, and what made it."""
        path = self.folder / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            version = manifest["format"]
            sealed = manifest.pop("sha256") == digest(manifest, 64)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(MANIFEST) from error
        if version != FORMAT:
            raise StoreError(
                f"'{path}' has format {version}, this version of dbn-bench reads {FORMAT}: check out the code and the "
                f"released results of one commit, or set {VARIABLE} to nothing."
            )
        if not sealed:
            raise self._damaged(MANIFEST)
        return manifest

    def has(self, kind: str, key: str) -> bool:
        """Whether the artefact is released, with its tensors if it has any."""
        return self.manifest["artefacts"].get(f"{kind}/{key}") is not None

    def described(self, kind: str, key: str) -> bool:
        """Whether the sidecar of the artefact is released."""
        return f"{kind}/{key}" in self.manifest["artefacts"]

    def description(self, kind: str, key: str) -> tuple[dict[str, Any], bytes]:
        """The verified sidecar of an artefact, and its bytes."""
        content = self._read(DESCRIPTIONS, entry(kind, key, "json"))
        try:
            return opened(content, kind, key), content
        except ValueError as error:
            raise self._damaged(DESCRIPTIONS) from error

    def content(self, kind: str, key: str) -> bytes:
        """The verified bytes of an artefact's tensors."""
        archive = self.manifest["artefacts"][f"{kind}/{key}"]
        if kind == "predictions":
            names = self._read(archive, entry(kind, key, "pieces")).decode().split()
            content = b"".join(self._read(archive, piece(name)) for name in names)
        else:
            content = self._read(archive, entry(kind, key, "safetensors"))
        if hashlib.sha256(content).hexdigest() != self.description(kind, key)[0]["sha256"]:
            raise self._damaged(archive)
        return content

    def artefacts(self, kind: str = "*") -> Iterator[tuple[str, str]]:
        """(kind, key) of all released artefacts, of one kind or of all."""
        for name in self.manifest["artefacts"]:
            its, _, key = name.partition("/")
            if kind in ("*", its):
                yield its, key

    def damage(self) -> list[str]:
        """A sentence for each damaged file; reads all of them."""
        try:
            files = self.manifest["files"]
        except StoreError as error:
            return [str(error)]
        return [str(self._damaged(name)) for name, known in files.items() if self._sum(name) != known["sha256"]]

    def _sum(self, name: str) -> str:
        try:
            return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
        except OSError:
            return ""

    def _read(self, archive: str, name: str) -> bytes:
        try:
            if archive not in self._archives:
                self._archives[archive] = zipfile.ZipFile(self.folder / archive)
            return self._archives[archive].read(name)  # checks the CRC of what it read
        except Exception as error:  # zipfile and zlib raise errors of many types for damaged bytes
            raise self._damaged(archive) from error

    def _damaged(self, name: str) -> StoreError:
        path = self.folder / name
        return StoreError(
            f"The released file '{path}' is {'damaged' if path.exists() else 'missing'}: restore it with "
            f"`git checkout -- {path}`."
        )


def entry(kind: str, key: str, suffix: str) -> str:
    """The name of a file in an archive, as in a store."""
    return f"{kind}/{key[:2]}/{key}.{suffix}"


def piece(sha256: str) -> str:
    """The name in an archive of a piece of predictions."""
    return f"pieces/{sha256[:2]}/{sha256}"


def in_pieces(kind: str, key: str, content: bytes) -> dict[str, bytes]:
    """Predictions as files of an archive: header, tensors and terms one by one, and the list of their order.

    Args:
        content: a safetensors file; its tensors [M, N, K] are cut into their M terms.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    cuts = {0, start}
    for name, tensor in json.loads(content[8:start]).items():
        if name != "__metadata__":
            low, high = tensor["data_offsets"]
            terms = tensor["shape"][0] if len(tensor["shape"]) == 3 else 1
            cuts |= {start + low + (high - low) * term // terms for term in range(terms)}
    ends = [*sorted(cuts)[1:], len(content)]
    pieces = [content[low:high] for low, high in zip(sorted(cuts), ends, strict=True)]
    names = [hashlib.sha256(each).hexdigest() for each in pieces]
    files = {piece(name): each for name, each in zip(names, pieces, strict=True)}
    return files | {entry(kind, key, "pieces"): "".join(name + "\n" for name in names).encode()}


def opened(sidecar: bytes, kind: str, key: str) -> dict[str, Any]:
    """A verified sidecar.

    Raises:
        ValueError: it is unreadable, altered, or that of another artefact.
    """
    try:
        meta: dict[str, Any] = json.loads(sidecar)
        seal = meta.pop("meta_sha256")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("its description is unreadable") from error
    if seal != digest(meta, 64):
        raise ValueError("its description was altered")
    if (meta.get("kind"), meta.get("key")) != (kind, key):
        raise ValueError(f"it is another one, {meta.get('kind')}/{meta.get('key')}")
    return meta
