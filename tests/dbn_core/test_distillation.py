"""Distillation losses against loops, torch's Dirichlet and hand-made cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma
from torch import nn
from torch.distributions import Dirichlet, kl_divergence

from dbn_core.distillation import ed_loss, end2_loss, proxy_dirichlet
from dbn_core.methods.predictors import DirichletMean
from dbn_core.rng import generator

seeds = st.integers(0, 2**32)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed=seed, purpose="normal"), dtype=torch.float64)


def softmax(logits, tau):
    weights = [math.exp(float(z) / tau) for z in logits]
    return [w / sum(weights) for w in weights]


# ------------------------------------------------------------------------------------------------------------ ED


def ed_by_loops(student, teachers, tau, alpha, labels):
    total = 0.0
    for b in range(len(student)):
        q, soft = softmax(student[b], 1.0), softmax(student[b], tau)
        total -= (1 - alpha) * math.log(q[int(labels[b])])
        for teacher in teachers:
            p = softmax(teacher[b], tau)
            total -= alpha * tau**2 / len(teachers) * sum(p_k * math.log(q_k) for p_k, q_k in zip(p, soft, strict=True))
    return total / len(student)


@given(seed=seeds, members=st.integers(1, 4), tau=st.floats(0.5, 8), alpha=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_ed_equals_loops_over_teachers_and_classes(seed, members, tau, alpha):
    student, teachers = 2 * normal(3, 5, seed=seed), 3 * normal(members, 3, 5, seed=seed + 1)
    labels = torch.tensor([0, 4, 2])
    got = ed_loss(student, teachers, tau, alpha, labels)
    assert float(got) == pytest.approx(ed_by_loops(student, teachers, tau, alpha, labels), rel=1e-9)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_ed_is_smallest_at_the_mean_softened_prediction(seed):
    tau, teachers = 4.0, 5 * normal(3, 2, 6, seed=seed)
    best = (tau * (teachers / tau).softmax(-1).mean(0).log()).requires_grad_()
    loss = ed_loss(best, teachers, tau)
    (gradient,) = torch.autograd.grad(loss, best)
    assert gradient.abs().max() < 1e-12
    for step in range(5):
        direction = normal(2, 6, seed=seed + 1 + step)
        direction -= direction.mean(1, keepdim=True)  # a common offset changes no probability
        assert ed_loss(best.detach() + 0.1 * direction, teachers, tau) > loss


# ---------------------------------------------------------------------------------------------------------- END2


def test_proxy_precision_of_two_opposite_teachers_by_hand():
    # K = 2, p = (a, 1 - a) and (1 - a, a) at temperature 2: the mean is (1/2, 1/2), the disagreement
    # ln(1/2) - (ln a + ln(1 - a)) / 2, the precision 1 / (2 disagreement).
    a, tau = 0.8, 2.0
    gap = tau * math.log(a / (1 - a))
    mean, precision = proxy_dirichlet(torch.tensor([[[gap, 0.0]], [[0.0, gap]]], dtype=torch.float64), tau)
    assert mean[0].tolist() == pytest.approx([0.5, 0.5])
    assert float(precision[0]) == pytest.approx(1 / (2 * (math.log(0.5) - 0.5 * math.log(a * (1 - a)))))
    assert float(precision[0]) == pytest.approx(2.2407, abs=1e-4)


def test_proxy_precision_estimates_that_of_dirichlet_teachers():
    # Many teachers drawn from one Dirichlet: the estimator is the approximate maximum of its likelihood.
    concentration = torch.tensor([30.0, 60.0, 90.0, 20.0], dtype=torch.float64)
    torch.manual_seed(0)  # torch's Dirichlet knows the global state only
    teachers = Dirichlet(concentration).sample((4000, 1)).log()
    mean, precision = proxy_dirichlet(teachers, 1.0)
    assert mean[0].tolist() == pytest.approx((concentration / 200).tolist(), abs=0.005)
    assert float(precision[0]) == pytest.approx(200, rel=0.05)


def end2_by_torch(student, teachers, tau):
    """The loss in torch.distributions' terms; the expected log-probability is digamma from SciPy."""
    alpha = 1 + (student / tau).exp()
    mean = (teachers / tau).softmax(-1).mean(0)
    cross = (mean * (mean.log() - (teachers / tau).log_softmax(-1).mean(0))).sum(-1)
    classes = student.shape[-1]
    beta = 1 + mean * ((classes - 1) / (2 * cross))[:, None]
    expected = torch.from_numpy(digamma(alpha.numpy()) - digamma(alpha.sum(-1, keepdim=True).numpy()))
    to_flat = kl_divergence(Dirichlet(alpha), Dirichlet(torch.ones_like(alpha)))
    return float((-(mean * expected).sum(-1) + to_flat / beta.sum(-1)).mean())


