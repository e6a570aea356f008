"""The training loop: closed forms of its updates, the same bits after a crash, and honest failures."""

import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from dbn_core.data.dataset import Split
from dbn_core.errors import PluginError, TrainingDivergedError, TrainingStoppedError
from dbn_core.methods.evaluation import evaluate_split, predict_split
from dbn_core.rng import generator, seeded
from dbn_core.tensors import unpack
from dbn_core.train import loop
from dbn_core.train.checkpoint import read_checkpoint, write_checkpoint
from dbn_core.train.loop import learning_rate, make_batch, train
from dbn_core.train.monitor import Monitor
from dbn_core.train.recipe import Recipe

CPU = torch.device("cpu")


def split(examples=24, side=4, seed=0):
    images = torch.randint(0, 256, (examples, 1, side, side), generator=generator(seed=seed), dtype=torch.uint8)
    return Split(images, torch.arange(examples) % 3)


def network(seed=0):
    """A network with everything that has a state: convolution, BatchNorm buffers, linear layer."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(16, 3))


class Scalar(nn.Module):
    """One weight whose loss is ``slope * weight``, so that every update is known beforehand."""

    def __init__(self, start=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([start], dtype=torch.float64))

    def forward(self, slope=1.0):
        return slope * self.weight.sum()


def recipe(**changes):
    return Recipe(**{"epochs": 4, "batch_size": 8, "crop_pad": 1, "weight_decay": 0.0, "lr": 0.05, **changes})


def run(module, step, chosen, data=None, seed=0, **options):
    options = {"flip": True, "generator": generator(seed=seed, purpose="train"), "device": CPU, **options}
    return train(module, step, data or split(), chosen, **options)


def cross_entropy(module):
    return lambda batch: nn.functional.cross_entropy(module(batch.images), batch.labels)


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


# ----------------------------------------------------------------------------------------------- reproducibility


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_same_seed_same_bits():
    runs = []
    for seed, global_seed in ((0, 1), (0, 2), (5, 1)):
        module = network()
        torch.manual_seed(global_seed)
        run(module, cross_entropy(module), recipe(mixup=0.4, ema_decay=0.9), seed=seed)
        assert not module.training
        runs.append(module)
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def noisy_step(module, draws, crash_at=None):
    """A loss that draws from the run's generator itself, and can fail at the first step of an epoch."""
    calls = [0]

    def step(batch):
        calls[0] += 1
        if calls[0] == crash_at:
            raise RuntimeError("power cut")
        noise = torch.randn(len(batch), 3, generator=draws)
        mixed = 0.1 * batch.lam * nn.functional.cross_entropy(module(batch.images), batch.partner_labels)
        return (module(batch.images) + 0.1 * noise).square().mean() + mixed.mean()

    return step


RECIPES = {
    "sgd": {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3},
    "sgd without momentum": {"momentum": 0.0},
    "adamw": {"optimizer": "adamw", "lr": 1e-2},
    "average": {"ema_decay": 0.8},
    "mixup": {"mixup": 0.4},
    "best nll": {"keep": "best_nll"},
    "best accuracy": {"keep": "best_accuracy"},
    "all, sgd": {"ema_decay": 0.8, "mixup": 0.4, "keep": "best_nll", "warmup_epochs": 1.5},
    "all, adamw": {"optimizer": "adamw", "lr": 1e-2, "ema_decay": 0.8, "mixup": 0.4, "keep": "best_nll"},
}


