"""Samples as files, folders of images, and distances between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from dbn_core.errors import DataError, PluginError, SpecError
from dbn_core.generative.images import image_features, kid, read_images, write_samples
from dbn_core.generative.metrics.samples import kernel_distance


def noise(count: int, channels: int = 3, side: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
def test_written_samples_are_read_again(channels: int, tmp_path: Path) -> None:
    samples = torch.cat([noise(70, channels), torch.full((1, channels, 8, 8), 1.3)])
    write_samples(tmp_path, samples)
    whole = samples.clamp(0, 1).mul(255).round().to(torch.uint8)
    assert torch.equal(read_images(tmp_path / "images", channels), whole)
    assert np.array_equal(np.load(tmp_path / "samples.npz")["samples"], whole.numpy())
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (8 * 9 + 1, 8 * 9 + 1)
        assert np.array_equal(np.asarray(grid.convert("RGB"))[1:9, 10:18, 0], whole[1, 0])
    write_samples(tmp_path, whole)
    with pytest.raises(DataError, match=r"holds other files, such as 00010.png: choose an empty folder"):
        write_samples(tmp_path, samples[:10])


def test_a_distance_on_pixels_and_on_features() -> None:
    first, second = noise(40), noise(60, seed=1) ** 2
    flat = [images.flatten(1).numpy() for images in (first, second)]
    assert kid(first, second) == pytest.approx(kernel_distance(*flat))
    means = nn.AdaptiveAvgPool2d(1)
    assert kid(first, second, means) == pytest.approx(
        kernel_distance(*(x.mean((2, 3)).numpy() for x in (first, second)))
    )
    stored = [images.mul(255).round().to(torch.uint8) for images in (first, second)]
    assert kid(*stored) == pytest.approx(kid(first, second), rel=0.02)


def test_many_rows_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = [images.flatten(1).numpy() for images in (noise(30), noise(25, seed=1))]
    whole = kernel_distance(*pair)
    monkeypatch.setattr("dbn_core.generative.metrics.samples._BLOCK", 7)
    assert kernel_distance(*pair) == pytest.approx(whole, rel=1e-9)


def test_the_features_of_a_classifier_of_torchvision(tmp_path: Path) -> None:
    network = torchvision.models.resnet18(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    images = noise(3, side=32)
    found = image_features("torchvision:resnet18", tmp_path / "w.pth", input_size=64)(images)
    network.fc = nn.Identity()
    big = nn.functional.interpolate(images, (64, 64), mode="bilinear")
    preset = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(found, network(preset(big)).detach(), rtol=1e-4, atol=1e-4)
    grey = image_features("torchvision:resnet18", tmp_path / "w.pth", channels=1, input_size=None)
    assert grey(images[:, :1]).shape == (3, 512)
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="fits 0 of the 122 tensors"):
        image_features("torchvision:resnet18", tmp_path / "other.pth")
    with pytest.raises(SpecError, match="did you mean"):
        image_features("torchvision:resnet", tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("samples", "images", "said"),
    [
        (noise(4), noise(4, side=9), r"are \[3, 8, 8\] and the real images \[3, 9, 9\]"),
        (noise(4), noise(4, 1), r"real images \[1, 8, 8\]"),
        (noise(1), noise(4), "There are 1 samples"),
        (noise(4)[0], noise(4), r"shape \[3, 8, 8\]: give images"),
        (noise(4) / 0, noise(4), "The samples have NaN or infinite values"),
        (noise(4), noise(4) * float("nan"), "The real images have NaN"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(samples, images, said) -> None:
    with pytest.raises(DataError, match=said):
        kid(samples, images)


def test_bad_samples_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="NaN or infinite features"):
        kid(noise(4), noise(4), nn.Linear(8, 2).apply(lambda layer: nn.init.constant_(layer.weight, float("nan"))))
    with pytest.raises(DataError, match=r"shape \[4, 2, 1, 1\]"):
        write_samples(tmp_path / "points", torch.zeros(4, 2, 1, 1))
    with pytest.raises(DataError, match="does not exist"):
        read_images(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("no image")
    with pytest.raises(DataError, match="has no images"):
        read_images(tmp_path / "empty")
    for side in (8, 9):
        Image.new("RGB", (side, side)).save(tmp_path / f"empty/{side}.png")
    with pytest.raises(DataError, match=r"9\.png is 9x9 pixels but the images before it are 8x8"):
        read_images(tmp_path / "empty")
    assert read_images(tmp_path / "empty", image_size=4).shape == (2, 3, 4, 4)
    (tmp_path / "empty/8.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"8\.png cannot be decoded"):
        read_images(tmp_path / "empty")
