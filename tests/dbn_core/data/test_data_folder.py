"""Image folders, TinyImageNet's layout included."""

import json

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from dbn_core.data.decode import decode_images
from dbn_core.data.folder import _EXTENSIONS, FolderSource
from dbn_core.errors import DataError


def save(path, shade: int, size: tuple[int, int] = (6, 6)):
    """One flat picture; its shade tells which it is, in a format that loses nothing at flat shades."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), shade, np.uint8)).save(path)


def shades(split) -> dict[int, int]:
    return {int(image[0, 0, 0]): label for image, label in zip(split.images, split.labels.tolist(), strict=True)}


def plain(root, split: str, start: int, each: int = 4):
    for label, name in enumerate(("ant", "bee")):
        for i in range(each):
            ending = ("png", "PNG", "bmp", "jpeg")[i % 4]
            save(root / split / name / f"{i}.{ending}", start + label * 20 + i)


def tiny(root):
    """Train in <class>/images, annotated val, unlabelled test."""
    for label, name in enumerate(("n01", "n02")):
        for i in range(10):
            save(root / "train" / name / "images" / f"{name}_{i}.JPEG", label * 20 + i)
        (root / "train" / name / f"{name}_boxes.txt").write_text("boxes")
    lines = []
    for i in range(4):
        save(root / "val" / "images" / f"val_{i}.JPEG", 100 + i)
        lines.append(f"val_{i}.JPEG\tn0{2 - i % 2}\t0\t0\t5\t5\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    save(root / "test" / "images" / "test_0.JPEG", 200)


def refused(root, words: str) -> None:
    with pytest.raises(DataError, match=words):
        FolderSource(root=root).load()


def test_three_labelled_splits_are_used_as_they_are(tmp_path):
    for start, split in enumerate(("train", "val", "test")):
        plain(tmp_path, split, start * 60)
    save(tmp_path / "train" / "ant" / "deep" / "er" / "x.webp", 15)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "ant" / "._0.png").write_text("litter")
    (tmp_path / "train" / ".cache").mkdir()
    data = FolderSource(root=tmp_path).load()
    assert [len(split) for split in data.splits.values()] == [9, 8, 8]
    assert data.classes == ("ant", "bee")
    assert shades(data.test) == {120 + i: 0 for i in range(4)} | {140 + i: 1 for i in range(4)}
    assert shades(data.train)[15] == 0
    assert data.splitting == "Validation is a split of its own"
    plain(tmp_path, "valid", 180)
    refused(tmp_path, "valid is a second validation split .* keep one of val, valid, validation")


def test_without_test_the_validation_images_serve_as_test(tmp_path):
    plain(tmp_path, "train", 0, each=10)
    plain(tmp_path, "valid", 100)
    data = FolderSource(root=tmp_path, validation_fraction=0.2).load()
    assert [len(split) for split in data.splits.values()] == [16, 4, 8]
    assert min(shades(data.test)) == 100
    assert data.splitting.endswith("the validation images serve as test, and validation comes out of train")


def test_tiny_imagenet(tmp_path):
    tiny(tmp_path)
    data = FolderSource(root=tmp_path).load()
    assert [len(split) for split in data.splits.values()] == [18, 2, 4]
    assert shades(data.test) == {100: 1, 101: 0, 102: 1, 103: 0}
    assert set(shades(data.train)) | set(shades(data.validation)) == {*range(10), *range(20, 30)}


def test_damaged_annotations_are_named(tmp_path):
    tiny(tmp_path)
    (tmp_path / "val" / "images" / "val_2.JPEG").unlink()
    refused(tmp_path, r"val_2\.JPEG is missing.*line 3")
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG n01\n")
    refused(tmp_path, r"val_annotations\.txt, line 1 names .*not a class")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../../outside.png", "not a plain file name"),
        ("{root}/outside.png", "not a plain file name"),
        ("a\0.png", "is missing"),
        ("a" * 5000, "is missing"),
    ],
)
def test_annotations_name_files_among_the_images_alone(tmp_path, name, words):
    tiny(tmp_path)
    save(tmp_path / "outside.png", 100)
    (tmp_path / "val" / "val_annotations.txt").write_text(f"{name.format(root=tmp_path)}\tn01\n")
    for ask in (FolderSource(root=tmp_path).identity, FolderSource(root=tmp_path).load):
        with pytest.raises(DataError, match=words):
            ask()


def test_damaged_images_are_counted_and_ten_are_named(tmp_path):
    plain(tmp_path, "train", 0)
    plain(tmp_path, "test", 60)
    plain(tmp_path, "val", 120)
    for index in range(12):
        (tmp_path / "train" / "ant" / f"bad{index:02}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^12 of 20 images cannot be used, first of all 10: ") as raised:
        FolderSource(root=tmp_path).load()
    assert str(raised.value).count("bad") == 10
    assert "bad09.png" in str(raised.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_are_checked_or_made_equal(tmp_path, channels):
    plain(tmp_path, "train", 0)
    plain(tmp_path, "test", 60)
    save(tmp_path / "test" / "bee" / "wide.png", 99, size=(6, 9))
    refused(tmp_path, r"wide\.png is 9x6 pixels")
    data = FolderSource(root=tmp_path, image_size=3, channels=channels).load()
    assert data.test.images.shape == (9, channels, 3, 3)
    assert shades(data.test)[99] == 1


def test_resizing_crops_about_the_centre(tmp_path):
    plain(tmp_path, "train", 0)
    plain(tmp_path, "test", 60)
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255
    Image.fromarray(wide).save(tmp_path / "test" / "ant" / "0.png")
    data = FolderSource(root=tmp_path, image_size=4).load()
    assert int(data.test.images[0].min()) == 255


def test_wrong_layouts_are_named(tmp_path):
    refused(tmp_path, "no class folders")
    plain(tmp_path, "train", 0)
    refused(tmp_path, "neither a test nor a validation split")
    plain(tmp_path, "test", 60)
    save(tmp_path / "test" / "cow" / "0.png", 1)
    refused(tmp_path, "cow is not a class of the train folder")
    (tmp_path / "train" / "cow").mkdir()
    refused(tmp_path, "cow holds no images")


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_link_to_the_train_folder_is_no_split(tmp_path, split):
    plain(tmp_path, "train", 0, each=10)
    plain(tmp_path, "validation", 60)
    (tmp_path / split).symlink_to("train")
    refused(tmp_path, f"{split} is the train folder itself: put other images there")


@pytest.mark.parametrize("as_bytes", [True, False])
def test_postscript_in_an_image_is_refused_and_not_run(tmp_path, monkeypatch, as_bytes):
    ran = tmp_path / "ran"
    fake = tmp_path / "bin" / "gs"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\ntouch '{ran}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    path = tmp_path / "0.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"0\.png cannot be decoded as PNG, JPEG, BMP, WEBP, GIF, TIFF, PPM: replace"):
        decode_images([("0.png", content if as_bytes else path)], 1, 3, None)
    assert not ran.exists()


@pytest.mark.parametrize("ending", sorted(_EXTENSIONS))
def test_every_known_ending_is_decoded(tmp_path, ending):
    path = tmp_path / f"0{ending}"
    Image.fromarray(np.full((6, 6), 77, np.uint8)).save(path)
    assert int(decode_images([("0", path)], 1, 1, None)[0, 0, 0, 0]) == 77


def test_identity_is_short_and_follows_files(tmp_path):
    plain(tmp_path, "train", 0)
    plain(tmp_path, "test", 60)
    first = FolderSource(root=tmp_path).identity()
    assert first["file_count"] == 16
    assert len(json.dumps(first)) < 1000
    save(tmp_path / "test" / "bee" / "0.png", 7, size=(7, 7))
    assert FolderSource(root=tmp_path).identity() != first