@pytest.mark.parametrize("crash_epoch", [2, 4, 6])
@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_run_ends_with_the_same_bits(name, crash_epoch, tmp_path, monkeypatch):
    chosen, per_epoch = recipe(epochs=6, **RECIPES[name]), 3
    validation, path = split(15, seed=1), tmp_path / "run.safetensors"

    def go(module, seed, crash_at=None, checkpoint=None):
        draws = generator(seed=seed, purpose="train")
        step = noisy_step(module, draws, crash_at)

        def evaluate(current):
            return evaluate_split(current, validation, CPU)

        return run(module, step, chosen, generator=draws, evaluate=evaluate, checkpoint=checkpoint)

    undisturbed = network()
    expected = go(undisturbed, 0)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(RuntimeError, match="power cut"):
        go(network(), 0, (crash_epoch - 1) * per_epoch + 2, path)  # in the middle of the epoch
    assert path.is_file()
    # Other weights and another seed than the run began with: all that counts must come from the file.
    resumed = network(seed=9)
    log = go(resumed, 99, None, path)
    assert same(resumed, undisturbed)
    assert (log.epochs, log.steps, log.examples) == (6, 18, 144) == (expected.epochs, expected.steps, expected.examples)
    assert log.history == expected.history
    assert log.best_epoch == expected.best_epoch
    assert log.loss == expected.loss
    assert path.exists()  # whoever stores the result removes it
    again = network(seed=7)
    assert go(again, 98, 1, path).history == expected.history  # finished: not one step is repeated
    assert same(again, undisturbed)


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_resumes_in_the_middle_of_an_epoch_with_the_same_bits(name, tmp_path, monkeypatch):
    chosen, path = recipe(epochs=4, **RECIPES[name]), tmp_path / "run.safetensors"
    validation = split(15, seed=1)

    def go(module, crash_at=None, checkpoint=None, counters=None):
        draws = generator(seed=0, purpose="train")
        inner = noisy_step(module, draws, crash_at)

        def step(batch):
            counters["seen"] = counters["seen"] + len(batch)
            return inner(batch)

        evaluate = partial(evaluate_split, split=validation, device=CPU)
        return run(module, step, chosen, generator=draws, evaluate=evaluate, checkpoint=checkpoint, counters=counters)

    undisturbed, whole = network(), {"seen": 0}
    expected = go(undisturbed, counters=whole)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "MONITOR_SECONDS", -1.0)
    with pytest.raises(RuntimeError, match="power cut"):
        go(network(), 8, path, {"seen": 0})  # the second step of the third epoch
    assert read_checkpoint(path)[1]["log"]["steps"] == 7
    resumed, counters = network(seed=9), {"seen": 0}
    log = go(resumed, None, path, counters)
    assert same(resumed, undisturbed)
    assert (log.steps, log.history, counters) == (expected.steps, expected.history, whole)


class Ordinary(nn.Module):
    """What an author writes without a thought of checkpoints: tied weights, halves by a second name, dropout."""

    def __init__(self, seed):
        super().__init__()
        self.network = network(seed)
        self.features, self.head = self.network[:4], self.network[4]
        self.aside = nn.Linear(16, 3)
        self.aside.weight = self.head.weight

    def forward(self, images):
        h = nn.functional.dropout(self.features(images), 0.5, self.training)
        return self.head(h) - self.aside(h.relu())


@pytest.mark.parametrize("crash_at", [3, 4, 8])  # steps of epochs of three
@pytest.mark.parametrize("name", ["best nll", "all, sgd", "all, adamw"])
def test_tied_weights_and_global_draws_resume_with_the_same_bits(name, crash_at, tmp_path, monkeypatch):
    chosen, path = recipe(epochs=4, **RECIPES[name]), tmp_path / "run.safetensors"
    evaluate = partial(evaluate_split, split=split(15, seed=1), device=CPU)

    def go(module, crash_at=None, checkpoint=None):
        calls = [0]

        def step(batch):
            calls[0] += 1
            if calls[0] == crash_at:
                raise RuntimeError("power cut")
            noise = random.random() + np.random.random() + torch.rand(())  # noqa: NPY002 - on purpose
            return nn.functional.cross_entropy(module(batch.images) * noise, batch.labels)

        with seeded(CPU, test="draws"):
            return run(module, step, chosen, evaluate=evaluate, checkpoint=checkpoint)

    undisturbed = Ordinary(0)
    expected = go(undisturbed)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(loop, "MONITOR_SECONDS", -1.0)
    with pytest.raises(RuntimeError, match="power cut"):
        go(Ordinary(0), crash_at, path)
    assert unpack(path.read_bytes())[0]["module/aside.weight"].shape == (3, 16)
    with seeded(CPU, test="something else in between"):
        torch.rand(5)
    resumed = Ordinary(9)
    assert go(resumed, None, path).history == expected.history
    assert same(resumed, undisturbed)
    assert resumed.aside.weight is resumed.head.weight


def test_a_checkpoint_of_another_module_or_recipe_counts_as_none(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    path, undisturbed = tmp_path / "run.safetensors", network()
    expected = run(undisturbed, cross_entropy(undisturbed), recipe())

    def leave(module, chosen):
        with pytest.raises(RuntimeError, match="power cut"):
            run(module, noisy_step(module, generator(seed=0), 8), chosen, checkpoint=path)

    others = [
        (nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), recipe()),
        (nn.Sequential(*network()[:4], nn.Linear(16, 3, bias=False)), recipe()),
        (network(), recipe(optimizer="adamw")),
        (network(), recipe(ema_decay=0.5)),
    ]
    for module, chosen in others:
        path.unlink(missing_ok=True)
        leave(module, chosen)
        afresh = network()
        log = run(afresh, cross_entropy(afresh), recipe(), checkpoint=path)
        assert same(afresh, undisturbed)
        assert log.steps == expected.steps


