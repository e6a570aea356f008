"""Stored tensors: the same bits under the same names, each memory once, and a sentence for what cannot be stored."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from dbn_core.errors import PluginError
from dbn_core.tensors import is_finite, pack, sharing, snapshot, unpack


class Tied(nn.Module):
    """A network, its two halves by other names, one weight in two layers, and views of one memory as buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 16))
        self.features, self.head = self.network[:2], self.network[3]
        self.last = nn.Linear(16, 16)
        self.last.weight = self.head.weight
        whole = torch.arange(12.0).reshape(3, 4)
        for name, view in {
            "whole": whole,
            "again": whole,
            "row": whole[1],
            "turned": whole.t(),
            "none": whole[:0],
        }.items():
            self.register_buffer(name, view)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        h = self.features(images).flatten(1)
        return self.last(self.head(h).relu())[:, :3]


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


def test_every_name_comes_back_and_each_shared_tensor_is_stored_once() -> None:
    state = Tied().state_dict()
    content = pack(state)
    found, metadata = unpack(content)
    assert_same(found, state)
    assert metadata == {}
    # In the file itself each weight has one name, and so has each way of looking at the memory of the buffers.
    weights = len(list(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).state_dict())) + 2 + 1
    assert len(load(content)) == weights + len(("whole", "row", "turned", "none"))
    assert found["head.weight"] is found["network.3.weight"]
    assert found["last.weight"] is found["network.3.weight"]


def test_a_state_without_shared_tensors_is_a_plain_file() -> None:
    state = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last).state_dict()
    plain = save({name: tensor.contiguous().clone() for name, tensor in state.items()})
    assert pack(state) == plain
    assert_same(unpack(plain)[0], state)
    assert unpack(pack(state, {"meta": "é"}))[1] == {"meta": "é"}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_views_of_one_memory_come_back_as_they_were(data: st.DataObject) -> None:
    base = torch.arange(24.0)
    views = {}
    for index in range(data.draw(st.integers(1, 6))):
        shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
        strides = data.draw(st.lists(st.integers(0, 3), min_size=len(shape), max_size=len(shape)))
        reach = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if all(shape) else 0
        views[f"{index}"] = base.as_strided(shape, strides, data.draw(st.integers(0, 23 - reach)))
    assert_same(unpack(pack(views))[0], views)
    copies = snapshot(views)
    assert_same(copies, views)
    assert sharing(copies).keys() >= sharing(views).keys()
    base.zero_()
    assert all(copies[name].data_ptr() != views[name].data_ptr() for name in views if views[name].numel())


def test_a_type_is_part_of_what_is_shared() -> None:
    numbers = torch.tensor([1.5, -2.0])
    both = {"float": numbers, "bits": numbers.view(torch.int32), "imaginary": torch.tensor([1 + 2j]).conj().imag}
    assert_same(unpack(pack(both))[0], both)


def test_a_snapshot_stays_and_keeps_its_ties() -> None:
    module = Tied()
    before = copy.deepcopy(module.state_dict())
    kept = snapshot(module.state_dict())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert_same(kept, before)
    assert kept["head.weight"] is kept["last.weight"]


class Extra(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 1}


STRANGE: dict[str, tuple[Any, str]] = {
    "sparse": (torch.eye(2).to_sparse(), "layout sparse_coo"),
    "meta": (torch.empty(2, device="meta"), "without data"),
    "nested": (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged), "nested"),
    "type": (torch.ones(2, dtype=torch.complex128), "type complex128"),
    "number": (1.0, "no tensor but a float"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", STRANGE)
def test_what_cannot_be_stored_is_named_in_a_sentence(name: str) -> None:
    value, words = STRANGE[name]
    with pytest.raises(PluginError, match=rf"'net\.{name}' is .*{words}.*cannot be stored: keep dense tensors"):
        pack({"weight": torch.ones(1), f"net.{name}": value})


@pytest.mark.filterwarnings("ignore")
def test_quantised_tensors_and_extra_state_are_named_too() -> None:
    with pytest.raises(PluginError, match="'x' is a quantised tensor"):
        pack({"x": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)})
    with pytest.raises(PluginError, match=r"'0\._extra_state' is no tensor but a dict"):
        pack(nn.Sequential(Extra(1, 1)).state_dict())


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_finite_numbers_of_every_type(dtype: torch.dtype) -> None:
    assert is_finite(torch.tensor([1.0, 2.0]).to(dtype))
    assert not is_finite(torch.tensor([1.0, torch.inf]).to(dtype))
    assert is_finite(torch.tensor([1, 2]))
