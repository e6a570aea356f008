"""SWA and SWAG: moments of weights, draws from them, and BatchNorm statistics of what is drawn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dbn_core.errors import SpecError
from dbn_core.methods.registry import parse_method
from dbn_core.rng import generator
from dbn_core.train.weights import WeightGaussian, flat_weights, set_weights
from tests.support.fitting import RECIPE_PLAIN, data, fit, fresh, images, predictor, trained


class Two(nn.Module):
    """Two tensors of one weight each."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))


def collected(iterates, rank=3, every=1):
    gaussian = WeightGaussian(Two(), rank, every)
    gaussian.tick()
    for a, b in iterates:
        set_weights(gaussian.network, torch.tensor([a, b]))
        gaussian.tick()
    return gaussian


ITERATES = [(1.0, 0.0), (2.0, 0.0), (3.0, 3.0), (2.0, 1.0)]


def test_moments_of_the_worked_example():
    gaussian = collected(ITERATES)
    assert gaussian.mean.tolist() == [2, 1]
    assert (gaussian.square - gaussian.mean**2).tolist() == [0.5, 1.5]
    assert gaussian.deviations.tolist() == [[0.5, 0], [1, 2], [0, 0]]


def test_draws_have_the_covariance_also_between_tensors():
    gaussian, draws = collected(ITERATES), generator(seed=0)
    samples = torch.stack([gaussian.sample(draws) for _ in range(20_000)])
    assert samples.mean(0).tolist() == pytest.approx([2, 1], abs=0.05)
    expected = torch.tensor([[0.5625, 0.5], [0.5, 1.75]], dtype=torch.float64)
    assert torch.allclose(torch.cov(samples.T), expected, atol=0.08)
    assert torch.equal(gaussian.sample(draws, scale=0.0), gaussian.mean)


def test_iterates_are_collected_every_so_many_steps():
    gaussian = collected([*ITERATES, (9.0, 9.0)], every=2)
    assert int(gaussian.count) == 2
    assert gaussian.mean.tolist() == [2, 0.5]  # of the second and the fourth


def test_weights_survive_being_flattened_in_channels_last():
    network, other = fresh().to(memory_format=torch.channels_last), fresh(seed=1)
    set_weights(other, flat_weights(network))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))


def test_swa_of_a_walk_that_stands_still_is_the_source():
    still = fit("swa[epochs=2,lr_scale=1e-12]", 1)["networks"]
    assert all(torch.allclose(still[f"0.{n}"], t, atol=1e-6) for n, t in trained(0, "frn").state_dict().items())
    moved = fit("swa[epochs=2]", 1)["networks"]
    assert not torch.allclose(moved["0.head.linear.weight"], trained(0, "frn").head.linear.weight, atol=1e-4)


def test_swag_without_spread_is_swa_and_with_it_its_draws_differ():
    swa, flat = fit("swa[epochs=2]", 1)["networks"], fit("swag[epochs=2,samples=2,scale=0]", 2)["networks"]
    assert all(torch.equal(tensor, flat[name]) for name, tensor in swa.items())
    parts = fit("swag[epochs=2,samples=2]", 2)
    terms = predictor("swag[samples=2]", 2, parts)(images())
    assert terms.shape == (2, 6, 4)
    assert not torch.equal(terms[0], terms[1])
    for method, size in (("swa", 2), ("swag[samples=2]", 3)):
        with pytest.raises(SpecError, match=f"not {size}"):
            parse_method(method).check_size(size)


def test_batchnorm_statistics_are_those_of_the_mean_weights():
    state = fit("swa[epochs=2]", 1, "batchnorm", recipe=RECIPE_PLAIN)["networks"]
    network = fresh("batchnorm")
    network.load_state_dict({name.removeprefix("0."): tensor for name, tensor in state.items()})
    stem = network.blocks[0]
    h = stem[1](stem[0](data().train.images / 255.0))
    assert torch.allclose(stem[2].running_mean, h.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(stem[2].running_var, h.var((0, 2, 3)), atol=1e-5)
