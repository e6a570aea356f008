"""Suites that generate: points, images and tables through the harness, against what is known of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.run import run_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.builtin import available
from benchmarks.suite.plan import build_plan
from benchmarks.suite.schema import load_suite
from benchmarks.work.make import Options
from benchmarks.work.planning import plan_suite
from dbn_core.data import DigitsSource, Mixture2dSource, TableSource
from dbn_core.diffusion.members import Member, SamplingPredictor
from dbn_core.diffusion.schedules import VP
from dbn_core.errors import PluginError, SpecError
from dbn_core.metrics.extractor import extractors
from dbn_core.registry import parse_method
from dbn_core.tabular.forest import ForestDiffusion, ForestOptions
from dbn_core.tasks.generation import Generation
from dbn_core.tasks.tabular import table_of

CPU = torch.device("cpu")
SMALL = {
    "repetitions": 2,
    "recipe.epochs": 2,
    "students.epochs": 1,
    "data.train_count": 256,
    "data.test_count": 60,
    "task.samples": 80,
    "task.likelihood_steps": 4,
    "latency.repeats": 3,
    "latency.batch_repeats": 3,
    "latency.batch": 4,
}
# The suite's own entries in few steps: a cost is counted over every step, which takes time.
CHOSEN = """
[[methods]]
use = "score-ensemble"
sizes = [1, 3]
options = { steps = 4 }
[[methods]]
use = "aggregate"
label = "Mixture of experts"
sizes = [3]
options = { rule = "moe", steps = 4 }
[[methods]]
use = "experts"
label = "Experts, mean"
sizes = [2]
options = { rule = "arithmetic", steps = 4 }
[[methods]]
use = "step-distillation"
label = "Distilled"
sizes = [1]
options = { start = 4, steps = 2 }
[[methods]]
use = "step-distillation"
label = "Branches"
sizes = [1]
options = { start = 4, steps = 2, branches = true }
[[methods]]
use = "training-data"
sizes = [1]
control = true
"""


def options_in(folder: Path) -> Options:
    return Options(folder / "store", folder / "rows", folder / "reports", executor="inline", jobs=0)


class Exact(nn.Module):
    """The true score of a mixture in the place of a network's."""

    def __init__(self, truth) -> None:
        super().__init__()
        self.truth, self.schedule = truth, VP()

    def forward(self, x, t):
        return self.truth.score(self.schedule)(x.flatten(1), t).reshape(x.shape)

    def encode(self, x):
        return x

    decode = encode


def test_the_true_score_has_no_error_its_likelihood_and_its_modes() -> None:
    data = Mixture2dSource(train_count=8, test_count=400).load()
    predictor = SamplingPredictor([Exact(data.truth)], steps=40)
    task = Generation(samples=2000, draws=2, likelihood_steps=40)
    arrays = task.predict(predictor, data, CPU, torch.Generator().manual_seed(0), "exact")
    scores = task.score({name: tensor.numpy() for name, tensor in arrays.items()})
    assert scores.values("score_error").max() < 1e-8
    points = data.test.images.flatten(1)
    truth = -data.truth.log_prob(points).numpy() / 2
    assert scores.values("nll") == pytest.approx(truth, abs=0.1)  # far out its 40 steps are coarse
    assert scores.values("nll").mean() == pytest.approx(truth.mean(), abs=0.005)
    assert scores.split["modes"] < 0.06
    assert scores.split["energy"] < 0.02
    assert scores.split["nfe"] == 40
    assert scores.exhibits["samples"].shape == (1500, 2)
    assert scores.exhibits["paths"].shape == (40, 41, 2)
    assert scores.exhibits["paths"][:, -1] == pytest.approx(scores.exhibits["samples"][:40], abs=1e-4)


def test_a_suite_of_points_runs_from_end_to_end(tmp_path: Path) -> None:
    text = available()["mixture2d"].read_text().partition("[[methods]]")[0] + CHOSEN
    (tmp_path / "mixture2d.toml").write_text(text)
    suite = load_suite(str(tmp_path / "mixture2d.toml"), {**SMALL, "pool.members": 3})
    options = options_in(tmp_path)
    result = run_suite(suite, options, lambda event: None)
    assert not result.failures
    summary = pd.read_csv(tmp_path / "rows" / "summary.csv").set_index(["label", "size"])
    cost = summary["macs_rel"]
    assert cost["SE", 3] == pytest.approx(3)
    assert cost["Mixture of experts", 3] == cost["SE", 1] == 1
    assert cost["Branches", 1] == cost["Distilled", 1] == 0.5
    assert (summary["nfe_mean"] == 4 * cost).all()
    # Jensen: the mean of three has no larger a loss than the members, on the same noise, and here a smaller one.
    assert summary.loc[("SE", 3), "dsm_mean"] < summary.loc[("SE", 1), "dsm_mean"]
    assert (tmp_path / "reports" / "mixture2d" / "figures" / "paths.png").is_file()
    page = (tmp_path / "reports" / "mixture2d" / "report.md").read_text()
    assert "denoising score-matching loss" in page
    again = run_suite(suite, options, lambda event: None)
    assert not again.outcome.made