@given(seed=seeds, members=st.integers(2, 5), classes=st.integers(2, 8), tau=st.floats(0.8, 4))
@settings(max_examples=25, deadline=None)
def test_end2_equals_torchs_dirichlet(seed, members, classes, tau):
    student, teachers = 2 * normal(3, classes, seed=seed), 3 * normal(members, 3, classes, seed=seed + 1)
    assert float(end2_loss(student, teachers, tau)) == pytest.approx(end2_by_torch(student, teachers, tau), rel=1e-6)


def test_end2_is_the_divergence_of_two_dirichlets_by_closed_form_and_by_sampling():
    # With b the sum of beta, b (loss(z) - loss(z*)) = KL(Dir(alpha) || Dir(1 + b pbar)), z* being the target's logits.
    tau, teachers = 2.0, 2 * normal(4, 1, 5)
    student = normal(1, 5, seed=1)
    mean, precision = proxy_dirichlet(teachers, tau)
    b = 5 + precision
    target = Dirichlet(1 + mean * b[:, None])
    best = tau * (mean * b[:, None]).log()
    gap = float(b) * float(end2_loss(student, teachers, tau) - end2_loss(best, teachers, tau))
    own = Dirichlet(1 + (student / tau).exp())
    assert gap == pytest.approx(float(kl_divergence(own, target)), rel=1e-9)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # torch's Dirichlet knows the global state only
        draws = own.sample((200_000,))
    ratios = own.log_prob(draws) - target.log_prob(draws)
    assert gap == pytest.approx(float(ratios.mean()), abs=4 * float(ratios.std()) / 200_000**0.5)


@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0])
def test_with_the_weight_tau_squared_end2_is_as_steep_as_ed_around_its_minimum(tau):
    # For teachers that nearly agree, (K + precision) is large: the second-order expansion of the divergence around the
    # target is sum_c p_c (dz_c / tau)^2 / 2 less its mean part, which is ED's without its factor tau^2.
    teachers = 2 * normal(1, 16, 5) + 1e-3 * normal(3, 16, 5, seed=1)
    mean, precision = proxy_dirichlet(teachers, tau)
    best = tau * (mean * (5 + precision)[:, None]).log()
    off = best + 1e-2 * normal(16, 5, seed=2)
    gradients = []
    for loss in (lambda z: tau**2 * end2_loss(z, teachers, tau), lambda z: ed_loss(z, teachers, tau)):
        student = off.clone().requires_grad_()
        loss(student).backward()
        gradients.append(student.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_at_the_minimum_the_softmax_is_the_teachers_prediction_and_the_dirichlets_mean_is_softer():
    tau, teachers = 2.0, 2 * normal(1, 3, 5).repeat(3, 1, 1)
    mean, precision = proxy_dirichlet(teachers, tau)
    best = tau * (mean * (5 + precision)[:, None]).log()
    torch.testing.assert_close(best.softmax(-1), teachers[0].softmax(-1))
    dirichlet = DirichletMean(nn.Identity(), tau)(best).exp()
    # (1 + b p) / (K + b) with p at the temperature tau: what the loss means, and no prediction of the ensemble.
    torch.testing.assert_close(dirichlet, (teachers[0] / tau).softmax(-1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_teachers_stay_finite(members, dtype):
    teachers = (5 * normal(1, 4, 10)).to(dtype).repeat(members, 1, 1)
    student = normal(4, 10, seed=1).to(dtype).requires_grad_()
    _, precision = proxy_dirichlet(teachers, 2.0)
    assert torch.isfinite(precision).all()
    assert (precision > 1e3).all()
    loss = end2_loss(student, teachers)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("gap", [50.0, 150.0, 600.0])
def test_very_confident_teachers_stay_finite(gap):
    # From about exp(-104) on, a class that no teacher believes in has probability zero in float32.
    teachers = torch.tensor([[[gap, 0.0, 0.0]], [[gap + 1, 0.5, 0.0]]])
    mean, precision = proxy_dirichlet(teachers, 2.0)
    assert mean[0].tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert torch.isfinite(precision).all()
    student = torch.zeros(1, 3, requires_grad=True)
    loss = end2_loss(student, teachers)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


# ----------------------------------------------------------------------------------------------------- predictor


@given(seed=seeds, tau=st.floats(0.5, 4))
@settings(max_examples=20, deadline=None)
def test_dirichlet_mean_is_alpha_over_its_sum(seed, tau):
    logits = 5 * normal(4, 6, seed=seed)
    log_probs = DirichletMean(nn.Identity(), tau)(logits)
    alpha = 1 + (logits / tau).exp()
    torch.testing.assert_close(log_probs.exp(), Dirichlet(alpha).mean)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(4, dtype=torch.float64))


def test_dirichlet_mean_survives_extreme_logits():
    log_probs = DirichletMean(nn.Identity(), 2.0)(torch.tensor([[1000.0, -1000.0, 0.0]]))
    assert torch.isfinite(log_probs).all()
    assert log_probs[0, 0] > -0.01  # the dominant class keeps all the mass but what K ones leave
