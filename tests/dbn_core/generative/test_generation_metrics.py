"""Distances between samples against torchmetrics, scipy and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from dbn_core.generative.metrics.samples import energy_distance, features, frechet_distance, kernel_distance


def normal(count, dimension, seed=0, shift=0.0, scale=1.0):
    return shift + scale * np.random.default_rng(seed).normal(size=(count, dimension))


class Vectors(nn.Module):
    """Lets torchmetrics take vectors for images."""

    num_features = 6

    def forward(self, x):
        return x


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
def test_frechet_and_kernel_distances_are_those_of_torchmetrics():
    first, second = normal(300, 6), normal(300, 6, seed=1, shift=0.3, scale=1.4)
    frechet = FrechetInceptionDistance(feature=Vectors(), normalize=True, input_img_size=(6,))
    kernel = KernelInceptionDistance(feature=Vectors(), subsets=1, subset_size=300, normalize=True)
    for metric in (frechet.set_dtype(torch.float64), kernel.set_dtype(torch.float64)):
        metric.update(torch.from_numpy(first), real=True)
        metric.update(torch.from_numpy(second), real=False)
    assert frechet_distance(first, second) == pytest.approx(float(frechet.compute()), rel=1e-5)
    assert kernel_distance(first, second) == pytest.approx(float(kernel.compute()[0]), rel=1e-5)


@given(shift=st.floats(-2, 2), scale=st.floats(0.2, 3), seed=st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_the_frechet_distance_of_a_scaled_and_moved_sample_is_known(shift, scale, seed):
    sample = normal(50, 3, seed)
    moved = shift + scale * sample
    gap, variance = moved.mean(0) - sample.mean(0), np.trace(np.cov(sample, rowvar=False))
    expected = gap @ gap + (1 - scale) ** 2 * variance
    assert frechet_distance(sample, moved) == pytest.approx(expected, rel=1e-8, abs=1e-8)
    turn, _ = np.linalg.qr(normal(3, 3, seed + 1))
    assert frechet_distance(sample @ turn, moved @ turn) == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_the_frechet_distance_of_fewer_samples_than_features_is_finite_and_symmetric():
    first, second = normal(5, 12), normal(7, 12, seed=1)
    there, back = frechet_distance(first, second), frechet_distance(second, first)
    assert there == pytest.approx(back)
    assert there > 0
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-5)


def test_in_one_dimension_the_energy_distance_is_scipys():
    first, second = normal(80, 1), normal(60, 1, seed=1, shift=0.5)
    assert energy_distance(first, second) == pytest.approx(stats.energy_distance(first[:, 0], second[:, 0]) ** 2)


def test_samples_of_one_law_are_near_and_the_order_does_not_matter():
    # More rows than a block of the energy distance has.
    first, same, other = normal(2100, 2), normal(1500, 2, seed=1), normal(1500, 2, seed=2, scale=1.3)
    for distance in (frechet_distance, kernel_distance, energy_distance):
        near = distance(first, same)
        assert near < 0.02 < distance(first, other)
        assert distance(first[::-1], same) == pytest.approx(near, rel=1e-9, abs=1e-12)


def test_the_kernel_distance_has_no_bias():
    values = [kernel_distance(normal(10, 2, 2 * i), normal(10, 2, 2 * i + 1)) for i in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_features_are_of_evaluation_mode_and_do_not_depend_on_batches():
    extractor = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.5), nn.Flatten())
    images = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = features(extractor.train(), images, batch_size=3)
    assert found.shape == (10, 144)
    np.testing.assert_allclose(found, features(extractor, images), rtol=1e-5, atol=1e-6)
