"""Digits, CIFAR through a stand-in for torchvision, options, and what importing costs."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from dbn_core.data.cifar import CifarSource
from dbn_core.data.digits import DigitsSource
from dbn_core.data.sources import SOURCES, DataSpec
from dbn_core.errors import DataError

spec = TypeAdapter(DataSpec).validate_python


def test_checking_a_spec_imports_no_heavy_library():
    code = (
        "import sys; from pydantic import TypeAdapter; import dbn_core.data.sources as data\n"
        "for name in data.SOURCES: TypeAdapter(data.DataSpec).validate_python({'source': name})\n"
        "heavy = {'torch', 'torchvision', 'sklearn', 'scipy', 'pyarrow', 'PIL', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_sources_are_listed_with_a_summary():
    images = {"digits", "cifar10-jpeg", "cifar10", "cifar100", "parquet", "folder"}
    assert set(SOURCES) == images | {"csv", "mixture2d", "table"}
    assert all(kind.summary for kind in SOURCES.values())
    assert all(isinstance(spec({"source": name}), kind) for name, kind in SOURCES.items())


# -- digits


def test_digits_have_the_stated_shapes_and_counts():
    data = DigitsSource().load()
    assert [len(split) for split in data.splits.values()] == [718, 180, 899]
    assert data.train.images.shape[1:] == (1, 8, 8)
    assert data.classes == tuple("0123456789")
    assert not data.flip
    for split in data.splits.values():
        counts = split.labels.bincount(minlength=10) / len(split)
        assert ((counts - 0.1).abs() < 0.01).all()


def test_digits_are_the_originals_rescaled_each_used_once():
    from sklearn.datasets import load_digits

    data = DigitsSource().load()
    images = torch.cat([split.images for split in data.splits.values()]).flatten(1).numpy()
    expected = np.round(load_digits().data * 255 / 16).astype(np.uint8)
    assert sorted(map(bytes, images)) == sorted(map(bytes, expected))
    scaled = expected / 255
    assert data.mean == (round(scaled.mean(), 4),)
    assert data.std == (round(scaled.std(), 4),)


def test_digits_are_stable():
    first, again, other = DigitsSource().load(), DigitsSource().load(), DigitsSource(split_seed=1).load()
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert DigitsSource().identity() == DigitsSource().identity() != DigitsSource(split_seed=1).identity()
    json.dumps(DigitsSource().identity())


# -- CIFAR


def fake_cifar(monkeypatch, n_train: int = 60, n_test: int = 20) -> list[dict]:
    """Put a small set in the place of torchvision's, whose checksums no small file can have."""
    import torchvision

    calls: list[dict] = []

    class Fake:
        base_folder = "cifar-10-batches-py"

        def __init__(self, root, train, download):
            calls.append({"root": root, "train": train, "download": download})
            n = n_train if train else n_test
            self.data = np.arange(n, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 32, 32, 3), np.uint8)
            self.data[..., 2] += 100
            self.data[:, 0] = 7
            self.targets = [i % 2 for i in range(n)]
            self.classes = ["cat", "dog"]

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    return calls


def test_cifar_is_converted_and_split(monkeypatch):
    calls = fake_cifar(monkeypatch)
    data = CifarSource(source="cifar10").load()
    assert [len(split) for split in data.splits.values()] == [54, 6, 20]
    assert [call["download"] for call in calls] == [False, False]
    assert data.train.images.shape[1:] == (3, 32, 32)
    assert data.test.images[5, :, 9, 9].tolist() == [5, 5, 105]
    assert data.test.images[5, :, 0, 9].tolist() == [7, 7, 7]
    assert (data.title, data.classes) == ("CIFAR-10", ("cat", "dog"))
    assert (data.mean, data.std, data.flip) == ((0.49, 0.48, 0.44), (0.2, 0.2, 0.2), True)
    assert data.validation.labels.bincount().tolist() == [3, 3]
    kept = torch.cat([data.train.images, data.validation.images])[:, 0, 9, 9]
    assert sorted(kept.tolist()) == list(range(60))


def test_cifar_validation_from_the_tail_keeps_file_order(monkeypatch):
    fake_cifar(monkeypatch)
    data = CifarSource(source="cifar10", validation_from="tail", validation_count=9).load()
    assert data.train.images[:, 0, 9, 9].tolist() == list(range(51))
    assert data.validation.images[:, 0, 9, 9].tolist() == list(range(51, 60))


def test_limits_do_not_move_the_validation_split(monkeypatch):
    fake_cifar(monkeypatch)
    full = CifarSource(source="cifar10").load()
    small = CifarSource(source="cifar10", train_limit=10, test_limit=4, mean=(0.1, 0.2, 0.3)).load()
    assert [len(split) for split in small.splits.values()] == [10, 6, 4]
    assert small.train.labels.bincount().tolist() == [5, 5]
    assert small.mean == (0.1, 0.2, 0.3)
    assert torch.equal(small.validation.images, full.validation.images)
    assert len(CifarSource(source="cifar10", train_limit=1000).load().train) == 54


def test_missing_cifar_names_the_folder_and_the_remedies(tmp_path):
    with pytest.raises(DataError) as caught:
        CifarSource(source="cifar100", root=tmp_path).load()
    for words in (str(tmp_path / "cifar-100-python"), "was not found", "download = true", "--download"):
        assert words in str(caught.value)
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DataError, match="is damaged or incomplete"):
        CifarSource(source="cifar10", root=tmp_path).load()


def test_cifar_identity_is_the_same_on_every_machine():
    here = CifarSource(source="cifar10").identity()
    assert here == CifarSource(source="cifar10", root="/elsewhere", download=True, title="C10").identity()
    assert here != CifarSource(source="cifar10", validation_from="tail").identity()
