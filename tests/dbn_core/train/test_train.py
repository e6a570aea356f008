"""The training loop: closed forms of its updates, batches, selection and failures."""

import math

import pytest
import torch
from torch import nn

from dbn_core.data.dataset import Split
from dbn_core.errors import TrainingDivergedError
from dbn_core.methods.evaluation import evaluate_split, predict_split
from dbn_core.rng import generator
from dbn_core.train.loop import learning_rate, make_batch
from dbn_core.train.recipe import Recipe
from tests.support.training import CPU, Scalar, cross_entropy, network, recipe, run, split

# ------------------------------------------------------------------------------------------------- learning rate


def rates(chosen, total, warmup):
    return [learning_rate(step, total, warmup, chosen) for step in range(total)]


def test_cosine_equals_torchs_scheduler():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    expected = []
    for _ in range(40):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates(Recipe(lr=0.3), 40, 0) == pytest.approx(expected)


def test_warmup_rises_from_one_percent_and_the_cosine_takes_the_rest():
    got = rates(Recipe(lr=0.1), 110, 10)
    assert got[0] == pytest.approx(0.001)
    assert got[5] == pytest.approx((0.001 + 0.1) / 2)
    assert got[10] == pytest.approx(0.1)
    assert got[60] == pytest.approx(0.05)
    assert got[109] == pytest.approx(0.1 * (1 + math.cos(0.99 * math.pi)) / 2)
    assert learning_rate(110, 110, 10, Recipe(lr=0.1)) == pytest.approx(0)
    assert rates(Recipe(lr=0.1, schedule="constant"), 20, 4)[4:] == [0.1] * 16


def test_the_schedule_spans_the_whole_run_step_by_step():
    # Plain descent on a slope of one moves by the sum of the rates; a cosine over N steps sums to (N + 1) / 2 peaks.
    module = Scalar()
    log = run(module, lambda batch: module(), recipe(momentum=0.0, epochs=5, lr=0.01))
    assert (log.steps, log.epochs, log.examples) == (15, 5, 120)
    assert module.weight.item() == pytest.approx(1 - 0.01 * 16 / 2)
    module = Scalar()
    run(module, lambda batch: module(), recipe(momentum=0.0, epochs=5, lr=0.01, warmup_epochs=2))
    warmup = sum(0.01 + 0.99 * step / 6 for step in range(6))
    assert module.weight.item() == pytest.approx(1 - 0.01 * (warmup + (9 + 1) / 2))


# ------------------------------------------------------------------------------------------------------- updates


def one_step(**changes):
    module = Scalar(2.0)
    chosen = recipe(epochs=1, batch_size=24, schedule="constant", lr=0.1, **changes)
    run(module, lambda batch: module(3.0), chosen)
    return module.weight.item()


def test_weight_decay_is_l2_for_sgd_and_decoupled_for_adamw():
    assert one_step(momentum=0.0, weight_decay=0.5) == pytest.approx(2 - 0.1 * (3 + 0.5 * 2))
    assert one_step(optimizer="adamw", weight_decay=0.5) == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1, abs=1e-6)
    assert one_step(optimizer="adamw") == pytest.approx(2 - 0.1, abs=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_by_hand(nesterov):
    module = Scalar(0.0)
    run(module, lambda batch: module(), recipe(epochs=1, schedule="constant", momentum=0.5, nesterov=nesterov, lr=1.0))
    buffers = [1, 1.5, 1.75]
    assert module.weight.item() == pytest.approx(-sum(1 + 0.5 * b if nesterov else b for b in buffers))


def test_frozen_parameters_stay():
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 3))
    module[1].requires_grad_(False)
    before = [p.clone() for p in module[1].parameters()]
    run(module, cross_entropy(module), recipe(weight_decay=0.1, ema_decay=0.9))
    assert all(torch.equal(a, b) for a, b in zip(before, module[1].parameters(), strict=True))


@pytest.mark.parametrize("decay", [0.9, 0.5, 1 - 0.99995])
def test_average_of_weights_in_closed_form(decay):
    # The weights after step t are -t, so the average is -(decay^(N-1) + sum over t >= 2 of (1 - decay) decay^(N-t) t).
    module = Scalar(0.0)
    run(module, lambda batch: module(), recipe(momentum=0.0, schedule="constant", lr=1.0, ema_decay=decay))
    steps = 12
    expected = decay ** (steps - 1) + sum((1 - decay) * decay ** (steps - t) * t for t in range(2, steps + 1))
    assert module.weight.item() == pytest.approx(-expected)
    if decay < 1e-3:  # the reversed formula of the released code: in effect the last weights
        assert module.weight.item() == pytest.approx(-steps, abs=1e-3)


def test_average_covers_batchnorm_statistics():
    plain, averaged = network(), network()
    run(plain, cross_entropy(plain), recipe(lr=0.5))
    run(averaged, cross_entropy(averaged), recipe(lr=0.5, ema_decay=0.9))
    assert plain.state_dict().keys() == averaged.state_dict().keys()
    for name in ("0.weight", "1.running_mean", "1.running_var"):
        assert not torch.allclose(plain.state_dict()[name], averaged.state_dict()[name], rtol=1e-3)


# ------------------------------------------------------------------------------------------------------- batches


