"""Parquet: round trip, column detection, shards, and every kind of damage."""

import contextlib
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dbn_core.data.decode import decode_images
from dbn_core.data.parquet import ParquetSource
from dbn_core.errors import DataError

NAMES = ("cat", "dog", "eel")
FEATURES = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(NAMES)}}


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def picture(seed: int, height: int = 5, width: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path, seeds, features=FEATURES, images=None, **columns):
    """A small file; the label of image ``seed`` is ``seed % 3`` unless columns are given."""
    images = images or [png(picture(seed)) for seed in seeds]
    columns = columns or {"label": [seed % 3 for seed in seeds]}
    table = pa.table({"img": [{"bytes": data, "path": None} for data in images], **columns})
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def to_arrow(path, folder):
    """The same table as a stream of record batches, as ``datasets`` saves it to disk."""
    table = pq.read_table(path)
    folder.mkdir()
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    path.unlink()


def by_pixels(split) -> dict[bytes, int]:
    return {image.numpy().tobytes(): label for image, label in zip(split.images, split.labels.tolist(), strict=True)}


def expected(seeds) -> dict[bytes, int]:
    return {picture(seed).transpose(2, 0, 1).tobytes(): seed % 3 for seed in seeds}


def splits(root, **seeds) -> None:
    """A file for each split."""
    for name, numbers in seeds.items():
        write(root / f"{name}.parquet", numbers)


def refused(root, words: str, **options) -> None:
    with pytest.raises(DataError, match=words):
        ParquetSource(root=root, **options).load()


@pytest.mark.parametrize("folder", ["", "data"])
def test_round_trip(tmp_path, folder):
    splits(tmp_path / folder, train=range(30), test=range(100, 109))
    data = ParquetSource(root=tmp_path, validation_count=6).load()
    assert [len(split) for split in data.splits.values()] == [24, 6, 9]
    assert by_pixels(data.train) | by_pixels(data.validation) == expected(range(30))
    assert by_pixels(data.test) == expected(range(100, 109))
    assert (data.classes, data.name, data.title) == (NAMES, tmp_path.name, tmp_path.name)
    assert data.mean == (0.49, 0.48, 0.44)
    again = ParquetSource(root=tmp_path, validation_count=6, title="Mine").load()
    assert (again.title, again.fingerprint) == ("Mine", data.fingerprint)


def test_a_dataset_saved_to_disk_is_that_of_the_parquet_files(tmp_path):
    splits(tmp_path, train=range(30), validation=range(50, 56), test=range(100, 109))
    before = ParquetSource(root=tmp_path).load()
    for split in ("train", "validation", "test"):
        to_arrow(tmp_path / f"{split}.parquet", tmp_path / split)
    after = ParquetSource(root=tmp_path).load()
    assert after.fingerprint == before.fingerprint
    assert by_pixels(after.test) == expected(range(100, 109))
    (tmp_path / "test/data-00000-of-00001.arrow").write_bytes(b"ARROW1 not")
    refused(tmp_path, r"test/data-00000-of-00001.arrow is not a readable Arrow file")
    (tmp_path / "train/data-00000-of-00001.arrow").rename(tmp_path / "train/data-00000-of-00002.arrow")
    refused(tmp_path, r"data-00001-of-00002.arrow is missing")


def test_unseen_images_belong_to_no_split(tmp_path):
    splits(tmp_path, train=range(30), test=range(100, 109))
    plain = ParquetSource(root=tmp_path, validation_count=6, train_limit=9).load()
    data = ParquetSource(root=tmp_path, validation_count=6, train_limit=9, unseen_limit=12).load()
    assert plain.unseen is None
    assert data.unseen is not None
    assert data.fingerprint == plain.fingerprint  # members need not be trained again
    assert len(data.unseen) == 12
    assert data.unseen.labels.bincount().tolist() == [4, 4, 4]
    known = by_pixels(data.train) | by_pixels(data.validation)
    assert len(known | by_pixels(data.unseen)) == 9 + 6 + 12
    assert (known | by_pixels(data.unseen)).items() <= expected(range(30)).items()


@pytest.mark.parametrize("train_limit", [9, None])
def test_too_few_unseen_images_are_refused(tmp_path, train_limit):
    splits(tmp_path, train=range(30), test=range(100, 109))
    words = r"unseen_limit = 16, but train_limit leaves out (15|0) images"
    refused(tmp_path, words, validation_count=6, train_limit=train_limit, unseen_limit=16)