def test_what_no_checkpoint_can_hold_is_said_before_the_first_step(tmp_path):
    module = network()
    module.register_buffer("mask", torch.eye(3).to_sparse())
    with pytest.raises(PluginError, match="'mask' is a tensor of the layout sparse_coo"):
        run(module, lambda batch: pytest.fail("a step was taken"), recipe(), checkpoint=tmp_path / "run.safetensors")


def test_a_stopped_run_writes_its_checkpoint_first_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "MONITOR_SECONDS", -1.0)
    path, seen = tmp_path / "run.safetensors", []

    class Impatient(Monitor):
        def update(self, progress):
            seen.append(progress)

        def should_stop(self):
            return len(seen) == 5

    undisturbed, module = network(), network()
    expected = run(undisturbed, cross_entropy(undisturbed), recipe())
    with pytest.raises(TrainingStoppedError, match="goes on"):
        run(module, cross_entropy(module), recipe(), checkpoint=path, monitor=Impatient())
    assert not any(progress.ends_epoch for progress in seen[:3])
    assert seen[-1].fraction == pytest.approx(read_checkpoint(path)[1]["log"]["steps"] / expected.steps)
    again = network(seed=3)
    run(again, cross_entropy(again), recipe(), checkpoint=path)
    assert same(again, undisturbed)


def test_watching_changes_no_bits():
    class Curious(Monitor):
        def __init__(self):
            self.scores = []

        def update(self, progress):
            self.scores += [progress.validation] * progress.ends_epoch

        def wants_validation(self):
            return True

    alone, watched, monitor = network(), network(), Curious()
    run(alone, cross_entropy(alone), recipe())
    log = run(
        watched,
        cross_entropy(watched),
        recipe(),
        evaluate=partial(evaluate_split, split=split(15, seed=1), device=CPU),
        monitor=monitor,
    )
    assert same(alone, watched)
    assert log.best_epoch is None
    assert [set(scores) for scores in monitor.scores] == [{"acc", "nll"}] * recipe().epochs


@pytest.mark.parametrize("cut", [0, 4, 100, 0.5, 0.999])
def test_a_damaged_checkpoint_is_ignored(cut, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    path = tmp_path / "run.safetensors"
    undisturbed, module, draws = network(), network(), generator(seed=0)
    run(undisturbed, cross_entropy(undisturbed), recipe())
    with pytest.raises(RuntimeError):
        run(module, noisy_step(module, draws, 8), recipe(), generator=draws, checkpoint=path)
    content = path.read_bytes()
    path.write_bytes(content[: cut if isinstance(cut, int) else int(cut * len(content))])
    assert read_checkpoint(path) is None
    fresh = network()
    run(fresh, cross_entropy(fresh), recipe(), checkpoint=path)
    assert same(fresh, undisturbed)


def test_checkpoints_keep_types_values_and_names(tmp_path):
    path = tmp_path / "folder" / "file.safetensors"
    groups = {
        "a": {"x/y": torch.arange(3), "z": torch.rand(2, 3).t()},  # a name with a slash, and a strided tensor
        "empty": {},
        "b": {"flag": torch.tensor([True]), "half": torch.ones(2, dtype=torch.bfloat16)},
    }
    write_checkpoint(path, groups, {"loss": math.nan, "best": None, "text": "é"})
    found, meta = read_checkpoint(path)
    for group, tensors in groups.items():
        for name, value in tensors.items():
            assert torch.equal(found[group][name], value)
            assert found[group][name].dtype == value.dtype
    assert math.isnan(meta["loss"])
    assert (meta["best"], meta["text"]) == (None, "é")
    assert read_checkpoint(tmp_path / "absent") is None


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


def test_a_diverged_run_leaves_no_checkpoint_of_its_bad_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    module, calls, path = Scalar(), [], tmp_path / "run.safetensors"

    def step(batch):
        calls.append(1)
        return module(math.nan if len(calls) > 3 else 1.0)

    with pytest.raises(TrainingDivergedError):
        run(module, step, recipe(), checkpoint=path)
    found = read_checkpoint(path)
    assert found is None or all(torch.isfinite(t).all() for t in found[0]["module"].values())


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
