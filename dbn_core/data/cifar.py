"""CIFAR-10 and CIFAR-100 through torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dbn_core.data.dataset import Dataset
from dbn_core.data.sources import ImageSource, Records
from dbn_core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def _records(data: Any) -> Records:
    """A torchvision set: ``data`` uint8 [N, H, W, C], ``targets`` a list."""
    import torch

    images = torch.from_numpy(data.data)
    labels = torch.tensor(data.targets, dtype=torch.int64)
    return Records.of(labels, lambda index: images[index].permute(0, 3, 1, 2).contiguous())


class CifarSource(ImageSource):
    """50,000 training and 10,000 test images of 32x32 pixels; validation is cut out of train.

    Attributes:
        root: folder with torchvision's ``cifar-10-batches-py`` or ``cifar-100-python``, or where to download them.
        download: whether to download missing data.
        validation_from: ``stratified`` draws validation class by class; ``tail`` takes the last examples of the stored
            order, as the authors of Diffusion Bridge Networks do.
    """

    summary: ClassVar[str] = "CIFAR-10 and CIFAR-100 through torchvision; downloaded only when asked to"

    source: Literal["cifar10", "cifar100"]
    root: Path = Path("data")
    download: bool = False
    validation_from: Literal["stratified", "tail"] = "stratified"

    def identity(self) -> dict[str, Any]:
        """Options only: they determine the data, since torchvision refuses files with other checksums."""
        return {**self.model_dump(mode="json", exclude={"root", "download", "title"}), "version": self.version}

    def load(self) -> Dataset:
        """Read the data, and download them first if ``download`` is set."""
        train, test = self._open(train=True), self._open(train=False)
        classes = tuple(train.classes)
        return self._assemble(self.source, _TITLES[self.source], classes, _records(train), None, _records(test))

    def _open(self, train: bool) -> Any:
        from torchvision import datasets

        kind = datasets.CIFAR10 if self.source == "cifar10" else datasets.CIFAR100
        root = self.root.expanduser()
        folder = (root / kind.base_folder).resolve()
        title = _TITLES[self.source]
        try:
            return kind(root=str(root), train=train, download=self.download)
        except (RuntimeError, OSError, EOFError, ValueError) as error:
            if self.download:
                raise DataError(
                    f"{title} could not be downloaded to {folder} ({error}): check the network, or copy the extracted "
                    "folder there."
                ) from error
            state = "is damaged or incomplete" if folder.is_dir() else "was not found"
            raise DataError(
                f"{title} {state} at {folder}: set `download = true` in the suite or pass `--download`, or set `root` "
                f"(`--data-root`) to the folder that holds {kind.base_folder}."
            ) from error

    def _cut(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.validation_from == "stratified":
            return super()._cut(labels)
        import torch

        first = len(labels) - self._validation_count(len(labels))
        return torch.arange(first, len(labels)), torch.arange(first)
