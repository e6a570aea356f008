"""Suites that generate: points, images and tables through the harness, against what is known of them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from scipy.stats import ttest_rel
from torch import nn

from benchmarks.cli import main
from benchmarks.report.figures.samples import draw_panels
from benchmarks.report.load import read_results
from benchmarks.report.tables.main import main_table
from benchmarks.run import RunResult, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.builtin import available
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import build_plan
from benchmarks.suite.schema import Suite
from benchmarks.work.make import Options
from benchmarks.work.planning import plan_suite
from dbn_core.data.batch import Batch
from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.digits import DigitsSource
from dbn_core.errors import DataError, PluginError, SpecError
from dbn_core.generative.diffusion.members import Member, SamplingPredictor
from dbn_core.generative.diffusion.mixture import ring
from dbn_core.generative.diffusion.schedules import VP
from dbn_core.generative.metrics.extractor import extractors
from dbn_core.generative.points import Mixture2dSource
from dbn_core.generative.tasks.generation import Generation
from dbn_core.methods.registry import parse_method
from dbn_core.rng import generator
from dbn_core.train.recipe import Recipe

CPU = torch.device("cpu")
SMALL = {
    "repetitions": 2,
    "recipe.epochs": 1,
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
use = "score-networks"
label = "Large initial output"
sizes = [2]
options = { output_init = 1.0, epochs = 1, steps = 4 }
[[methods]]
use = "aggregate"
label = "Noise"
sizes = [1]
options = { noise = 2.0, steps = 4 }
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
    assert scores.samples["samples"].shape == (1500, 2)
    assert scores.samples["paths"].shape == (40, 41, 2)
    assert scores.samples["paths"][:, -1] == pytest.approx(scores.samples["samples"][:40], abs=1e-4)
    again = task.accept({"samples": arrays["samples"].numpy(), "nfe": np.array(40)}, data)
    assert set(again) == {"samples", "test", "modes", "nfe"}
    assert all(torch.equal(again[name], arrays[name]) for name in again)


@pytest.mark.parametrize("rule", ["median", "moe", "alternating"])
def test_test_examples_are_scored_in_batches_to_the_same_numbers(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Mixture2dSource(train_count=8, test_count=30).load()
    members, sizes = [Exact(data.truth), Exact(ring(7))], []
    task = Generation(samples=2, draws=2, likelihood_steps=2)

    def errors() -> dict[str, torch.Tensor]:
        predictor, draws = SamplingPredictor(members, steps=1, rule=rule), torch.Generator().manual_seed(0)
        return task.predict(predictor, data, CPU, draws, "exact")

    whole = errors()
    monkeypatch.setattr("dbn_core.generative.tasks.generation._VALUES", 8)
    for member in members:
        member.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    found = errors()
    assert max(sizes) == 4  # of two values each
    for name in {"dsm", "score_error", "nll"} & set(whole):
        torch.testing.assert_close(found[name], whole[name])


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult, Options, Suite]:
    """A folder with a suite of points that was run."""
    tmp_path = tmp_path_factory.mktemp("points")
    text = available()["mixture2d"].read_text().partition("[[methods]]")[0] + CHOSEN
    (tmp_path / "mixture2d.toml").write_text(text)
    suite = load_suite(str(tmp_path / "mixture2d.toml"), {**SMALL, "pool.members": 3})
    options = options_in(tmp_path)
    return tmp_path, run_suite(suite, options, lambda event: None), options, suite


def test_a_suite_of_points_runs_from_end_to_end(points: tuple[Path, RunResult, Options, Suite]) -> None:
    tmp_path, result, options, suite = points
    assert not result.failures
    summary = pd.read_csv(tmp_path / "rows" / "summary.csv").set_index(["label", "size"])
    cost = summary["macs_rel"]
    assert cost["SE", 3] == pytest.approx(3)
    assert cost["Mixture of experts", 3] == cost["SE", 1] == 1
    assert cost["Branches", 1] == cost["Distilled", 1] == 0.5
    assert (summary["nfe_mean"] == 4 * cost).all()
    # Jensen: the mean of three has no larger a loss than the members, on the same noise, and here a smaller one.
    assert summary.loc[("SE", 3), "dsm_mean"] < summary.loc[("SE", 1), "dsm_mean"]
    assert summary.loc[("Noise", 1), "dsm_mean"] > 2 * summary.loc[("SE", 1), "dsm_mean"]
    diversity = summary["diversity_mean"]
    assert diversity["Mixture of experts", 3] == diversity["SE", 3] < diversity["Large initial output", 2]
    assert (tmp_path / "reports" / "mixture2d" / "figures" / "paths.png").is_file()
    page = (tmp_path / "reports" / "mixture2d" / "report.md").read_text()
    assert "denoising score-matching loss" in page
    again = run_suite(suite, options, lambda event: None)
    assert not again.outcome.made


def test_samples_made_elsewhere_join_the_suite_and_leave_it_again(
    points: tuple[Path, RunResult, Options, Suite], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, result, options, _ = points
    monkeypatch.setattr("benchmarks.report.render", lambda *paths: [])
    before = (folder / "rows" / "summary.csv").read_text()
    rows = pd.read_csv(folder / "rows" / "rows.csv").set_index(["label", "size", "repetition", "metric"])["value"]
    where = [f"--suite={folder / 'mixture2d.toml'}", f"--store={options.store}", "--set=pool.members=3"]
    where += [f"--set={key}={value}" for key, value in SMALL.items()]
    write = [f"--rows={folder / 'rows'}", f"--reports={folder / 'reports'}"]

    def command(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["dbn-bench", str(words[0]), *where, *map(str, words[1:])])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        output = capsys.readouterr()
        assert not end.value.code, output.err
        return output.out

    for cell in result.plan.cells:  # what a user would have drawn with the very same networks
        if (cell.label, cell.size) == ("SE", 3):
            arrays = Store(options.store).arrays("predictions", cell.predictions)
            file = folder / f"drawn-{cell.repetition + 1}.npz"
            np.savez(file, samples=arrays["samples"])
            said = ("--label=Drawn", "--size=2", f"--repetition={cell.repetition + 1}", "--macs=1e6")
            command("score", file, *said, *write)
    summary = pd.read_csv(folder / "rows" / "summary.csv").set_index(["label", "size"])
    row, own = summary.loc["Drawn", 2], summary.loc["SE", 3]
    assert row["n"] == 2
    assert row[["energy_mean", "modes_high"]].tolist() == own[["energy_mean", "modes_high"]].tolist()
    assert row["macs"] == 1e6
    assert row[["dsm_mean", "nll_mean", "nfe_mean", "params", "train_seconds"]].isna().all()  # nobody said them
    found = json.loads(command("compare", "Drawn@2", "SE@1", "--json"))
    assert [row["metric"] for row in found["rows"]] == ["energy", "modes"]
    for row in found["rows"]:
        a, b = ([rows[*key, repetition, row["metric"]] for repetition in (0, 1)] for key in (("SE", 3), ("SE", 1)))
        assert row["p_value"] == pytest.approx(ttest_rel(a, b).pvalue, rel=1e-3)
    alone = command("compare", "Drawn@2", "SE@1", "--set=repetitions=1")
    assert "With one repetition the difference in energy distance and mode error has no test" in alone
    command("score", "--remove=Drawn", *write)
    assert (folder / "rows" / "summary.csv").read_text() == before


def test_a_trained_sampler_runs_from_python_as_the_documents_say(
    points: tuple[Path, RunResult, Options, Suite], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, options, suite = points
    text = (Path(__file__).resolve().parents[3] / "docs" / "tasks.md").read_text().partition("```python\n")[2]
    code = text.partition("```")[0]
    for told, own in {
        '"results/store"': repr(str(options.store)),
        'load_suite("mixture2d")': "suite",
        "SE@5": "SE@3",
        "2000": "80",
        "mine.npz": str(folder / "python.npz"),
    }.items():
        assert told in code
        code = code.replace(told, own)
    exec(code, {"suite": suite})
    with np.load(folder / "python.npz") as file:
        drawn = file["samples"]
    assert len(suite.task.accept({"samples": drawn}, suite.data.load())["samples"]) == 80
    monkeypatch.setattr(sys, "argv", ["dbn-bench", "export", "mixture2d", "SE@5", f"--store={folder / 'new'}"])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "docs/tasks.md says how to run its trained predictors from Python" in capsys.readouterr().err


SAMPLES = np.zeros((50, 2, 1, 1))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"sample": SAMPLES}, "There is no array 'samples' .did you mean 'sample'"),
        ({"samples": SAMPLES[:-1]}, "'samples' has the shape"),
        ({"samples": SAMPLES + np.nan}, "has 100 values that are NaN or infinite"),
        ({"samples": SAMPLES, "NFE": np.array(3)}, "Unexpected array 'NFE'"),
        ({"samples": SAMPLES, "nfe": np.array(-1)}, "'nfe' is -1"),
    ],
)
def test_arrays_that_are_no_samples_are_refused(arrays: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Generation(samples=50).accept(arrays, Mixture2dSource(train_count=8, test_count=8).load())


def test_images_made_elsewhere_come_in_bytes_or_in_shares_of_white() -> None:
    data, task = DigitsSource().load(), Generation(samples=30)
    images = data.train.images[:30].numpy()
    for given in (images, images.astype(np.int64), images / 255):
        assert torch.equal(task.accept({"samples": given}, data)["samples"], data.train.images[:30])
    for wrong in (images.astype(float), images.astype(int) + 100, -(images / 255)):
        with pytest.raises(DataError, match="save images as uint8, or as floats in"):
            task.accept({"samples": wrong}, data)


def test_repetitions_of_what_is_drawn_differ_and_methods_start_alike(tmp_path: Path) -> None:
    suite = load_suite("mixture2d", SMALL)
    plan = plan_suite(suite, Store(tmp_path))
    cells = [cell for cell in plan.cells if cell.label == "Training data"]
    assert len({cell.predictions for cell in cells}) == len(cells) == 2
    assert {cell.predictions for cell in build_plan(load_suite("smoke"), plan.data).cells}


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


def test_colour_images_are_drawn_in_their_colours(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.arange(12) % 2)
    data = Dataset("random", "random", split, split, split, ("a", "b"), (0.5,) * 3, (0.25,) * 3, False)
    task, spec = Generation(samples=12, draws=1), Generation.networks(name="unet", width=8, resolutions=3)
    member = task.new_network(spec, 3, data.image_size, 2, data.mean, data.std)
    arrays = task.predict(SamplingPredictor([member], steps=2), data, CPU, torch.Generator().manual_seed(0), "one")
    shown = task.score({name: tensor.numpy() for name, tensor in arrays.items()}).samples
    assert shown["data:images"] == pytest.approx(images.permute(0, 2, 3, 1).numpy() / 255)
    assert shown["images"].shape == (12, 8, 8, 3)
    drawn = draw_panels({"Data": shown["data:images"]}, "images").axes[0].images[0].get_array()
    np.testing.assert_allclose(np.asarray(drawn[:8, :8]), shown["data:images"][0])
    with pytest.raises(SpecError, match="8 x 8 pixels: set"):
        task.new_network(spec.model_copy(update={"resolutions": 5}), 3, data.image_size, 2, data.mean, data.std)


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
    again = arrays.accept({"samples": noise["samples"].numpy()}, data)
    assert all(torch.equal(again[name], noise[name]) for name in ("samples", "test", "fd", "kd"))


class Shuffled(nn.Module):
    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images = images

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.images[: len(noise)]


def test_what_is_counted_is_shown_whole_and_what_is_estimated_with_its_interval() -> None:
    table = main_table(read_results(Path(__file__).resolve().parents[3] / "results" / "reference" / "mixture2d"))
    evaluations, loss = (table.header.index(name) for name in ("NFE", "DSM loss ↓"))
    for row in (row for block in table.blocks for row in block.rows):
        assert re.fullmatch(r"\d+|–", row[evaluations].text)
        assert "±" in row[loss].text or row[loss].text == "–"


@pytest.mark.parametrize(("name", "remainders"), [("experts", {1}), ("experts[overlap=true]", {0, 2})])
def test_experts_see_their_own_classes_augmented_as_the_recipe_says(name: str, remainders: set[int]) -> None:
    white = Split(torch.full((40, 1, 8, 8), 255, dtype=torch.uint8), torch.arange(40) % 4)
    seen: list[Batch] = []
    context = SimpleNamespace(
        new_network=lambda: torch.nn.Identity(),
        generator=lambda purpose: generator(seed=0, purpose=purpose),
        recipe=Recipe(crop_pad=4),
        data=SimpleNamespace(train=white, flip=False),
        device=torch.device("cpu"),
        task=SimpleNamespace(member_step=lambda network, recipe, draws: seen.append),
        train=lambda network, step, recipe, step_generator: step(range(16)),
        run_name="an expert",
    )
    method = parse_method(name)
    method.fit(method.parts(3)[1], context)
    [batch] = seen
    assert set((batch.labels % 3).tolist()) == remainders
    assert len(batch) == 16
    assert batch.images.min() == 0  # the margins of crops
    assert batch.images.max() == 1


def test_colour_images_survive_storing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 6, 5)).astype(np.uint8)
    drawn = Generation().score({"samples": images, "test": images}).samples
    stored = safetensors.numpy.load(safetensors.numpy.save(drawn))
    np.testing.assert_allclose(stored["images"][2, 5, 4], images[2, :, 5, 4] / 255, rtol=1e-6)
