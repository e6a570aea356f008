"""Bridge Networks: their parts and terms, what a bridge is matched to, and how curves are validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from baselines.bridge_network import BridgeNetwork
from dbn_core.data.batch import Batch, make_batch
from dbn_core.data.dataset import Split
from dbn_core.measure.cost import measure_cost
from dbn_core.methods.context import FitContext, freeze
from dbn_core.methods.predictors import Mixture, PairMixture
from dbn_core.methods.registry import parse_method
from dbn_core.nets.heads import BridgeHead
from dbn_core.nets.init import initialise_
from dbn_core.nets.resnet import Classifier
from dbn_core.rng import generator
from dbn_core.train.recipe import Recipe
from dbn_core.train.statistics import refresh_statistics
from tests.support.fitting import CPU, RECIPE, RECIPE_PLAIN, data, fit, fresh, images, predictor, spec

AT = "block2"


def member(seed: int, norm: str = "frn") -> Classifier:
    return fresh(norm, seed=seed)


def bn(*options: str) -> str:
    return f"bn[{','.join([f'split_at={AT}', *options])}]"


def batch() -> Batch:
    return make_batch(data().test, torch.arange(12), RECIPE_PLAIN, False, generator(seed=0), CPU)


@dataclass
class Training:
    """What a method handed to ``FitContext.train``."""

    module: Any
    step: Any
    recipe: Recipe
    predict: Any


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Record trainings instead of running them; the module stays as it was initialised."""
    seen: list[Training] = []

    def record(self: FitContext, module: Any, step: Any, recipe: Recipe, predict: Any = None, **_: Any) -> None:
        seen.append(Training(module, step, recipe, predict))

    monkeypatch.setattr(FitContext, "train", record)
    return seen


# ------------------------------------------------------------------------------------------------ parts and terms


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["curve-1", "bridge-1", "curve-2", "bridge-2"]),
        (["type=2"], ["curve-1", "bridge-1", "curve-2", "bridge-2", "curve-1-2", "bridge-1-2"]),
        (["align=true"], ["aligned-1", "curve-1", "bridge-1", "aligned-2", "curve-2", "bridge-2"]),
    ],
)
def test_parts_of_size_three(options, names):
    method = parse_method(bn(*options))
    parts = {part.name: part for part in method.parts(3)}
    assert list(parts) == names
    assert method.parts(3) == method.parts(4)[: len(parts)]
    for part in parts.values():
        kind, *ends = part.name.split("-")
        assert part.members == (0, *map(int, ends))[-2:]
        pair = part.name.removeprefix(kind)
        aligned = (f"aligned{pair}",) if "align=true" in options else ()
        needs = {"aligned": (), "curve": aligned}.get(kind, (f"curve{pair}", *aligned))
        assert part.needs == needs


# Which parts an option trains anew.  Alignment changes what is needed, not its settings.
DEPENDENTS = {
    "curve_epochs": {"curve"},
    "curve_weight_decay": {"curve"},
    "lr_scale": {"curve", "bridge"},
    "warmup_epochs": {"curve", "bridge"},
    "nesterov": {"curve", "bridge"},
    "keep": {"curve", "bridge"},
    "type": {"bridge"},
    "split_at": {"bridge"},
    "width": {"bridge"},
    "mixup": {"bridge"},
    "bridge_weight_decay": {"bridge"},
    "batch_size": {"bridge"},
    "epochs": {"bridge"},
    "align": set(),
}
OTHER_VALUES = {"type": 2, "split_at": "block1", "nesterov": True, "keep": "best", "align": True}


def test_every_option_is_in_the_table():
    assert set(DEPENDENTS) == set(BridgeNetwork.Config.model_fields)


@pytest.mark.parametrize("option", DEPENDENTS)
def test_an_option_trains_anew_only_the_parts_that_depend_on_it(option):
    base = {"split_at": AT, "align": True}  # so that there are aligned parts too
    changed = base | {option: OTHER_VALUES.get(option, 7)}
    old, new = ({part.name: part for part in parse_method("bn", each).parts(2)} for each in (base, changed))
    assert old.keys() == new.keys()
    assert {name.partition("-")[0] for name in old if old[name] != new[name]} == DEPENDENTS[option]
    assert all(part.settings is not None for part in new.values())