def test_mixup_reports_what_it_mixed():
    # An image of class k has the value 20 k everywhere, so a mixed pixel shows both labels and the weight.
    labels = torch.arange(12) % 4
    images = (20 * labels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 3, 3).contiguous()
    for per in ("example", "batch"):
        chosen = recipe(crop_pad=0, mixup=0.4, mixup_per=per)
        batch = make_batch(Split(images, labels), torch.arange(12), chosen, True, generator(seed=0), CPU)
        mixed = (1 - batch.lam[:, 0]) * batch.labels + batch.lam[:, 0] * batch.partner_labels
        torch.testing.assert_close(batch.images[:, 0, 1, 1], 20 * mixed / 255)
        assert torch.equal(batch.labels, labels)
        assert sorted(batch.partner_labels.tolist()) == sorted(labels.tolist())
        assert len(batch.lam.unique()) == (12 if per == "example" else 1)
    plain = make_batch(Split(images, labels), torch.arange(12), recipe(crop_pad=0), True, generator(seed=0), CPU)
    assert torch.equal(plain.partner_labels, labels)
    assert plain.lam.eq(0).all()


def test_every_epoch_sees_each_example_once_but_for_an_incomplete_batch():
    module, seen = Scalar(), []
    run(module, lambda batch: seen.append(batch.indices.tolist()) or module(), recipe(batch_size=10, epochs=3))
    assert [len(indices) for indices in seen] == [10] * 6
    for epoch in range(3):
        assert len({i for indices in seen[2 * epoch : 2 * epoch + 2] for i in indices}) == 20
    assert len({tuple(indices) for indices in seen}) == 6
    small = []
    run(module, lambda batch: small.append(len(batch)) or module(), recipe(batch_size=100, epochs=2))
    assert small == [24, 24]


# ----------------------------------------------------------------------------------------- selection and failure


@pytest.mark.parametrize(
    ("keep", "scores", "best"),
    [
        ("best_accuracy", [(0.1, 1.0), (0.6, 9.0), (0.4, 0.1), (0.6, 0.2)], 2),  # the first of two equal ones
        ("best_nll", [(0.9, 1.0), (0.6, 0.5), (0.4, 0.1), (0.6, 0.2)], 3),
        ("last", [(0.9, 0.1), (0.1, 9.0), (0.1, 9.0), (0.1, 9.0)], None),
    ],
)
def test_the_best_epoch_is_kept(keep, scores, best):
    module, left = Scalar(0.0), list(scores)
    chosen = recipe(momentum=0.0, schedule="constant", lr=1.0, keep=keep)
    log = run(module, lambda batch: module(), chosen, evaluate=lambda current: left.pop(0))
    assert log.best_epoch == best
    assert module.weight.item() == -3 * (best or 4)  # three steps of size one an epoch
    assert [row["epoch"] for row in log.history] == [1, 2, 3, 4]
    if best:
        assert [(row["validation_acc"], row["validation_nll"]) for row in log.history] == scores


def test_the_average_is_what_is_validated_and_kept():
    module, seen = Scalar(0.0), []
    chosen = recipe(momentum=0.0, schedule="constant", lr=1.0, keep="best_accuracy", ema_decay=0.5)

    def evaluate(current):
        assert not current.training
        seen.append(current.weight.item())
        return float(len(seen) == 2), 1.0

    run(module, lambda batch: module(), chosen, evaluate=evaluate)
    assert seen[1] == pytest.approx(-(0.5**5 + sum(0.5 ** (7 - t) * t for t in range(2, 7))))
    assert module.weight.item() == seen[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_run_is_named(bad):
    module, calls = Scalar(), []

    def step(batch):
        calls.append(1)
        return module(bad if len(calls) == 5 else 1.0)

    with pytest.raises(TrainingDivergedError, match=r"bridge 2 of digits.*epoch 2 of 4"):
        run(module, step, recipe(), run_name="bridge 2 of digits")


def test_an_epoch_that_cannot_be_scored_is_not_the_best():
    module, left = Scalar(0.0), [(0.1, math.nan), (0.1, 0.5), (0.1, 0.2), (0.1, math.nan)]
    chosen = recipe(momentum=0.0, schedule="constant", lr=1.0, keep="best_nll")
    try:
        log = run(module, lambda batch: module(), chosen, evaluate=lambda current: left.pop(0))
    except TrainingDivergedError:
        return
    assert log.best_epoch == 3


# ---------------------------------------------------------------------------------------------------- prediction


def test_predictions_keep_the_order_whatever_the_batch():
    data, module = split(23), network().eval()
    whole = predict_split(module, data, CPU, batch=100)
    torch.testing.assert_close(predict_split(module, data, CPU, batch=5), whole)
    torch.testing.assert_close(whole[7:8], module(data.images[7:8] / 255).detach())
    terms = predict_split(lambda x: torch.stack([module(x), 2 * module(x)]), data, CPU, batch=5)
    torch.testing.assert_close(terms, torch.stack([whole, 2 * whole]))
    assert not whole.requires_grad


def test_validation_scores_equal_torchs():
    data, module = split(23), network().eval()
    logits = module(data.images / 255).detach().double()
    accuracy, nll = evaluate_split(module, data, CPU)
    assert accuracy == pytest.approx((logits.argmax(1) == data.labels).double().mean().item())
    assert nll == pytest.approx(nn.functional.cross_entropy(logits, data.labels).item(), rel=1e-6)
    # Log-probabilities are scored as they are.
    assert evaluate_split(lambda x: module(x).log_softmax(-1), data, CPU) == pytest.approx((accuracy, nll), rel=1e-6)
