"""Diffusion models of other programs: the two conventions agree with closed forms and with each other's samplers."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from benchmarks.run import run_suite
from benchmarks.suite.builtin import available
from benchmarks.suite.load import load_suite
from benchmarks.work.make import Options
from dbn_core.errors import PluginError, SpecError
from dbn_core.generative.diffusion.denoisers import schedule_between, score_of
from dbn_core.generative.diffusion.likelihood import log_likelihood
from dbn_core.generative.diffusion.members import SamplingPredictor
from dbn_core.generative.diffusion.mixture import GaussianMixture, ring
from dbn_core.generative.diffusion.samplers import SAMPLERS, sample_diffusion
from dbn_core.generative.diffusion.schedules import VP
from dbn_core.generative.diffusion.spec import ScoreSpec
from dbn_core.generative.points import Mixture2dSource
from dbn_core.generative.tasks.generation import Generation
from dbn_core.methods.context import FitContext, PredictContext
from dbn_core.methods.registry import load_plugin, parse_method
from tests.support.registered import forgetting

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def exact(mixture: GaussianMixture, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[x_0 | x_0 + sigma noise = x]: posterior means of the components, by their shares in the density at x."""
    spread = mixture.variances + sigma[:, None] ** 2  # [B, C]
    gaps = (x[:, None] - mixture.means).square().sum(-1)
    shares = (mixture.weights.log() - gaps / (2 * spread) - spread.log() * x.shape[1] / 2).softmax(1)
    ratio = (mixture.variances / spread)[:, :, None]
    return (shares[:, :, None] * (ratio * x[:, None] + (1 - ratio) * mixture.means)).sum(1)


def start(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("rule", ["arithmetic", "moe", "alternating", "mean-predictions"])
def test_samples_of_denoisers_are_those_of_the_true_scores(sampler: str, rule: str) -> None:
    mixtures, schedule = [ring(8), ring(5, std=0.3)], schedule_between(0.01, 50.0)
    denoisers = [score_of(lambda x, sigma, m=m: exact(m, x, sigma), schedule) for m in mixtures]
    ends = [
        sample_diffusion(members, start(20), schedule, 12, sampler, rule, torch.Generator().manual_seed(1))
        for members in ([m.score(schedule) for m in mixtures], denoisers)
    ]
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-7)


def test_ddim_is_eulers_method_in_sigma() -> None:
    # As k-diffusion and EDM have it: dx / dsigma = (x - D(x, sigma)) / sigma.
    truth, schedule = ring(8), schedule_between(0.02, 80.0)
    times = schedule.times(10)
    sigmas = schedule.sigma(times) / schedule.alpha(times)
    x = start(30) / schedule.alpha(times[0])
    for sigma, after in pairwise(sigmas):
        x = x + (x - exact(truth, x, sigma.expand(30))) / sigma * (after - sigma)
    ours = sample_diffusion([score_of(lambda x, s: exact(truth, x, s), schedule)], start(30), schedule, 10)
    torch.testing.assert_close(ours / schedule.alpha(times[-1]), x, rtol=1e-8, atol=1e-8)


def test_a_normal_law_is_sampled_and_its_density_known() -> None:
    variance, schedule = 0.6**2, schedule_between(0.002, 80.0)
    member = score_of(lambda x, sigma: x * (variance / (variance + sigma**2))[:, None], schedule)
    ends = sample_diffusion([member], start(5), schedule, steps=400, sampler="heun")
    # Along the probability flow, x shrinks as the standard deviation of its law does.
    scale = ((variance + 0.002**2) / (variance + 80.0**2)) ** 0.5 / schedule.alpha(torch.tensor(schedule.t_max))
    torch.testing.assert_close(
        ends, start(5) * scale * float(schedule.alpha(torch.tensor(schedule.t_min))), rtol=2e-3, atol=0
    )
    found = log_likelihood(member, schedule, ends, steps=200)
    truth = torch.distributions.Normal(0, variance**0.5).log_prob(ends).sum(1)
    torch.testing.assert_close(found, truth, atol=0.02, rtol=0)


@pytest.mark.parametrize(("low", "high"), [(0.002, 80.0), (1e-6, 1e12), (0.5, 0.6)])
def test_a_schedule_has_the_range_of_sigma(low: float, high: float) -> None:
    schedule = schedule_between(low, high)
    times = schedule.times(3)[[0, -1]]
    torch.testing.assert_close(schedule.level(times).exp(), torch.tensor([high, low], dtype=torch.float64))


def test_units_of_the_images_are_kept() -> None:
    seen: list[torch.Tensor] = []

    def white(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.ones_like(x)  # images in [-1, 1] that are all white

    images = SamplingPredictor([score_of(white)], steps=4)(torch.randn(2, 3, 4, 4))
    torch.testing.assert_close(images, torch.ones(2, 3, 4, 4), atol=0.02, rtol=0)
    assert seen[0].std() == pytest.approx(152, rel=0.2)  # sigma / alpha where trajectories start


@pytest.mark.parametrize(
    ("denoiser", "said"),
    [
        (lambda x, sigma: x[:, :1], r"returned shape \[4, 1\] for x of shape \[4, 2\]"),
        (lambda x, sigma: (x, sigma), "returned a tuple"),
        (lambda x, sigma: x / 0, "NaN or infinite values at sigma = 152"),
    ],
)
def test_a_denoiser_of_another_kind_is_refused(denoiser, said) -> None:
    with pytest.raises(PluginError, match=said):
        sample_diffusion([score_of(denoiser)], start(4), VP(), steps=2)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (2, 1), (1, float("inf")), (float("nan"), 1)])
