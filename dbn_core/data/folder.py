"""Image folders: one folder a class, and the layout of TinyImageNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from dbn_core.data.dataset import Dataset
from dbn_core.data.decode import decode_images
from dbn_core.data.sources import FileSource, Records
from dbn_core.errors import DataError
from dbn_core.rng import digest

_EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
_SPLITS = {"validation": ("val", "valid", "validation"), "test": ("test",)}
_ANNOTATIONS = "val_annotations.txt"  # TinyImageNet: file name, class and a bounding box, separated by tabs

_Examples = list[tuple[Path, int]]


class FolderSource(FileSource):
    """Images in ``root/train/<class>/``, at any depth, and likewise under ``val`` and ``test``.

    ``valid`` and ``validation`` are other names of ``val``.  The classes are the folders of ``train`` in sorted order.
    TinyImageNet's ``val/images`` with its annotations is read, too.  A ``test`` without class folders has no labels and
    is ignored.  Without a labelled test split the validation images serve as test, and validation is cut from train.
    """

    summary: ClassVar[str] = "a folder of images for each class, TinyImageNet's layout included"

    source: Literal["folder"] = "folder"

    def identity(self) -> dict[str, Any]:
        """Options, and a digest of name, size and modification time of every file."""
        root = self._folder()
        _, splits = self._find(root)
        notes = [path for name in _SPLITS["validation"] if (path := root / name / _ANNOTATIONS).is_file()]
        identity = self._identity(root, [*(path for split in splits.values() for path, _ in split), *notes])
        files = identity.pop("files")  # a hundred thousand of them in TinyImageNet
        return {**identity, "file_count": len(files), "files": digest(files)}

    def load(self) -> Dataset:
        """List all files, then decode the images that the splits and limits keep."""
        root = self._folder()
        classes, splits = self._find(root)
        records = {name: self._records(examples) for name, examples in splits.items()}
        return self._assemble(
            root.name, root.name, classes, records["train"], records.get("validation"), records.get("test")
        )

    def _find(self, root: Path) -> tuple[tuple[str, ...], dict[str, _Examples]]:
        """Class names, and the files and labels of each split that has labels."""
        train = root / "train"
        classes = tuple(path.name for path in _folders(train)) if train.is_dir() else ()
        if not classes:
            raise self._missing(
                f"There are no class folders in {train}: put the images of each class into train/<class>/ and "
                f"test/<class>/ of {root}, or set `root` to the folder that has these."
            )
        return classes, _splits(root, classes)

    def _records(self, examples: _Examples) -> Records:
        import torch

        def read(index: torch.Tensor) -> torch.Tensor:
            chosen = (examples[i][0] for i in index.tolist())
            return decode_images(((str(path), path) for path in chosen), len(index), self.channels, self.image_size)

        return Records.of(torch.tensor([label for _, label in examples], dtype=torch.int64), read)


def _splits(root: Path, classes: tuple[str, ...]) -> dict[str, _Examples]:
    splits = {"train": _by_class(root / "train", classes)}
    for split, names in _SPLITS.items():
        for folder in (root / name for name in names):
            before = splits.get(split)
            if folder.is_dir() and folder.samefile(root / "train"):
                raise DataError(f"{folder} is the train folder itself: put other images there, or remove the link.")
            if (folder / _ANNOTATIONS).is_file():
                splits[split] = _by_annotation(folder, classes)
            elif _is_labelled(folder, classes):
                splits[split] = _by_class(folder, classes)
            if before and splits[split] is not before:
                raise DataError(f"{folder} is a second {split} split of {root}: keep one of {', '.join(names)}.")
    return splits


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_labelled(folder: Path, classes: tuple[str, ...]) -> bool:
    """Whether there are class folders; TinyImageNet's test has only a folder ``images``."""
    names = {path.name for path in _folders(folder)} if folder.is_dir() else set()
    return bool(names) and (names != {"images"} or "images" in classes)


def _by_class(folder: Path, classes: tuple[str, ...]) -> _Examples:
    examples: _Examples = []
    labels = {name: label for label, name in enumerate(classes)}
    for class_folder in _folders(folder):
        if class_folder.name not in labels:
            raise DataError(f"{class_folder} is not a class of the train folder: rename or remove it.")
        files = sorted(path for path in class_folder.rglob("*") if is_image(path))
        if not files:
            raise DataError(f"{class_folder} holds no images: add some or remove the folder.")
        examples += [(path, labels[class_folder.name]) for path in files]
    return examples


def is_image(path: Path) -> bool:
    """Whether the name of a file is that of an image."""
    # File managers leave files whose names start with a dot and have the extensions of images.
    return path.suffix.lower() in _EXTENSIONS and not path.name.startswith(".")


def _is_file(path: Path) -> bool:
    """Whether the file exists; a name that is too long for the system does not."""
    try:
        return path.is_file()
    except OSError:
        return False


def _by_annotation(folder: Path, classes: tuple[str, ...]) -> _Examples:
    notes = folder / _ANNOTATIONS
    labels = {name: label for label, name in enumerate(classes)}
    examples: _Examples = []
    for number, line in enumerate(notes.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, rest = line.partition("\t")
        wanted = rest.split("\t")[0].strip()
        if wanted not in labels:
            raise DataError(
                f"{notes}, line {number} names '{wanted}', not a class of the train folder: correct the line."
            )
        if Path(name).name != name:
            raise DataError(
                f"{notes}, line {number} names '{name}', which is not a plain file name: name a file in "
                f"{folder / 'images'}."
            )
        path = folder / "images" / name
        if not _is_file(path):
            raise DataError(f"{path} is missing, but {notes}, line {number} names it: restore the file.")
        examples.append((path, labels[wanted]))
    return examples
