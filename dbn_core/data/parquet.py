"""Image classification sets as Hugging Face stores them: Parquet files of its hub, Arrow files of ``save_to_disk``."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dbn_core.data.dataset import Dataset
from dbn_core.data.decode import decode_images
from dbn_core.data.sources import FileSource, Records
from dbn_core.errors import DataError, reason, shown

if TYPE_CHECKING:
    import pyarrow as pa

_SPLIT_PREFIXES = {"train": "train", "validation": "val", "test": "test"}
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?P<suffix>\.parquet|\.arrow)")


class ParquetSource(FileSource):
    """Files ``train*``, ``test*`` and ``val*`` (``.parquet``, shards in sorted order) in ``root`` or ``root/data``.

    Or ``*.arrow`` in folders of these names, as ``datasets.DatasetDict.save_to_disk`` writes them.

    Test files in which every label is -1 are ignored.  Without labelled test files the validation files serve as test.
    Without other validation files, validation is cut from train.

    Attributes:
        image: the image column; by default the one that the schema says holds images.
        label: the label column; by default that of the Hugging Face metadata, or else the only integer column.
    """

    summary: ClassVar[str] = "Parquet or Arrow files in the Hugging Face layouts, images encoded as PNG, JPEG ..."

    source: Literal["parquet"] = "parquet"
    image: str | None = None
    label: str | None = None

    def identity(self) -> dict[str, Any]:
        """Options, and name, size and modification time of each file."""
        root = self._folder()
        return self._identity(root, [path for paths in self._find(root).values() for path in paths])

    def load(self) -> Dataset:
        """Read all files, then decode the images that splits and limits keep."""
        root = self._folder()
        files = self._find(root)
        columns = _columns(files["train"][0], self.image, self.label)
        tables = {part: [_read(path, columns) for path in paths] for part, paths in files.items()}
        if all(label == -1 for shard in tables.get("test", []) for label in shard.labels):
            tables.pop("test", None)
        classes, to_label = _classes(columns, [shard for shards in tables.values() for shard in shards])
        records = {part: self._records(shards, to_label) for part, shards in tables.items()}
        return self._assemble(
            root.name, root.name, classes, records["train"], records.get("validation"), records.get("test")
        )

    def _find(self, root: Path) -> dict[str, list[Path]]:
        """Files of each split that has any; train always has."""
        for folder in (root, root / "data"):
            named = {path: path.name for path in folder.glob("*.parquet") if path.is_file()}
            named |= {path: path.parent.name for path in folder.glob("*/*.arrow")}
            found = {
                part: [path for path in sorted(named) if named[path].lower().startswith(prefix)]
                for part, prefix in _SPLIT_PREFIXES.items()
            }
            if found["train"]:
                for paths in found.values():
                    _check_shards(paths)
                return {part: paths for part, paths in found.items() if paths}
        raise self._missing(
            f"There is no train*.parquet and no train/*.arrow in {root} or its folder data: set `root` to the folder "
            "that has it."
        )

    def _records(self, shards: list[_Shard], to_label: dict[Any, int]) -> Records:
        import torch

        values = [(shard, row, value) for shard in shards for row, value in enumerate(shard.labels)]
        for shard, row, value in values:
            if not isinstance(value, Hashable) or value not in to_label:  # lists cannot be looked up
                raise DataError(
                    f"{shard.path}, row {row} has the label {shown(value)}, which is none of the {len(to_label)} "
                    "classes: remove such rows, or set `label` to another column."
                )
        labels = torch.tensor([to_label[value] for *_, value in values], dtype=torch.int64)

        def read(index: torch.Tensor) -> torch.Tensor:
            chosen = (values[i] for i in index.tolist())
            encoded = ((f"{shard.path}, row {row}", shard.encoded(row)) for shard, row, _ in chosen)
            return decode_images(encoded, len(index), self.channels, self.image_size)

        return Records.of(labels, read)


@dataclass(frozen=True)
class _Columns:
    """The two columns, and the class names if the schema has them."""

    image: str
    label: str
    names: tuple[str, ...] | None


@dataclass(frozen=True)
class _Shard:
    """One file: encoded images as an Arrow column, labels as plain values."""

    path: Path
    images: pa.ChunkedArray
    labels: list[Any]

    def encoded(self, row: int) -> bytes:
        value = self.images[row].as_py()
        value = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(value, bytes):
            raise DataError(f"{self.path}, row {row} holds no image bytes: embed the images in the file.")
        return value


def _check_shards(paths: list[Path]) -> None:
    """Raise for a missing shard, which would only make the training set smaller."""
    present = {path.name for path in paths}
    for match in filter(None, map(_SHARD.fullmatch, sorted(present))):
        for number in range(int(match["count"])):
            name = f"{match['stem']}-{number:0{len(match['number'])}d}-of-{match['count']}{match['suffix']}"
            if name not in present:
                raise DataError(f"{paths[0].parent / name} is missing: fetch all {int(match['count'])} shards.")


def _columns(path: Path, image: str | None, label: str | None) -> _Columns:
    """Find the columns in the schema of one file; the options take precedence over the schema."""
    import pyarrow as pa

    schema = _schema(path)
    features = _features(path, schema)

    def of_type(kind: str) -> list[str]:
        return [name for name in schema.names if features.get(name, {}).get("_type") == kind]

    def has_bytes(column: pa.DataType) -> bool:
        return pa.types.is_struct(column) and column.get_field_index("bytes") >= 0

    images = of_type("Image") or [field.name for field in schema if has_bytes(field.type)]
    labels = of_type("ClassLabel") or [field.name for field in schema if pa.types.is_integer(field.type)]
    image = _pick(path, "image", image, images, schema.names)
    label = _pick(path, "label", label, labels, schema.names)
    names = features.get(label, {}).get("names") or []
    if not (isinstance(names, list) and all(isinstance(name, str | int) for name in names)):
        raise _unknown_layout(path)
    return _Columns(image, label, tuple(map(str, names)) or None)


def _features(path: Path, schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Descriptions of the columns that the Hugging Face libraries write into the schema, by column."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info")
        found = None if info is None else info.get("features")
        features = {} if found is None else dict(found.items())
    except (ValueError, AttributeError, RecursionError) as error:
        raise _unknown_layout(path) from error
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _unknown_layout(path: Path) -> DataError:
    return DataError(f"{path} has Hugging Face metadata in an unknown layout: fetch it again, or remove the metadata.")


def _pick(path: Path, option: str, given: str | None, candidates: list[str], names: list[str]) -> str:
    if given is not None:
        if given not in names:
            raise DataError(f"{path} has no column '{given}': set `{option}` to one of {', '.join(names)}.")
        return given
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise DataError(f"{path} has several {option} columns: set `{option}` to one of {', '.join(candidates)}.")
    raise DataError(f"{path} has no column that looks like the {option}: set `{option}` to one of {', '.join(names)}.")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn the errors of pyarrow for a damaged file into one that names the file."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        kind = "Arrow" if path.suffix == ".arrow" else "Parquet"
        raise DataError(f"{path} is not a readable {kind} file ({reason(error)}): fetch it again.") from error


def _schema(path: Path) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _readable(path):
        if path.suffix == ".parquet":
            return pq.read_schema(path)
        with pa.ipc.open_stream(path.open("rb")) as stream:
            return stream.schema


def _read(path: Path, columns: _Columns) -> _Shard:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [columns.image, columns.label]
    with _readable(path):
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                table = file.read(columns=names)
        else:
            with pa.ipc.open_stream(path.open("rb")) as stream:
                table = stream.read_all()
    missing = set(names) - set(table.column_names)
    if missing:
        raise DataError(f"{path} lacks the column '{min(missing)}' of the other files: fetch it again.")
    return _Shard(path, table.column(columns.image), table.column(columns.label).to_pylist())


def _classes(columns: _Columns, shards: list[_Shard]) -> tuple[tuple[str, ...], dict[Any, int]]:
    """Class names, and the label of each value of the column: from the metadata, or else the values in sorted order."""
    if columns.names is not None:
        return columns.names, {number: number for number in range(len(columns.names))}
    values = [value for shard in shards for value in shard.labels]
    for kind in (int, str):
        if all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
            # A negative number marks an unlabelled row; it is not a class.
            known = sorted({value for value in values if kind is str or value >= 0})
            return tuple(str(value) for value in known), {value: label for label, value in enumerate(known)}
    raise DataError(
        f"{shards[0].path} has a label column '{columns.label}' of neither integers nor strings, or with empty rows: "
        "set `label` to another column."
    )