@pytest.mark.parametrize(("kind", "count"), [(1, [2, 3, 4, 5]), (2, [3, 6, 10, 15])])
def test_terms(kind, count):
    method = parse_method(bn(f"type={kind}"))
    assert [method.terms(size) for size in (2, 3, 4, 5)] == count
    assert method.members(4) == ((0,) if kind == 1 else (0, 1, 2, 3))


# ---------------------------------------------------------------------------------------------------- predictors


def bridge_head(seed: int, sources: int) -> BridgeHead:
    head = BridgeHead(spec(), 4, AT, sources=sources)
    initialise_(head, generator(seed=seed, purpose="head"))
    return freeze(head)


def test_pair_mixture_runs_every_network_once():
    networks, heads = [member(seed) for seed in range(3)], [bridge_head(seed, 2) for seed in range(3)]
    image = torch.zeros(1, 1, 8, 8)
    base = measure_cost(Mixture(networks), image)
    extra = measure_cost(heads[0], torch.zeros(1, 16, 4, 4))
    cost = measure_cost(PairMixture(networks, AT, heads), image)
    assert (cost.params, cost.macs) == (base.params + 3 * extra.params, base.macs + 3 * extra.macs)


@pytest.mark.parametrize("kind", [1, 2])
def test_method_puts_each_bridge_in_its_place(trainings, kind):
    method = bn(f"type={kind}")
    parts = fit(method, 3, member=member)
    terms = predictor(method, 3, parts, member=member)(images())
    assert len(terms) == 3 * kind
    ends = [member(position) for position in range(3)]
    maps = [end.split(AT)[0](images()) for end in ends]
    for place, pair in {1: {1: (0, 1), 2: (0, 2)}, 2: {2: (0, 1), 4: (0, 2), 5: (1, 2)}}[kind].items():
        head = BridgeHead(spec(), 4, AT, sources=kind)
        head.load_state_dict(parts[f"bridge-{pair[1]}" if not pair[0] else "bridge-1-2"])
        read = torch.cat([maps[end] for end in pair[:kind]], 1)
        torch.testing.assert_close(terms[place], freeze(head)(read).log_softmax(-1))
    for place, position in {1: {0: 0}, 2: {0: 0, 1: 1, 3: 2}}[kind].items():
        torch.testing.assert_close(terms[place], ends[position](images()).log_softmax(-1))