def test_repetitions_of_what_is_drawn_differ_and_methods_start_alike(tmp_path: Path) -> None:
    suite = load_suite("mixture2d", SMALL)
    plan = plan_suite(suite, Store(tmp_path))
    cells = [cell for cell in plan.cells if cell.label == "Training data"]
    assert len({cell.predictions for cell in cells}) == len(cells) == 2
    assert {cell.predictions for cell in build_plan(load_suite("smoke"), plan.data).cells}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("step-distillation[start=12,steps=2,substeps=4]", "4 does not divide a teacher's 3 steps"),
        ("step-distillation[start=16,steps=3]", "do not end at 3"),
        ("aggregate[rule=geometric]", "needs its margin"),
        ("aggregate[rule=mediann]", "did you mean 'median'?"),
    ],
)
def test_options_without_meaning_are_refused(spec: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_method(spec)
    assert words in str(caught.value)


def test_too_few_members_are_refused() -> None:
    with pytest.raises(SpecError, match="needs 2 members"):
        parse_method("aggregate[rule=alternating]").check_size(1)
    with pytest.raises(SpecError, match="100 trees are fitted"):
        parse_method("forest").check_size(101)


def test_samples_of_another_shape_are_refused() -> None:
    data = Mixture2dSource(train_count=8, test_count=8).load()
    with pytest.raises(PluginError, match="returned samples of shape"):
        Generation(samples=8).predict(nn.Flatten(), data, CPU, torch.Generator(), "flat")


def test_images_are_standardised_and_come_back() -> None:
    data = DigitsSource().load()
    member = Generation().new_network(
        Generation.networks(name="unet", width=8), 1, data.image_size, 10, data.mean, data.std
    )
    assert isinstance(member, Member)
    images = data.train.images[:100].float() / 255
    z = member.encode(images)
    assert abs(float(z.mean())) < 0.1
    assert float(z.std()) == pytest.approx(1, abs=0.1)
    assert torch.allclose(member.decode(z), images, atol=1e-6)
    assert member(z).shape == images.shape


def test_extractors_know_digits_and_are_the_same_again() -> None:
    data = DigitsSource(test_fraction=0.5).load()
    (extractor,) = extractors(data, 1)
    images = data.test.images.float() / 255
    predicted = extractor.head(extractor(images)).argmax(1)
    assert (predicted == data.test.labels).double().mean() > 0.9
    assert extractors(data, 1)[0] is extractor
    arrays = Generation(samples=100, extractors=1)
    real = arrays.predict(Shuffled(images), data, CPU, torch.Generator().manual_seed(0), "real")
    noise = arrays.predict(nn.Sigmoid(), data, CPU, torch.Generator().manual_seed(0), "noise")
    assert real["fd"].item() < noise["fd"].item() / 5


class Shuffled(nn.Module):
    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images = images

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.images[: len(noise)]


def test_tables_are_cut_anew_and_forests_survive_storing() -> None:
    source = TableSource(name="iris")
    first, second = (source.for_repetition(r).load() for r in range(2))
    assert not torch.equal(first.test_ids, second.test_ids)
    train = table_of(first, "train")
    assert len(train) == 120
    assert np.bincount(table_of(first, "test").target.astype(int)).tolist() == [10, 10, 10]
    options = ForestOptions(trees=4, levels=3, duplicates=2)
    model = ForestDiffusion.fit(train, options, seed=0)
    again = ForestDiffusion.from_state(train, options, model.state_dict())
    x = torch.randn(7, model.coding.width, generator=torch.Generator().manual_seed(1))
    for level in range(3):
        assert torch.equal(model.noise(level, x), again.noise(level, x))
        assert torch.equal(model.first(2).noise(level, x), again.first(2).noise(level, x))


def test_a_suite_of_tables_runs_and_rules_share_their_forests(tmp_path: Path) -> None:
    suite = load_suite("iris-forest", {"repetitions": 2, "task.sets": 1})
    small = {"trees": 4, "levels": 4, "duplicates": 2}
    entries = [e for e in suite.methods if e.label in (None, "Dominant", "Mixture of experts")]
    entries = [e.model_copy(update={"options": {**e.options, **small}, "sizes": (1, 4)}) for e in entries]
    suite = suite.model_copy(update={"methods": tuple(entries)})
    options = options_in(tmp_path)
    result = run_suite(suite, options, lambda event: None)
    assert not result.failures
    assert sum(node.kind == "part" for node in result.plan.nodes.values()) == 2  # one a split
    summary = pd.read_csv(tmp_path / "rows" / "summary.csv").set_index(["label", "size"])
    assert summary.loc[("Forest", 4), "noise_mse_mean"] < summary.loc[("Forest", 1), "noise_mse_mean"]
    assert summary.loc[("Dominant", 1), "w1_test_mean"] == pytest.approx(summary.loc[("Forest", 1), "w1_test_mean"])
    assert summary["cost_stated"].all()
    assert summary.loc[("Mixture of experts", 4), "macs_rel"] == 1
    assert (tmp_path / "reports" / "iris-forest" / "figures" / "rows.png").is_file()
    page = (tmp_path / "reports" / "iris-forest" / "report.html").read_text()
    (chart,) = re.findall(r'<script type="application/json" id="explore-chart">(.*?)</script>', page)
    shown = {(row["label"], row["size"]): row["w1_test"] for row in json.loads(chart)["data"]["values"]}
    assert shown == pytest.approx(summary["w1_test_mean"].to_dict(), rel=1e-5)
