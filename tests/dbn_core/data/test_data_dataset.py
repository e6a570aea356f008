"""Splits: exact, stratified, disjoint and repeatable; datasets: checked and fingerprinted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dbn_core.data.dataset import Dataset, Split, fingerprint, stratified_split
from dbn_core.errors import DataError
from dbn_core.rng import generator

labels_of = st.lists(st.integers(0, 6), max_size=120).map(lambda values: torch.tensor(values, dtype=torch.int64))


@given(labels=labels_of, share=st.floats(0, 1), seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_a_stratified_split_is_exact_proportional_and_disjoint(labels, share, seed):
    n, count = len(labels), int(share * len(labels) + 0.5)
    chosen, rest = stratified_split(labels, share, generator(seed=seed))
    assert len(chosen) == count
    assert sorted([*chosen.tolist(), *rest.tolist()]) == list(range(n))
    assert chosen.tolist() == sorted(chosen.tolist())
    assert rest.tolist() == sorted(rest.tolist())
    for label in labels.unique():
        size = int((labels == label).sum())
        assert abs(int((labels[chosen] == label).sum()) - count * size / n) < 1

    again, _ = stratified_split(labels, count, generator(seed=seed))
    assert torch.equal(chosen, again)


def test_every_example_is_as_likely_as_another():
    labels = torch.tensor([0] * 6 + [1] * 3)
    picks = torch.zeros(9)
    for seed in range(600):
        picks[stratified_split(labels, 3, generator(seed=seed))[0]] += 1
    assert ((picks / 600 - 1 / 3).abs() < 0.09).all()  # 4.7 standard deviations


def some_split(n: int = 4, size: int = 3, fill: int = 0) -> Split:
    return Split(torch.full((n, 1, size, size), fill, dtype=torch.uint8), torch.arange(n) % 2)


def some_dataset(**changes):
    parts = {name: some_split(fill=i) for i, name in enumerate(("train", "validation", "test"))}
    options = {"name": "a", "title": "A", "classes": ("x", "y"), "mean": (0.5,), "std": (0.25,), "flip": True}
    return Dataset(**{**options, **parts, **changes})


def test_fingerprint_depends_on_all_that_training_can_notice():
    base = some_dataset()
    order = torch.tensor([1, 0, 2, 3])
    changed_label = base.train.labels.clone()
    changed_label[0] = 1
    others = [
        some_dataset(train=Split(base.train.images[order], base.train.labels[order])),
        some_dataset(train=Split(base.train.images, changed_label)),
        some_dataset(test=some_split(fill=3)),
        some_dataset(train=base.validation, validation=base.train),
        some_dataset(classes=("x", "z")),
        some_dataset(mean=(0.4,)),
        some_dataset(flip=False),
    ]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)
    assert some_dataset(name="b", title="B").fingerprint == base.fingerprint


def test_fingerprint_does_not_depend_on_memory_layout():
    split = Split(torch.arange(96).view(2, 3, 4, 4).to(torch.uint8), torch.tensor([0, 1]))
    strided = Split(split.images.contiguous(memory_format=torch.channels_last), split.labels)
    rest = (("x", "y"), (0.0,) * 3, (1.0,) * 3, True)
    assert fingerprint((split,), *rest) == fingerprint((strided,), *rest)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": some_split(0)}, "test split of a is empty"),
        ({"test": some_split(size=4)}, "image_size"),
        ({"classes": ("x",)}, "labels must lie in 0..0"),
        ({"mean": (0.5, 0.5)}, "every channel"),
    ],
)
def test_an_inconsistent_dataset_is_refused(changes, words):
    with pytest.raises(DataError, match=words):
        some_dataset(**changes)
