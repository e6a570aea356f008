"""The copy of CIFAR-10 that comes with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from dbn_core.data import cifar10_jpeg
from dbn_core.data.cifar10_jpeg import Cifar10JpegSource
from dbn_core.data.parquet import ParquetSource
from dbn_core.errors import DataError


def test_it_is_what_the_parquet_reader_finds_in_its_files() -> None:
    limits = {"validation_count": 300, "train_limit": 200, "test_limit": 100, "split_seed": 3, "unseen_limit": 20}
    ours = Cifar10JpegSource(**limits).load()
    theirs = ParquetSource(root=cifar10_jpeg._FOLDER, **limits).load()
    assert (ours.title, ours.num_classes, ours.channels, ours.image_size) == ("CIFAR-10 (JPEG)", 10, 3, (32, 32))
    assert ours.classes[3:6] == ("cat", "deer", "dog")
    assert ours.unseen is not None
    for name, split in ours.splits.items():
        assert torch.equal(split.images, theirs.splits[name].images)
        assert torch.equal(split.labels, theirs.splits[name].labels)
    assert {name: len(split) for name, split in ours.splits.items()} == {"train": 200, "validation": 300, "test": 100}
    assert all(torch.bincount(split.labels).unique().numel() == 1 for split in ours.splits.values())  # class by class


def test_its_identity_knows_no_place_and_no_time() -> None:
    identity = Cifar10JpegSource().identity()
    assert "root" not in identity
    assert str(cifar10_jpeg._FOLDER) not in str(identity)
    assert Cifar10JpegSource(title="mine").identity() == identity
    assert Cifar10JpegSource(train_limit=10).identity() != identity


def test_images_shrink_by_averaging_squares() -> None:
    limits = {"validation_count": 20, "train_limit": 20, "test_limit": 10, "unseen_limit": 10}
    whole = Cifar10JpegSource(**limits).load()
    small = Cifar10JpegSource(**limits, image_size=16).load()
    for name in ("train", "validation", "test", "unseen"):
        squares = getattr(whole, name).images.double().unflatten(2, (16, 2)).unflatten(4, (16, 2))
        torch.testing.assert_close(getattr(small, name).images.double(), squares.mean((3, 5)), rtol=0, atol=0.5)
        assert torch.equal(getattr(small, name).labels, getattr(whole, name).labels)
    assert "image_size" not in Cifar10JpegSource().identity()  # keys of stored results
    assert Cifar10JpegSource(image_size=16).identity() != Cifar10JpegSource().identity()


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_damage_is_named(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(cifar10_jpeg._FOLDER, tmp_path / "copy")
    monkeypatch.setattr(cifar10_jpeg, "_FOLDER", tmp_path / "copy")
    path = tmp_path / "copy" / "test.parquet"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=rf"test\.parquet.* is {damage}: install the package again"):
        Cifar10JpegSource().load()
