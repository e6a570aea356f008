"""Predictors in onnxruntime: the traced model is torch's function for every batch, or is not used."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dbn_core.measure.deploy import deployable
from dbn_core.measure.runtimes import RuntimeMissingError, export_program, prepare, traced
from dbn_core.methods.predictors import Mixture
from tests.dbn_core.measure.test_deploy import dbn, edfm, network

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Noise(nn.Module):
    """Random numbers, which a trace takes for constants."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(192, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer((images + torch.rand_like(images)).flatten(1)).log_softmax(-1)


@torch.no_grad()
@pytest.mark.parametrize("make", [lambda: Mixture([network(), network("frn")]).eval(), dbn, edfm])
def test_a_traced_predictor_is_the_same_function_of_any_batch(make: Callable[[], nn.Module]) -> None:
    images = torch.rand(9, 3, 8, 8)
    predictor = deployable(make(), images[:2])
    for parameter in predictor.parameters():  # the exporter confuses parameters of equal values
        parameter.add_(0.01 * torch.rand_like(parameter))
    exported = traced(predictor, images[:2], 1)
    assert exported is not None
    for count in (1, 2, 9):
        torch.testing.assert_close(exported(images[:count]), predictor(images[:count]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_draws_of_a_flow_can_be_exported_for_any_batch() -> None:
    images, predictor = torch.rand(9, 3, 8, 8), edfm()
    program = export_program(predictor, images[:2])
    for count in (1, 2, 9):
        torch.testing.assert_close(program.module()(images[:count]), predictor(images[:count]))


@torch.no_grad()
def test_what_a_trace_gets_wrong_is_refused() -> None:
    images, module = torch.rand(5, 3, 8, 8), Noise().eval()
    assert traced(module, images[:2], 1) is None
    with pytest.raises(RuntimeMissingError, match="differs"):
        prepare("onnxruntime", module, images[:2], 1, trace=True)
    exported = prepare("onnxruntime", module, images[:2], 1)
    assert not torch.equal(exported(images), exported(images))
