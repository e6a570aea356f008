"""Methods that train nothing: views of an image, averaged logits, last-layer Laplace, BatchNorm of mini-batches."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm as gaussian
from torch.nn import functional as F

from benchmarks.suite.load import load_suite
from dbn_core.errors import SpecError
from dbn_core.measure.cost import measure_cost
from dbn_core.nets.laplace import LastLayerLaplace, kronecker_factors, linked_log_probs, with_one
from dbn_core.rng import generator
from tests.support.fitting import RECIPE_PLAIN, data, fit, images, predictor, trained

# ------------------------------------------------------------------------------------------------- views of images


def test_the_mirror_image_is_the_second_view_where_data_allow_it():
    network, x = trained(0, "frn"), images()
    mirrored = predictor("tta", 3, flip=True)(x)
    shifted = predictor("tta", 2)(x)
    own, moved = network(x).log_softmax(-1), torch.zeros_like(x)
    moved[:, :, 1:] = x[:, :, :-1]
    assert torch.equal(mirrored[0], own)
    assert torch.equal(shifted[0], own)
    assert torch.allclose(mirrored[1], network(torch.flip(x, [3])).log_softmax(-1))
    assert torch.allclose(mirrored[2], network(moved).log_softmax(-1), atol=1e-6)
    assert torch.equal(shifted[1], mirrored[2])


def test_nine_views_are_nine_shifts_of_zero_padded_images():
    x = images(2)
    padded = F.pad(x, (1, 1, 1, 1))
    windows = {(i, j): padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)}
    terms = predictor("tta", 9)(x)
    expected = torch.stack([trained(0, "frn")(window).log_softmax(-1) for window in windows.values()])
    distance = (terms[:, None] - expected[None]).abs().amax((2, 3))
    assert sorted(distance.argmin(1).tolist()) == list(range(9))
    assert distance.min(1).values.max() < 1e-5


def test_an_ensemble_on_views_has_the_views_of_each_member_in_a_row():
    x = images()
    terms = predictor("de-tta[views=3]", 2, flip=True)(x)
    assert torch.equal(terms[:3], predictor("tta", 3, flip=True)(x))
    assert torch.equal(terms[3], trained(1, "frn")(x).log_softmax(-1))
    assert torch.allclose(terms[4], trained(1, "frn")(torch.flip(x, [3])).log_softmax(-1))


# --------------------------------------------------------------------------------------------------- mean of logits


def test_logits_are_averaged_before_the_softmax():
    x = images()
    mean = sum(trained(i, "frn")(x) for i in range(3)) / 3
    assert torch.allclose(predictor("de-logits", 3)(x), mean.log_softmax(-1), atol=1e-5)
    single = predictor("de-logits", 1)(x)
    assert torch.allclose(single, trained(0, "frn")(x).log_softmax(-1), atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- Laplace


def test_both_links_of_a_binary_problem_are_the_worked_numbers():
    # x = (-2, -1, 1, 2, -1) with labels (0, 0, 1, 1, 1) and prior precision 1: the MAP weight and its Hessian.
    w, hessian, x = 0.729810, 2.882241, 3.0
    mean, variance = w * x, x**2 / hessian
    exact = quad(lambda z: gaussian.pdf(z, mean, math.sqrt(variance)) / (1 + math.exp(-z)), mean - 20, mean + 20)[0]
    assert exact == pytest.approx(0.812147, abs=1e-6)
    # As two logits +z/2, -z/2, so that only their difference varies.
    logits = torch.tensor([[-mean / 2, mean / 2]], dtype=torch.float64)
    u = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64).T / math.sqrt(2)
    v = torch.tensor([[variance / 2, 0.0]], dtype=torch.float64)  # V_11 + V_22 - 2 V_12 = 2 v_1
    pairwise, probit = (float(linked_log_probs(logits, v, u, link)[0, 1].exp()) for link in ("pairwise", "probit"))
    assert pairwise == pytest.approx(0.812661, abs=1e-6)
    assert probit > exact  # each logit alone has a quarter of the variance of their difference


def test_the_pairwise_link_does_not_see_what_all_logits_share():
    mean = torch.randn(5, 4, generator=generator(seed=0), dtype=torch.float64)
    u = torch.linalg.qr(torch.cat([torch.ones(4, 1), torch.randn(4, 3, generator=generator(seed=1))], 1).double())[0]
    v = torch.rand(5, 4, generator=generator(seed=2), dtype=torch.float64)
    shifted = v + torch.tensor([100.0, 0, 0, 0])  # along (1, 1, 1, 1)
    pairs = [linked_log_probs(mean, x, u, "pairwise") for x in (v, shifted)]
    assert torch.allclose(*pairs, atol=1e-9)
    assert not torch.allclose(*[linked_log_probs(mean, x, u, "probit") for x in (v, shifted)], atol=0.1)


def covariance(factors, phi, precision):
    """V [N, K, K] by inverting the Kronecker product itself."""
    a = factors["U_a"] @ torch.diag(factors["a"]) @ factors["U_a"].T
    g = factors["U_g"] @ torch.diag(factors["g"]) @ factors["U_g"].T
    inverse = torch.linalg.inv(torch.kron(g, a) + precision * torch.eye(len(a) * len(g), dtype=torch.float64))
    jacobian = torch.stack([torch.kron(torch.eye(len(g), dtype=torch.float64), row[None]) for row in phi])
    return jacobian @ inverse @ jacobian.transpose(1, 2)


def test_the_variances_are_those_of_the_inverted_kronecker_product():
    phi = torch.randn(30, 6, generator=generator(seed=3), dtype=torch.float64)
    logits = torch.randn(30, 3, generator=generator(seed=4), dtype=torch.float64)
    factors, x = kronecker_factors(phi, logits), phi[:4]
    v = (x @ factors["U_a"]).square() @ (1 / (torch.outer(factors["a"], factors["g"]) + 0.7))
    ours = torch.einsum("ik,nk,jk->nij", factors["U_g"], v, factors["U_g"])
    full = covariance(factors, x, 0.7)
    assert torch.allclose(ours, full)
    # The direction that all logits share has the prior's variance alone.
    assert full.sum((1, 2)) / 3 == pytest.approx((x.square().sum(1) / 0.7).tolist())


def test_equal_predictions_make_the_kronecker_factors_exact():
    phi = torch.randn(20, 4, generator=generator(seed=5), dtype=torch.float64)
    p = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    factors = kronecker_factors(phi, p.log().expand(20, 3))
    one = torch.diag(p) - torch.outer(p, p)
    full = sum(torch.kron(one, torch.outer(x, x)) for x in phi)
    a, g = (u @ torch.diag(e) @ u.T for u, e in ((factors["U_a"], factors["a"]), (factors["U_g"], factors["g"])))
    assert torch.allclose(torch.kron(g, a), full, atol=1e-13)


@pytest.mark.parametrize("link", ["pairwise", "probit"])
def test_a_sharp_prior_leaves_the_network_and_validation_softens_an_over_confident_one(link):
    network, x = copy.deepcopy(trained(0, "frn")), images()
    parts = fit(f"laplace[link={link},precision=1e9]", 1)
    sharp = predictor(f"laplace[link={link}]", 1, parts)(x)
    assert torch.allclose(sharp, network(x).log_softmax(-1), atol=1e-4)
    network.head.linear.weight.mul_(30)
    chosen = fit(f"laplace[link={link}]", 1, members=[network])["posterior"]
    made = LastLayerLaplace(network, chosen, float(chosen["precision"]), link)
    validation = data().validation
    before, after = (f(validation.images / 255.0).log_softmax(-1) for f in (network, made))
    assert F.nll_loss(after, validation.labels) < F.nll_loss(before, validation.labels) - 0.1


def test_laplace_costs_two_small_products():
    parts, x = fit("laplace[link=probit]", 1), images(1)
    phi = with_one(trained(0, "frn").last_layer()[0](x))
    d, k = phi.shape[1], 4
    extra = measure_cost(predictor("laplace[link=probit]", 1, parts), x).macs - measure_cost(trained(0, "frn"), x).macs
    assert extra == d * d + d * k + k * k


# --------------------------------------------------------------------------------------------------- MC BatchNorm


def test_statistics_of_all_images_are_one_pass_in_training_mode():
    found = fit("mc-batchnorm[samples=1,batch_size=64]", 1, "batchnorm", recipe=RECIPE_PLAIN)["statistics"]
    network = trained(0, "batchnorm")
    stem = network.blocks[0]
    h = stem[1](stem[0](data().train.images / 255.0))
    assert torch.allclose(found["blocks.0.2.running_mean"][0], h.mean((0, 2, 3)), atol=1e-5)
    assert torch.allclose(found["blocks.0.2.running_var"][0], h.var((0, 2, 3)), atol=1e-5)
    # The second layer sees maps that the first has normalised by the same images.
    z = torch.relu(F.batch_norm(h, None, None, stem[2].weight, stem[2].bias, True))
    conv = network.blocks[1].conv1
    assert torch.allclose(found["blocks.1.norm1.running_mean"][0], conv(z).mean((0, 2, 3)), atol=1e-4)


def test_terms_share_all_weights_and_differ_by_their_statistics():
    before = {name: tensor.clone() for name, tensor in trained(0, "batchnorm").state_dict().items()}
    parts = fit("mc-batchnorm[samples=3,batch_size=16]", 2, "batchnorm")
    built = predictor("mc-batchnorm[samples=3]", 2, parts, "batchnorm")
    terms = built(images())
    assert terms.shape == (2, 6, 4)
    assert not torch.allclose(terms[0], terms[1], atol=1e-3)
    assert torch.allclose(terms[:, :1], built(images(1)), atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained(0, "batchnorm").state_dict().items())
    network, x = trained(0, "batchnorm"), images(1)
    one, two = measure_cost(network, x), measure_cost(built, x)
    assert (two.params, two.macs) == (one.params, 2 * one.macs)


def test_networks_without_batchnorm_are_refused_when_a_suite_is_planned(tmp_path):
    text = (
        'title = "x"\nrepetitions = 1\n[data]\nsource = "digits"\n[network]\nname = "resnet8"\n[pool]\nmembers = 1\n'
        '[recipe]\nepochs = 1\n[students]\nepochs = 1\n[[methods]]\nuse = "mc-batchnorm"\nsizes = [2]\n'
    )
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(SpecError, match=r"BatchNorm statistics.*networks have none"):
        load_suite(str(tmp_path / "mine.toml")).entries()
    (tmp_path / "mine.toml").write_text(text.replace('"resnet8"', '"resnet8"\nnorm = "batchnorm"'))
    assert load_suite(str(tmp_path / "mine.toml")).entries()
