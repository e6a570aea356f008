"""The training loop: the same bits from the same seed, after a crash at any step, and from a damaged checkpoint."""

import math
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from dbn_core.errors import PluginError, TrainingDivergedError, TrainingStoppedError
from dbn_core.methods.evaluation import evaluate_split
from dbn_core.rng import generator, seeded
from dbn_core.tensors import unpack
from dbn_core.train import loop
from dbn_core.train.checkpoint import read_checkpoint, write_checkpoint
from dbn_core.train.monitor import Monitor
from tests.support.training import CPU, Scalar, cross_entropy, network, recipe, run, split


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
    "sgd without momentum": {"momentum": 0.0, "keep": "best_accuracy"},
    "all, sgd": {"ema_decay": 0.8, "mixup": 0.4, "keep": "best_nll", "warmup_epochs": 1.5},
    "all, adamw": {"optimizer": "adamw", "lr": 1e-2, "ema_decay": 0.8, "mixup": 0.4, "keep": "best_nll"},
}


@pytest.mark.parametrize("within_epochs", [False, True])
@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_run_ends_with_the_same_bits(name, within_epochs, tmp_path, monkeypatch):
    chosen, path, validation = recipe(**RECIPES[name]), tmp_path / "run.safetensors", split(15, seed=1)

    def go(module, seed, crash_at=None, checkpoint=None):
        draws, counters = generator(seed=seed, purpose="train"), {"seen": 0}
        inner = noisy_step(module, draws, crash_at)

        def step(batch):
            counters["seen"] += len(batch)
            return inner(batch)

        evaluate = partial(evaluate_split, split=validation, device=CPU)
        log = run(module, step, chosen, generator=draws, evaluate=evaluate, checkpoint=checkpoint, counters=counters)
        return log, counters

    undisturbed = network()
    expected, whole = go(undisturbed, 0)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    if within_epochs:
        monkeypatch.setattr(loop, "MONITOR_SECONDS", -1.0)
    with pytest.raises(RuntimeError, match="power cut"):
        go(network(), 0, 8, path)  # the second step of the third epoch
    assert read_checkpoint(path)[1]["log"]["steps"] == (7 if within_epochs else 6)
    # Other weights and another seed than the run began with: all that counts must come from the file.
    resumed = network(seed=9)
    log, counters = go(resumed, 99, None, path)
    assert same(resumed, undisturbed)
    assert counters == whole
    for field in ("epochs", "steps", "examples", "history", "best_epoch", "loss"):
        assert getattr(log, field) == getattr(expected, field)
    again = network(seed=7)
    assert go(again, 98, 1, path)[0].history == expected.history  # finished: not one step is repeated
    assert same(again, undisturbed)


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


@pytest.mark.parametrize(("name", "crash_at"), [("all, sgd", 3), ("all, adamw", 4), ("all, sgd", 8)])
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
    with pytest.raises(TrainingStoppedError, match="to resume it"):
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


@pytest.mark.parametrize("cut", [0, 100, 0.999])
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