# ---------------------------------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("kind", [1, 2])
def test_a_bridge_is_matched_to_the_middle_of_the_curve(trainings, kind):
    contexts: list[FitContext] = []
    parts = fit(bn(f"type={kind}"), 2, member=member, contexts=contexts)
    ends = [member(position) for position in range(2)]
    control = member(9)
    control.load_state_dict(parts["curve-1"])
    on_curve = member(9)
    with torch.no_grad():
        triples = zip(*(n.parameters() for n in (ends[0], control, ends[1], on_curve)), strict=True)
        for near, middle, far, result in triples:
            result.copy_(0.25 * near + 0.5 * middle + 0.25 * far)
        x = batch().images
        z = trainings[1].module(torch.cat([end.split(AT)[0](x) for end in ends[:kind]], 1))
        p, q = on_curve(x).softmax(-1), z.softmax(-1)
        expected = (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(trainings[1].step(batch()).detach(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trainings[1].predict(trainings[1].module, x).detach(), z)
    assert contexts[1].teacher_passes == (kind + 1) * len(batch())


# -------------------------------------------------------------------------------------------------------- curves


def with_statistics(state: dict[str, torch.Tensor]) -> Classifier:
    """A network with BatchNorm statistics of the whole training split, which here is one batch."""
    network = member(9, "batchnorm")
    network.load_state_dict(state)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(data().train.images.float() / 255)
    return network.eval()


def test_batchnorm_statistics_are_those_of_augmented_images():
    """Crops of white images have black margins: in the input to the first convolution, whose mean then is known."""
    white = Split(torch.full((64, 1, 8, 8), 255, dtype=torch.uint8), torch.arange(64) % 4)
    network = nn.Sequential(nn.BatchNorm2d(1))
    recipe = RECIPE.replace(crop_pad=4, mixup=0.4, cutmix=1.0)
    refresh_statistics(network, white, recipe, False, generator(seed=0), torch.device("cpu"))
    kept = sum(8 - abs(offset - 4) for offset in range(9)) / 9 / 8  # share of rows of a crop that are in the image
    assert float(network[0].running_mean) == pytest.approx(kept**2, abs=0.05)
    refresh_statistics(network, white, recipe.replace(crop_pad=0), False, generator(seed=0), torch.device("cpu"))
    assert float(network[0].running_mean) == pytest.approx(1)
    plain = generator(seed=0)
    refresh_statistics(nn.Sequential(nn.Conv2d(1, 1, 1)), white, recipe, False, plain, torch.device("cpu"))
    assert torch.equal(plain.get_state(), generator(seed=0).get_state())  # nothing to refresh, nothing drawn


def test_a_curve_is_validated_halfway_with_statistics_of_its_own(trainings):
    fit(bn(), 2, "batchnorm", member, recipe=RECIPE_PLAIN)
    training, x = trainings[0], images()
    control = training.module.control.train()

    def expected():
        return with_statistics(dict(training.module.state_at(0.5)))(x)

    with torch.no_grad():
        before = training.predict(training.module, x)
        torch.testing.assert_close(before, expected(), rtol=1e-4, atol=1e-5)
        control.head.linear.weight.add_(0.5)
        training.step(batch())  # forgets the network of the last validation
        after = training.predict(training.module, x)
        torch.testing.assert_close(after, expected(), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(after, before, atol=1e-3)


def test_an_aligned_curve_ends_in_the_aligned_partner(trainings):
    parts = fit(bn("align=true"), 2, member=member)
    end = {name: value.detach() for name, value in trainings[0].module.parameters_at(1.0).items()}
    assert all(torch.equal(end[name], parts["aligned-1"][name]) for name in end)
    partner = member(1)
    assert any(not torch.equal(end[name], value) for name, value in partner.named_parameters())
    aligned = member(9)
    aligned.load_state_dict(parts["aligned-1"])
    torch.testing.assert_close(aligned(images()), partner(images()), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize(
    ("keep", "members_keep", "expected"),
    [
        (None, "last", ("last", "last")),
        (None, "best_nll", ("best_nll", "best_nll")),
        ("last", "best_nll", ("last", "last")),
        ("best", "last", ("best_accuracy", "best_nll")),
    ],
)
def test_which_checkpoint_is_kept(trainings, keep, members_keep, expected):
    fit(bn(*([f"keep={keep}"] if keep else [])), 2, member=member, recipe=RECIPE.replace(keep=members_keep))
    assert tuple(training.recipe.keep for training in trainings) == expected


def test_default_recipes_are_the_members_except_for_mixup_and_weight_decay(trainings):
    fit(bn(), 2, member=member, recipe=RECIPE.replace(mixup=0.7, cutmix=1.0, epochs=5))
    curve, bridge = (training.recipe for training in trainings)
    assert curve == RECIPE.replace(epochs=5)  # its labels are not mixed, so its images are not either
    assert bridge == RECIPE.replace(epochs=2, mixup=0.4, cutmix=1.0, weight_decay=0.0)


def test_the_papers_recipe_can_be_said_over_members_trained_otherwise(trainings):
    shared = ("nesterov=true", "warmup_epochs=5", "lr_scale=2", "keep=best")
    own = ("batch_size=20", "curve_weight_decay=1e-5", "bridge_weight_decay=1e-5", "curve_epochs=10", "epochs=20")
    fit(bn(*shared, *own, "mixup=0"), 2, member=member, recipe=RECIPE.replace(nesterov=False))
    expected = RECIPE.replace(nesterov=True, warmup_epochs=5.0, lr=0.1, weight_decay=1e-5)
    assert trainings[0].recipe == expected.replace(epochs=10, keep="best_accuracy")
    assert trainings[1].recipe == expected.replace(epochs=20, keep="best_nll", batch_size=20)


def test_training_a_bridge_brings_it_nearer_to_the_curve():
    contexts: list[FitContext] = []
    fit(bn("type=2", "keep=best", "epochs=8", "mixup=0"), 2, member=member, contexts=contexts)
    losses = [log.history for context in contexts for log in context.logs]
    assert losses[1][-1]["loss"] < 0.7 * losses[1][0]["loss"]
    assert all("validation_nll" in epoch for history in losses for epoch in history)