def test_shards_are_read_in_order_and_a_lost_one_is_noticed(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet", range(15))
    write(tmp_path / "train-00001-of-00002.parquet", range(15, 30))
    write(tmp_path / "test-00000-of-00001.parquet", range(100, 103))
    data = ParquetSource(root=tmp_path).load()
    assert by_pixels(data.train) | by_pixels(data.validation) == expected(range(30))
    (tmp_path / "train-00001-of-00002.parquet").unlink()
    refused(tmp_path, r"train-00001-of-00002\.parquet is missing: fetch all 2 shards")


def test_own_validation_split_is_used(tmp_path):
    splits(tmp_path, train=range(9), validation=range(50, 59), test=range(100, 103))
    data = ParquetSource(root=tmp_path).load()
    assert by_pixels(data.train) == expected(range(9))
    assert by_pixels(data.validation) == expected(range(50, 59))
    assert len(ParquetSource(root=tmp_path, validation_count=3).load().validation) == 3


@pytest.mark.parametrize("unlabelled_test", [False, True])
def test_validation_serves_as_test_where_no_test_has_labels(tmp_path, unlabelled_test):
    splits(tmp_path, train=range(30), valid=range(50, 59))
    if unlabelled_test:
        write(tmp_path / "test.parquet", range(4), label=[-1] * 4)
    data = ParquetSource(root=tmp_path).load()
    assert [len(split) for split in data.splits.values()] == [27, 3, 9]
    assert by_pixels(data.test) == expected(range(50, 59))


def test_several_label_columns_need_a_choice(tmp_path):
    kinds = {"_type": "ClassLabel", "names": ["pet", "fish"]}
    features = {"img": {"_type": "Image"}, "fine_label": FEATURES["label"], "coarse_label": kinds}
    for name, seeds in {"train": range(12), "test": range(20, 26)}.items():
        fine = [seed % 3 for seed in seeds]
        coarse = [int(label == 2) for label in fine]
        write(tmp_path / f"{name}.parquet", seeds, features, fine_label=fine, coarse_label=coarse)
    refused(tmp_path, "set `label` to one of fine_label, coarse_label")
    assert ParquetSource(root=tmp_path, label="fine_label").load().classes == NAMES
    coarse = ParquetSource(root=tmp_path, label="coarse_label").load()
    assert coarse.classes == ("pet", "fish")
    assert coarse.test.labels.bincount().tolist() == [4, 2]
    refused(tmp_path, "no column 'lable'", label="lable")


def test_without_metadata_the_only_integer_column_is_the_label(tmp_path):
    for name, seeds in {"train": range(12), "test": range(20, 26)}.items():
        write(
            tmp_path / f"{name}.parquet", seeds, None, digit=[10 + seed % 3 for seed in seeds], note=["x"] * len(seeds)
        )
    data = ParquetSource(root=tmp_path).load()
    assert data.classes == ("10", "11", "12")
    assert by_pixels(data.test) == expected(range(20, 26))


def test_a_column_of_class_names_may_be_the_label(tmp_path):
    for name, seeds in {"train": range(12), "test": range(20, 26)}.items():
        write(tmp_path / f"{name}.parquet", seeds, None, kind=[NAMES[seed % 3] for seed in seeds])
    refused(tmp_path, "looks like the label")
    data = ParquetSource(root=tmp_path, label="kind").load()
    assert data.classes == NAMES
    assert by_pixels(data.test) == expected(range(20, 26))


def test_grey_and_resized(tmp_path):
    write(tmp_path / "train.parquet", range(12))
    write(tmp_path / "test.parquet", range(6), images=[png(picture(seed, 8, 12)) for seed in range(6)])
    refused(tmp_path, "image_size")
    data = ParquetSource(root=tmp_path, image_size=4, channels=1).load()
    assert data.train.images.shape[1:] == data.test.images.shape[1:] == (1, 4, 4)
    assert (data.mean, data.std) == ((0.5,), (0.25,))


def test_differing_sizes_within_a_split_name_the_row(tmp_path):
    write(tmp_path / "train.parquet", range(12))
    write(tmp_path / "test.parquet", range(2), images=[png(picture(0)), png(picture(1, 6, 5))])
    refused(tmp_path, r"test\.parquet, row 1 is 5x6 pixels .* 5x5: set `image_size`")


def test_a_damaged_image_names_file_and_row(tmp_path):
    write(tmp_path / "train.parquet", range(12))
    write(tmp_path / "test.parquet", range(2), images=[png(picture(0)), png(picture(1))[:60]])
    refused(tmp_path, r"test\.parquet, row 1 cannot be decoded")
    write(tmp_path / "test.parquet", range(2), images=[png(picture(0)), None])
    refused(tmp_path, r"test\.parquet, row 1 holds no image bytes")


@pytest.mark.parametrize("keep", [0, 3, 200])
def test_a_damaged_file_is_named(tmp_path, keep):
    for damaged in ("train", "test"):
        write(tmp_path / "train.parquet", range(12))
        write(tmp_path / "test.parquet", range(6))
        path = tmp_path / f"{damaged}.parquet"
        path.write_bytes(path.read_bytes()[:keep])
        refused(tmp_path, rf"{damaged}\.parquet is not a readable Parquet file")


def test_unusable_labels_are_refused(tmp_path):
    write(tmp_path / "train.parquet", range(12))
    write(tmp_path / "test.parquet", range(3), label=[0, 7, 1])
    refused(tmp_path, r"test\.parquet, row 1 has the label 7, which is none of the 3 classes")
    write(tmp_path / "test.parquet", range(3), other=[0, 1, 2])
    refused(tmp_path, r"test\.parquet lacks the column 'label'")
    write(tmp_path / "train.parquet", range(3), None, label=[[0], [1], [2]])
    write(tmp_path / "test.parquet", range(3), None, label=[[0], [1], [2]])
    refused(tmp_path, "neither integers nor strings", label="label")


@pytest.mark.parametrize(
    ("metadata", "readable"),
    [
        *((b, False) for b in (b"[]", b"{", b"\xff", b'{"info": []}', b'{"info": {"features": []}}', b"[" * 100_000)),
        (b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": "ab"}}}}', False),
        (b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": [["a"], ["b"]]}}}}', False),
        *((b, True) for b in (b"{}", b'{"info": null}', b'{"info": {"features": {"img": [1], "label": null}}}')),
    ],
)
def test_metadata_that_say_nothing_are_none_and_in_another_layout_are_named(tmp_path, metadata, readable):
    for name in ("train", "test"):
        write(tmp_path / f"{name}.parquet", range(12), None)
        table = pq.read_table(tmp_path / f"{name}.parquet")
        pq.write_table(table.replace_schema_metadata({b"huggingface": metadata}), tmp_path / f"{name}.parquet")
    if readable:
        assert ParquetSource(root=tmp_path).load().classes == ("0", "1", "2")
    else:
        refused(tmp_path, r"train\.parquet has Hugging Face metadata in an unknown layout: fetch it again")


def test_missing_files_are_named(tmp_path):
    refused(tmp_path, r"no train\*\.parquet")
    write(tmp_path / "train.parquet", range(12))
    refused(tmp_path, "neither a test nor a validation split")


def test_identity_follows_files_and_options(tmp_path):
    splits(tmp_path, train=range(12), test=range(6))
    first = ParquetSource(root=tmp_path).identity()
    assert json.loads(json.dumps(first)) == first == ParquetSource(root=tmp_path, title="T").identity()
    assert first != ParquetSource(root=tmp_path, train_limit=3).identity()
    write(tmp_path / "test.parquet", range(7))
    assert first != ParquetSource(root=tmp_path).identity()


def test_what_limits_leave_out_is_not_decoded(tmp_path):
    write(tmp_path / "train.parquet", range(30), images=[png(picture(seed)) for seed in range(30)])
    write(tmp_path / "test.parquet", range(30))
    kept = ParquetSource(root=tmp_path, test_limit=3).load().test
    assert sorted(kept.labels.tolist()) == [0, 1, 2]
    images = [png(picture(seed)) if key in by_pixels(kept) else b"" for seed, key in enumerate(expected(range(30)))]
    write(tmp_path / "test.parquet", range(30), images=images)
    assert torch.equal(ParquetSource(root=tmp_path, test_limit=3).load().test.images, kept.images)


@given(place=st.integers(0, 10_000), value=st.integers(0, 255), end=st.integers(0, 10_000))
@settings(max_examples=150, deadline=None)
def test_damage_either_decodes_or_is_a_data_error(place, value, end):
    data = bytearray(png(picture(0)))
    data[place % len(data)] = value
    with contextlib.suppress(DataError):  # any other error fails the test
        image = decode_images([("here", bytes(data[: end % (2 * len(data))]))], 1, 3, 5)
        assert image.shape == (1, 3, 5, 5)
