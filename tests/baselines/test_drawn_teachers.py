"""ED whose teachers are drawn for each image: the same mean in expectation, and what cannot be drawn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dbn_core.errors import SpecError
from dbn_core.methods.registry import parse_method
from tests.support.fitting import context, fit

DRAWN = "ed[tau=1,teachers_per_image=1]"


def linear_members(count: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Flatten(), nn.Linear(2 * 9, 3)) for _ in range(count)]


@pytest.mark.parametrize("mirror", [False, True])
def test_drawn_teachers_have_the_mean_of_all_in_expectation(mirror: bool) -> None:
    members, x, draws = linear_members(4), torch.randn(6, 2, 3, 3), torch.Generator().manual_seed(1)
    asking = context(members=members)
    with torch.no_grad():
        views = [x, x.flip(-1)] if mirror else [x]
        expected = torch.stack([member(view) for member in members for view in views]).mean(0)
        drawn = torch.stack([asking.teach_by_some(x, 2, draws, mirror).mean(0) for _ in range(1000)])
    assert asking.teacher_passes == 1000 * 2 * 6
    error = drawn.std(0) / 1000**0.5
    assert ((drawn.mean(0) - expected).abs() < 5 * error + 1e-6).all()


def test_an_image_that_asks_all_members_gets_each_answer_once() -> None:
    members, x = linear_members(3), torch.randn(5, 2, 3, 3)
    found = context(members=members).teach_by_some(x, 3, torch.Generator().manual_seed(0))
    expected = torch.stack([member(x) for member in members])
    assert torch.allclose(found.sort(0).values, expected.sort(0).values, atol=1e-6)
    one = context(members=members).teach_by_some(x[:1], 1, torch.Generator().manual_seed(0))
    assert any(torch.allclose(one[0], each[:1], atol=1e-6) for each in expected)


def test_a_student_of_drawn_teachers_repeats_and_differs_from_that_of_all() -> None:
    drawn, again, of_all = (fit(spec, 3)["student"] for spec in (DRAWN, DRAWN, "ed[tau=1]"))
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)
    assert not all(torch.equal(drawn[name], of_all[name]) for name in drawn)


@pytest.mark.parametrize(
    ("spec", "size", "said"),
    [("ed[teachers_per_image=4]", 3, "of 3 teachers"), ("ed[mirrored_teachers=true]", 3, "needs teachers_per_image")],
)
def test_teachers_that_cannot_be_drawn_are_refused(spec: str, size: int, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_method(spec).check_size(size)


def test_images_without_mirror_images_have_no_mirrored_teachers() -> None:
    with pytest.raises(SpecError, match="drop mirrored_teachers"):
        fit("ed[teachers_per_image=1,mirrored_teachers=true]", 2)
