"""Suites that try shifted images: planned beside the rest, run once, scored as the clean ones are, and reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.report.load import read_results
from benchmarks.results.shifts import CLEAN, _Predicted
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.schema import Suite
from benchmarks.work.planning import plan_suite
from dbn_core.data.corruptions import corrupt
from dbn_core.errors import SpecError
from dbn_core.metrics.detection import max_probability
from dbn_core.metrics.scores import mixture_log_probs
from tests.support import tiny

ROOT = Path(__file__).resolve().parents[3]
IMAGES = 150
SHIFT = f"""
[shift]
corruptions = ["contrast", "gaussian_noise"]
levels = [1, 5]
ood = ["uniform", "textures"]
images = {IMAGES}
"""
TWICE = tiny.HEAD.replace("repetitions = 1", "repetitions = 2")


def suite(folder: Path, text: str) -> Suite:
    folder.mkdir(exist_ok=True)
    (folder / "tiny.toml").write_text(text)
    return load_suite(str(folder / "tiny.toml"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shift")
    tiny.run(folder, TWICE + SHIFT + tiny.DE + tiny.ED + tiny.TS)
    return folder


def shifts(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows" / "shifts.csv")


def pick(rows: pd.DataFrame, **values: object) -> pd.DataFrame:
    for name, value in values.items():
        rows = rows[rows[name] == value]
    return rows


def test_a_shift_changes_no_key_of_what_was_there(made: Path) -> None:
    store = Store(made / "store")
    shifted = plan_suite(load_suite(str(made / "tiny.toml")), store)
    plain = plan_suite(suite(made / "plain", TWICE + tiny.DE + tiny.ED + tiny.TS), store)
    added = {key: node for key, node in shifted.nodes.items() if key not in plain.nodes}
    assert set(plain.nodes) <= set(shifted.nodes)
    assert {node.kind for node in added.values()} == {"shifts"}
    assert all(store.has("shifts", key) for key in added)
    assert len(added) == 2 * (2 + 1 + 1)  # both members, which serve both sizes of DE; ED, and TS


def test_other_images_are_other_predictions(made: Path) -> None:
    text = (made / "tiny.toml").read_text()
    store, keys = Store(made / "store"), {}
    for name, other in {
        "same": text,
        "levels": text.replace("[1, 5]", "[5]"),
        "count": text.replace("150", "100"),
    }.items():
        plan = plan_suite(suite(made / "other", other), store)
        keys[name] = {key for key, node in plan.nodes.items() if node.kind == "shifts"}
    assert not keys["same"] & keys["levels"]
    assert not keys["same"] & keys["count"]


def test_clean_scores_are_those_of_the_first_test_images(made: Path) -> None:
    """Computed again from the stored predictions, by hand."""
    plan, store = plan_suite(load_suite(str(made / "tiny.toml")), Store(made / "store")), Store(made / "store")
    rows = pick(shifts(made), set="clean", level=0)
    for label, size in (("DE", 1), ("DE", 2), ("ED", 2)):
        values = []
        for cell in plan.cells:
            if (cell.label, cell.size) == (label, size):
                arrays = store.arrays("predictions", cell.predictions)
                terms, labels = arrays["test"][: cell.terms, :IMAGES], arrays["test_labels"][:IMAGES]
                values.append(-mixture_log_probs(terms)[np.arange(IMAGES), labels].mean())
        [found] = pick(rows, label=label, size=size, metric="nll")["mean"]
        assert len(values) == 2
        assert found == pytest.approx(np.mean(values), rel=1e-4)


def test_scores_under_a_corruption_are_those_of_the_corrupted_images(made: Path) -> None:
    """A prediction made anew, of images corrupted here."""
    import torch

    from benchmarks.work.worker import ArtefactBuilder

    plan, store = plan_suite(load_suite(str(made / "tiny.toml")), Store(made / "store")), Store(made / "store")
    values = []
    for repetition in (0, 1):
        [cell] = [c for c in plan.cells if (c.label, c.repetition) == ("ED", repetition)]
        bench = ArtefactBuilder(plan.suite, store, "cpu", repetition)
        test = bench.data.test
        images = corrupt(test.images[:IMAGES], "contrast", 5)
        with torch.inference_mode():
            log_probs = bench.predictor(plan.nodes[cell.predictions].payload)(images / 255)
        values.append(-log_probs.reshape(IMAGES, -1)[torch.arange(IMAGES), test.labels[:IMAGES]].mean().item())
    [found] = pick(shifts(made), label="ED", set="contrast", level=5, metric="nll")["mean"]
    assert found == pytest.approx(np.mean(values), rel=2e-3)


def test_the_mean_over_corruptions_is_the_mean(made: Path) -> None:
    rows = pick(shifts(made), label="DE", size=2, level=5)
    for metric in ("acc", "nll", "cnll"):
        values = pick(rows, metric=metric).set_index("set")["mean"]
        assert values["corruptions"] == pytest.approx((values["contrast"] + values["gaussian_noise"]) / 2, rel=1e-4)


def test_detection_has_scores_within_bounds_and_the_reports_show_all(made: Path) -> None:
    outside = pick(shifts(made), set="ood/uniform")
    names = {f"{metric}_{by}" for metric in ("auroc", "aupr", "fpr95") for by in ("msp", "entropy", "mi")}
    assert set(outside["metric"]) == names
    by_members = outside[outside["metric"] == "auroc_mi"]
    assert list(zip(by_members["label"], by_members["size"], strict=True)) == [("DE", 2)]  # the others predict once
    assert outside["mean"].between(0, 1).all()
    assert max_probability(np.log([[0.25, 0.75]]))[0] == pytest.approx(np.log(0.75))
    report = made / "reports" / "tiny"
    for page in ("report.md", "report.html"):
        text = (report / page).read_text()
        assert "Under shift" in text
        assert "uniform" in text
    assert (report / "figures" / "severity.png").is_file()
    assert (report / "tables" / "shifts.csv").is_file()


def test_detection_by_members_has_no_interval_where_repetitions_share_them(made: Path, tmp_path: Path) -> None:
    shared = (TWICE + SHIFT).replace("members = 2", 'members = 2\nsharing = "shared"') + tiny.DE
    tiny.run(tmp_path, shared)
    for folder, known in ((made, True), (tmp_path, False)):
        rows = pick(shifts(folder), set="ood/uniform", label="DE", size=2)
        assert pick(rows, metric="auroc_mi")["low"].notna().all() == known
        assert pick(rows, metric="auroc_msp")["low"].notna().all()
        text = (folder / "reports" / "tiny" / "report.md").read_text()
        assert ("a member alone has no mutual information" in text) == (not known)


def test_a_method_whose_mean_is_stored_has_no_mutual_information() -> None:
    """Two terms of clean images, and of shifted ones the mean prediction alone."""
    rng = np.random.default_rng(0)
    clean = np.log(rng.dirichlet(np.ones(4), size=(2, 30)))
    ood = np.log(rng.dirichlet(np.ones(4), size=(1, 20)))
    labels = rng.integers(4, size=30)
    found = _Predicted({CLEAN: clean, "ood/uniform": ood}, labels, None, None).detected("ood/uniform").split
    assert set(found) == {f"{metric}_{by}" for metric in ("auroc", "aupr", "fpr95") for by in ("msp", "entropy")}


def test_a_single_set_of_images_of_no_class_is_named(made: Path, tmp_path: Path) -> None:
    one = SHIFT.replace('["contrast", "gaussian_noise"]', "[]").replace('["uniform", "textures"]', '["textures"]')
    tiny.run(tmp_path, TWICE + one + tiny.DE, store=made / "store")
    for page in ("report.md", "report.html"):
        assert "Out-of-distribution images (textures):" in (tmp_path / "reports" / "tiny" / page).read_text()
    # Without the table nothing of it is left.
    assert tiny.run(tmp_path, TWICE + tiny.DE, store=made / "store", source="").outcome.made == []
    assert not (tmp_path / "rows" / "shifts.csv").exists()
    assert read_results(tmp_path / "rows").shifts is None
    assert "Under shift" not in (tmp_path / "reports" / "tiny" / "report.md").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("contrast", "contrst"), "contrst.*contrast"),
        (("uniform", "svhn"), "svhn"),
        (("[1, 5]", "[0, 5]"), "1 to 5"),
        ((SHIFT.strip(), "[shift]\ncorruptions = []\nood = []"), "remove"),
    ],
)
def test_wrong_tables_are_refused_in_a_sentence(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    text = (TWICE + SHIFT + tiny.DE).replace(*change)
    with pytest.raises(SpecError, match=words):
        suite(tmp_path, text)
