"""Augmentation against slow references that treat one example at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dbn_core.data.augment import batches, crop, draw_flips, draw_offsets, mirror, mixup_coefficients, to_float
from dbn_core.data.dataset import Split
from dbn_core.rng import generator

shapes = st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
seeds = st.integers(0, 2**32)


def images_of(shape, seed=0):
    return torch.randint(1, 256, shape, generator=generator(seed=seed), dtype=torch.uint8)


def test_to_float_spans_zero_to_one():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    assert torch.equal(to_float(images), torch.tensor([[[[0.0, 0.2, 1.0]]]]))
    assert images.flatten().tolist() == [0, 51, 255]


@given(shape=shapes, pad=st.integers(1, 4), seed=seeds, as_float=st.booleans())
@settings(max_examples=60, deadline=None)
def test_crop_equals_a_loop_over_examples(shape, pad, seed, as_float):
    images = to_float(images_of(shape)) if as_float else images_of(shape)
    got = crop(images, pad, draw_offsets(len(images), pad, generator(seed=seed)))
    n, channels, height, width = shape
    tops, lefts = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator(seed=seed))
    for i in range(n):
        canvas = torch.zeros(channels, height + 2 * pad, width + 2 * pad, dtype=images.dtype)
        canvas[:, pad : pad + height, pad : pad + width] = images[i]
        top, left = int(tops[i]), int(lefts[i])
        assert torch.equal(got[i], canvas[:, top : top + height, left : left + width])


def test_crop_offsets_are_uniform_and_independent():
    images = torch.zeros(5000, 1, 5, 5, dtype=torch.uint8)
    images[:, :, 2, 2] = 1  # its place after the crop tells the offset
    places = crop(images, 2, draw_offsets(5000, 2, generator(seed=0))).flatten(1).argmax(1).bincount(minlength=25)
    assert stats.chisquare(places.numpy()).pvalue > 0.001


@given(shape=shapes, seed=seeds)
@settings(max_examples=40, deadline=None)
def test_flip_equals_a_loop_over_examples(shape, seed):
    images = images_of(shape)
    got = mirror(images, draw_flips(len(images), generator(seed=seed)))
    draws = torch.rand(shape[0], generator=generator(seed=seed))
    for i, draw in enumerate(draws.tolist()):
        assert torch.equal(got[i], images[i].flip(-1) if draw < 0.5 else images[i])


def test_half_of_the_examples_are_flipped():
    images = torch.tensor([1, 2], dtype=torch.uint8).expand(4000, 1, 1, 2)
    flipped = int((mirror(images, draw_flips(4000, generator(seed=0)))[:, 0, 0, 0] == 2).sum())
    assert stats.binomtest(flipped, 4000).pvalue > 0.001


@pytest.mark.parametrize("alpha", [0.4, 1.0, 3.0])  # far below, float32 rounds much of the mass to 1
def test_mixup_coefficients_follow_the_beta_distribution(alpha):
    lam = mixup_coefficients(4000, alpha, generator(seed=0), per_example=True)
    assert lam.dtype == torch.float32
    assert lam.min() >= 0
    assert lam.max() <= 1
    assert stats.kstest(lam.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.001


@given(alpha=st.floats(1e-3, 1e3), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_mixup_coefficients_are_finite_for_any_alpha(alpha, seed):
    lam = mixup_coefficients(8, alpha, generator(seed=seed), per_example=True)
    assert ((lam >= 0) & (lam <= 1)).all()


def test_one_coefficient_for_a_batch():
    lam = mixup_coefficients(5, 0.4, generator(seed=0), per_example=False)
    assert lam.shape == (5,)
    assert lam.unique().numel() == 1
    assert not mixup_coefficients(5, 0.0, generator(seed=0), per_example=True).any()


@given(n=st.integers(1, 40), batch_size=st.integers(1, 45), seed=seeds, drop_last=st.booleans())
@settings(max_examples=80, deadline=None)
def test_an_epoch_visits_every_example_once(n, batch_size, seed, drop_last):
    split = Split(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.zeros(n, dtype=torch.int64))
    epoch = [batch.tolist() for batch in batches(split, batch_size, generator(seed=seed), drop_last)]
    seen = [i for batch in epoch for i in batch]
    assert len(set(seen)) == len(seen)
    assert len(seen) == (n // batch_size * batch_size if drop_last else n)
    assert all(len(batch) == batch_size for batch in epoch[:-1])
    assert seen == torch.randperm(n, generator=generator(seed=seed)).tolist()[: len(seen)]
