"""Corruptions, images of no class, and how well they are told apart: against closed forms and other libraries."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import convolve, gaussian_filter
from scipy.stats import mannwhitneyu
from sklearn.datasets import load_sample_images

from dbn_core.data.corruptions import CORRUPTIONS, DEFOCUS, LEVELS, NOISE_STD, corrupt, defocus_kernel
from dbn_core.data.ood import OOD_SETS, ood_images
from dbn_core.errors import DataError, SpecError
from dbn_core.metrics.detection import detection, detectors, max_probability, negative_entropy


def images(count: int = 4, channels: int = 3, size: int = 12) -> torch.Tensor:
    draws = torch.Generator().manual_seed(count + channels + size)
    return torch.randint(0, 256, (count, channels, size, size), generator=draws, dtype=torch.uint8)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
@given(cut=st.integers(1, 4), level=st.sampled_from(LEVELS), channels=st.sampled_from([1, 3]), size=st.integers(3, 12))
@settings(max_examples=10, deadline=None)
def test_an_image_is_corrupted_alike_whatever_is_beside_it(
    name: str, cut: int, level: int, channels: int, size: int
) -> None:
    x = images(5, channels, size)
    whole = corrupt(x, name, level, seed=1)
    assert whole.dtype == torch.uint8
    assert whole.shape == x.shape
    assert torch.equal(corrupt(x[:cut], name, level, seed=1), whole[:cut])
    assert torch.equal(corrupt(x[cut:], name, level, range(cut, 5), seed=1), whole[cut:])
    with_others = corrupt(x.flip(0), name, level, range(4, -1, -1), seed=1)
    assert torch.equal(with_others.flip(0), whole)


@pytest.mark.parametrize("level", LEVELS)
def test_noise_has_its_standard_deviation_and_is_drawn_anew_for_each_image_and_seed(level: int) -> None:
    grey = torch.full((2, 3, 64, 64), 128, dtype=torch.uint8)
    noisy = corrupt(grey, "gaussian_noise", level, seed=1).double() / 255
    # 24,576 draws: the relative error of a standard deviation is 1 / sqrt(2 n) = 0.0045; five of them are allowed.
    assert noisy.std() == pytest.approx(NOISE_STD[level - 1], rel=0.0225)
    assert noisy.mean() == pytest.approx(128 / 255, abs=5 * NOISE_STD[level - 1] / 24_576**0.5)
    assert abs(np.corrcoef(noisy[0].flatten(), noisy[1].flatten())[0, 1]) < 5 / 12_288**0.5
    assert not torch.equal(corrupt(grey, "gaussian_noise", level, seed=2), (noisy * 255).round().to(torch.uint8))


@pytest.mark.parametrize("level", LEVELS)
def test_contrast_shrinks_about_the_mean_of_each_image_and_channel(level: int) -> None:
    x = images().double()
    y = corrupt(images(), "contrast", level).double()
    assert (y.mean((2, 3)) - x.mean((2, 3))).abs().max() < 0.5
    share = y.std((2, 3)) / x.std((2, 3))
    assert share.flatten().tolist() == pytest.approx([{1: 0.75, 2: 0.5, 3: 0.4, 4: 0.3, 5: 0.15}[level]] * 12, rel=0.01)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_writes_and_reads(channels: int) -> None:
    x = images(2, channels, 16)
    mine = corrupt(x, "jpeg", 4)
    for image, found in zip(x, mine, strict=True):
        pixels, file = image.permute(1, 2, 0).numpy(), io.BytesIO()
        (Image.fromarray(pixels[..., 0]) if channels == 1 else Image.fromarray(pixels)).save(file, "JPEG", quality=50)
        assert np.array_equal(found.permute(1, 2, 0).numpy().squeeze(), np.asarray(Image.open(file)))


@pytest.mark.parametrize("level", LEVELS)
def test_defocus_is_a_convolution_that_mirrors_the_image(level: int) -> None:
    x = images(2, 3, 9)
    kernel = defocus_kernel(*DEFOCUS[level - 1]).double().numpy()
    assert kernel.sum() == pytest.approx(1)
    expected = np.stack([[convolve(c / 255.0, kernel, mode="mirror") for c in image] for image in x.double().numpy()])
    assert np.abs(corrupt(x, "defocus_blur", level).numpy() - 255 * expected).max() <= 0.51


def test_the_disk_of_defocus_is_smoothed_by_a_gaussian() -> None:
    delta = np.zeros((5, 5))
    delta[2, 2] = 1  # a disk of less than a pixel
    smooth = gaussian_filter(delta, 0.5, mode="constant", radius=1)
    assert defocus_kernel(0.4, 0.5).double().numpy() == pytest.approx(smooth, abs=1e-6)
    flat = defocus_kernel(1.5, 0.1).numpy()[1:4, 1:4]  # all nine pixels, hardly smoothed
    assert flat == pytest.approx(np.full((3, 3), 1 / 9), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "level", "x", "error", "words"),
    [
        ("gausian_noise", 1, images(), SpecError, "did you mean 'gaussian_noise'"),
        ("jpeg", 6, images(), SpecError, "levels 1 to 5, not 6"),
        ("jpeg", 1, images(2, 2), DataError, "1 or 3 channels, not 2"),
        ("defocus_blur", 1, images(2, 1, 2), DataError, "3x3 pixels or more, not 2x2"),
        ("contrast", 1, torch.zeros(2, 3, 1, 1), DataError, "uint8"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(
    name: str, level: int, x: torch.Tensor, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        corrupt(x, name, level)


@pytest.mark.parametrize("name", sorted(OOD_SETS))
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (32, 24))])
def test_images_of_no_class_do_not_depend_on_how_many_there_are(
    name: str, channels: int, size: tuple[int, int]
) -> None:
    found = ood_images(name, 12, channels, size, seed=3)
    assert found.dtype == torch.uint8
    assert found.shape == (12, channels, *size)
    assert torch.equal(ood_images(name, 5, channels, size, seed=3), found[:5])
    assert len({image.numpy().tobytes() for image in found}) == 12  # each is another one
    assert not torch.equal(ood_images(name, 5, channels, size, seed=4), found[:5])


def test_patches_are_cut_out_of_the_photographs() -> None:
    photos = [image.transpose(2, 0, 1) for image in load_sample_images().images]

    def stands_in(photo: np.ndarray, patch: np.ndarray) -> bool:
        corners = np.argwhere((photo[:, :-3, :-3] == patch[:, :1, :1]).all(0))
        return any(np.array_equal(photo[:, y : y + 4, x : x + 4], patch) for y, x in corners)

    found = ood_images("patches", 30, 3, (4, 4), seed=0).numpy()
    at_full_size = [any(stands_in(photo, patch) for photo in photos) for patch in found]
    assert 3 <= sum(at_full_size) <= 20  # a third of them by chance; the others are reduced
    with pytest.raises(DataError, match="640x427 pixels"):
        ood_images("patches", 1, 3, (500, 500))


def test_gratings_and_noise_are_blends_of_two_colours() -> None:
    for image in ood_images("textures", 8, 3, (16, 16), seed=0).double():
        centred = image.flatten(1) - image.flatten(1).mean(1, keepdim=True)
        values = torch.linalg.svdvals(centred)
        assert values[0] > 255 / 8  # it shows something
        assert values[1] < 16 * 0.5  # on a line between two colours, up to rounding


@given(
    test=st.lists(st.integers(0, 8), min_size=1, max_size=12),
    ood=st.lists(st.integers(0, 8), min_size=1, max_size=12),
)
@settings(max_examples=40, deadline=None)
def test_auroc_is_the_mann_whitney_statistic_and_the_others_follow_their_definitions(
    test: list[int], ood: list[int]
) -> None:
    found = detection(np.array(test, float), np.array(ood, float))
    pairs = len(test) * len(ood)
    assert found["auroc"] == pytest.approx(mannwhitneyu(test, ood).statistic / pairs)
    thresholds = sorted({*test, *ood}, reverse=True)
    passed = [(sum(x >= t for x in test), sum(x >= t for x in ood)) for t in thresholds]
    assert found["fpr95"] == next(b / len(ood) for a, b in passed if a / len(test) >= 0.95)
    steps = np.diff([0, *(a for a, _ in passed)]) / len(test)
    assert found["aupr"] == pytest.approx(sum(s * a / (a + b) for s, (a, b) in zip(steps, passed, strict=True) if s))


def test_scores_order_predictions_by_how_sure_they_are() -> None:
    log_probs = np.log([[0.25, 0.25, 0.25, 0.25], [0.4, 0.4, 0.1, 0.1], [0.4, 0.2, 0.2, 0.2], [0.9, 0.05, 0.03, 0.02]])
    assert np.argsort(max_probability(log_probs), kind="stable").tolist() == [0, 1, 2, 3]
    assert np.argsort(negative_entropy(log_probs)).tolist() == [0, 2, 1, 3]  # entropy sees all classes
    with np.errstate(divide="ignore"):
        assert negative_entropy(np.log([[1.0, 0.0]])).tolist() == [0.0]


def test_members_that_disagree_give_images_away_by_their_mutual_information() -> None:
    """Two sure members that contradict each other, and two that are unsure alike: the mean predictions are equal."""
    sure, other, unsure = (0.98, 0.02), (0.02, 0.98), (0.5, 0.5)
    found = detectors(np.log([[sure, sure, unsure], [sure, other, unsure]]))
    assert found["msp"] == pytest.approx(np.log([0.98, 0.5, 0.5]))
    assert found["entropy"][1] == pytest.approx(found["entropy"][2])
    entropy = -(0.98 * np.log(0.98) + 0.02 * np.log(0.02))
    assert found["mi"] == pytest.approx([0, entropy - np.log(2), 0])
    assert set(detectors(np.log([[sure]]))) == {"msp", "entropy"}