def test_a_range_of_sigma_that_is_none_is_refused(low: float, high: float) -> None:
    with pytest.raises(SpecError, match="give 0 < smallest < largest"):
        schedule_between(low, high)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mixture_denoiser.py", str(folder)])
        runpy.run_path(str(EXAMPLES / "mixture_denoiser.py"), run_name="__main__")
    return folder


def sampled(theirs: Path, out: Path, rule: str, capsys: pytest.CaptureFixture, *more: str) -> float:
    weights = [str(theirs / f"{half}.pt") for half in ("low", "high")]
    words = [f"{EXAMPLES / 'mixture_denoiser.py'}:MixtureDenoiser", *weights, "--shape", "1", "8", "8", "--rule", rule]
    words += ["--out", str(out), "--count", "150", "--steps", "12", "--against", str(theirs / "real/images"), *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sample_denoisers.py", *words])
        runpy.run_path(str(EXAMPLES / "sample_denoisers.py"), run_name="__main__")
    found = re.search(r"KID on \S+: (-?[\d.]+)", capsys.readouterr().out)
    assert found
    return float(found[1])


def test_the_example_samples_both_halves(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    # Features that tell images of two halves from their average: how dark the dark and how light the light pixels are.
    (tmp_path / "f.py").write_text(
        "from torch import nn\n\nclass F(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.register_buffer('scale', nn.Parameter().new_zeros(1))\n"
        "    def forward(self, x):\n        return self.scale * x.flatten(1).sort(1).values\n"
    )
    torch.save({"scale": torch.full((1,), 2.0)}, tmp_path / "f.pt")
    features = ("--features", f"{tmp_path / 'f.py'}:F", str(tmp_path / "f.pt"))
    one_each = sampled(theirs, tmp_path / "moe", "moe", capsys, *features)
    averaged = sampled(theirs, tmp_path / "mean", "mean-predictions", capsys, *features)
    assert one_each < averaged / 2
    assert (tmp_path / "moe/grid.png").is_file()
    assert len(list((tmp_path / "moe/images").glob("*.png"))) == 150


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plugin of the examples, with two models that know every other mode of a ring."""
    means = ring(8).means.float()
    for half in range(2):
        torch.save({"means": means[half::2].reshape(4, 2, 1, 1)}, tmp_path / f"{half}.pt")
    monkeypatch.setenv("THEIR_WEIGHTS", str(tmp_path))
    with forgetting():
        load_plugin(EXAMPLES / "denoiser_method.py")
        yield tmp_path


def test_the_plugin_of_the_examples_samples_what_its_models_know(plugin: Path) -> None:
    data, task = Mixture2dSource(train_count=8, test_count=400).load(), Generation(samples=400)
    shared: dict[str, Any] = {
        "data": data,
        "spec": ScoreSpec(),
        "device": torch.device("cpu"),
        "axes": {},
        "task": task,
    }

    def scores(spec: str, size: int) -> Any:
        method = parse_method(spec)
        parts = {part.name: method.fit(part, FitContext(**shared)).state_dict() for part in method.parts(size)}
        predictor = method.predictor(size, PredictContext(**shared, parts=parts))
        found = task.predict(predictor, data, shared["device"], torch.Generator().manual_seed(0), spec)
        return task.score({name: tensor.numpy() for name, tensor in found.items()})

    one, both, mixture = scores("theirs", 1), scores("theirs", 2), scores("theirs[rule=moe]", 2)
    assert one.split["modes"] == pytest.approx(0.5, abs=0.02)  # it misses half of the law
    assert mixture.split["modes"] < 0.1  # one of two for each trajectory misses nothing
    assert mixture.split["energy"] < 0.02 < one.split["energy"]
    assert both.split["nfe"] == 2 * mixture.split["nfe"] == 72
    assert one.values("score_error").mean() > both.values("score_error").mean()  # they are complementary
    key = parse_method("theirs").parts(1)[0].settings
    torch.save({"means": torch.zeros(4, 2, 1, 1)}, plugin / "0.pt")
    assert parse_method("theirs").parts(1)[0].settings != key


@pytest.mark.slow
def test_the_plugin_of_the_examples_runs_in_a_suite(plugin: Path) -> None:
    changes = {"repetitions": 1, "recipe.epochs": 1, "data.train_count": 64, "data.test_count": 50}
    changes |= {"task.samples": 50, "task.likelihood_steps": 0, "pool.members": 1}
    changes |= {"latency.repeats": 3, "latency.batch_repeats": 3, "latency.batch": 4}
    text = available()["mixture2d"].read_text().partition("[[methods]]")[0]
    text += '[[methods]]\nuse = "score-ensemble"\nsizes = [1]\n[[methods]]\nuse = "theirs"\nsizes = [2]\n'
    (plugin / "suite.toml").write_text(text)
    options = Options(plugin / "store", plugin / "rows", plugin / "reports", executor="inline", jobs=0)
    result = run_suite(load_suite(str(plugin / "suite.toml"), changes), options, lambda event: None)
    assert not result.failures
    found = pd.read_csv(plugin / "rows/summary.csv").set_index("label")
    assert found["score_error_mean"].notna().all()
    assert found["nfe_mean"]["theirs"] == 72


def test_errors_of_scores_in_other_units_or_of_another_schedule_are_left_out() -> None:
    data, task = Mixture2dSource(train_count=8, test_count=20).load(), Generation(samples=4)
    white = {"mean": (0.0,), "std": (1.0,)}
    for schedule, units, there in ((VP(), white, True), (VP(), {}, False), (schedule_between(0.01, 9), white, False)):
        predictor = SamplingPredictor([score_of(lambda x, sigma: 0 * x, schedule, **units)], steps=2)
        found = task.predict(predictor, data, torch.device("cpu"), torch.Generator().manual_seed(0), "theirs")
        assert ("dsm" in found) == there
