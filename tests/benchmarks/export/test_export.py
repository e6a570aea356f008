"""Exported networks: the same predictions without this package, or a refusal that says why."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from PIL import Image

from benchmarks.cli import main
from benchmarks.export import folder as exporting
from benchmarks.run import Options, run_suite
from benchmarks.store.artefacts import Store
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import build_plan
from benchmarks.suite.schema import Suite
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.data.augment import to_float
from dbn_core.measure.deploy import deployable, draws_numbers
from dbn_core.metrics.scores import mixture_log_probs

pytestmark = pytest.mark.slow
SUITE = """
title = "Tiny"
repetitions = 2
data = { source = "digits", split = "repetition", test_fraction = 0.9 }
network = { name = "resnet8", channels = 8, width = 1.0, norm = "batchnorm" }
pool = { members = 3 }
recipe = { epochs = 1, batch_size = 32, crop_pad = 0 }
students = { epochs = 1 }
latency = { batch = 4, repeats = 3, batch_repeats = 3, runtimes = ["eager", "onnxruntime"] }
[[methods]]
use = "de"
sizes = [1, 2, 3]
[[methods]]
use = "dbn[split_at=block2,score_network=mini]"
label = "DBN (fixed)"
sizes = [3]
"""
# Every other built-in method; timed nowhere, so that they cost seconds.
OTHERS = "".join(
    f'[[methods]]\nuse = "{use}"\nsizes = [{size}]\n'
    for use, size in (
        *(("single", 1), ("ed", 2), ("end2", 2), ("end2[prediction=dirichlet]", 2), ("ts", 1), ("null", 2)),
        *(
            ("bn[split_at=block2]", 3),
            ("bn[split_at=block2,type=2]", 2),
            ("shared", 2),
            ("direct[split_at=block2,score_network=mini]", 3),
        ),
        *(
            ("dbn[split_at=block2,score_network=mini,distill=false]", 3),
            ("dbn[split_at=block2,score_network=mini,members_per_bridge=2]", 3),
        ),
        ("dbn[split_at=block2,score_network=mini,sees_state=true]", 3),
        ("dbn[split_at=block2,score_network=mini,distill=false,sampler_noise=forward]", 3),
    )
)


def suite(folder: Path, text: str) -> Suite:
    (folder / "tiny.toml").write_text(text)
    return load_suite(str(folder / "tiny.toml"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the suite has been run, the other methods without being timed."""
    folder = tmp_path_factory.mktemp("export")
    options = Options(folder / "store", folder / "rows", folder / "reports", jobs=0, device="cpu")
    result = run_suite(suite(folder, SUITE), options, lambda event: None)
    assert not result.failures
    return folder


def dbn_bench(*words: str, folder: Path, patch: pytest.MonkeyPatch) -> int:
    patch.chdir(folder)
    patch.setattr(sys, "argv", ["dbn-bench", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_what_is_exported_predicts_what_was_measured(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "tiny.toml", "dbn (fixed)@3", "--store", "store", "--rows", "rows", "--repetition", "2"]
    assert dbn_bench(*words, folder=trained, patch=monkeypatch) == 0, capsys.readouterr()
    said = capsys.readouterr().out
    assert "100.00 % of the predicted classes are equal" in said
    out = trained / "results/exports/tiny/dbn-fixed-3"
    names = {"model.onnx", "model.pt2", "labels.json", "preprocessing.json", "example.py", "README.md"}
    assert {path.name for path in out.iterdir()} == names

    plan = build_plan(*_suite_and_facts(trained))
    cell = next(c for c in plan.cells if c.label == "DBN (fixed)" and c.repetition == 1)
    stored = Store(trained / "store").arrays("predictions", cell.predictions)
    data = plan.suite.data.for_repetition(1, plan.suite.seed).load()
    images = to_float(data.test.images)
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[1:] == [1, 8, 8]
    expected = mixture_log_probs(stored["test"])
    for count in (1, len(images)):
        raw, calibrated = session.run(None, {"images": images[:count].numpy()})
        np.testing.assert_allclose(raw, expected[:count], atol=1e-4)
    about = json.loads((out / "preprocessing.json").read_text())
    scaled = raw / about["temperature"]
    np.testing.assert_allclose(calibrated, scaled - np.logaddexp.reduce(scaled, 1, keepdims=True), atol=1e-4)
    rows = pd.read_csv(trained / "rows" / "rows.csv")
    fitted = rows[(rows.label == "DBN (fixed)") & (rows.repetition == 1) & (rows.metric == "temperature")].value.item()
    assert about["temperature"] == pytest.approx(fitted, rel=1e-3)
    program = torch.export.load(out / "model.pt2").module()
    np.testing.assert_allclose(program(images[:5])[0].detach().numpy(), expected[:5], atol=1e-4)
    assert json.loads((out / "labels.json").read_text()) == list(data.classes)

    card = (out / "README.md").read_text()
    assert "dbn-bench export tiny.toml 'dbn (fixed)@3'" in card
    assert "| DBN (fixed) |" in card
    assert "| DE " in card
    assert data.title in card
    np.save(trained / "images.npy", data.test.images[:3].numpy())
    alone = "import sys, runpy; sys.modules['torch'] = sys.modules['benchmarks'] = None; del sys.argv[0]; "
    alone += "runpy.run_path(sys.argv[0], run_name='__main__')"
    Image.fromarray(data.test.images[3, 0].numpy()).save(trained / "one.png")
    files = [str(trained / "images.npy"), str(trained / "one.png")]
    done = subprocess.run(
        [sys.executable, "-c", alone, str(out / "example.py"), *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [data.classes[k] for k in expected[:4].argmax(1)]

    one = rows[(rows.label == "DE") & (rows["size"] == 1) & (rows.repetition == 1)].set_index("metric").value
    line = next(line for line in said.splitlines() if line.startswith("On the test images this network has"))
    assert f"one member has accuracy {one.acc:.4f}, NLL {one.nll:.4f}, after temperature scaling {one.cnll:.4f}" in line
    mine = rows[(rows.label == "DBN (fixed)") & (rows["size"] == 3) & (rows.repetition == 1)].set_index("metric").value
    assert f"has accuracy {mine.acc:.4f}, " in line
    assert line in card
    assert ("Warning: its" in said) == (mine.acc < one.acc or mine.cnll > one.cnll)


def _suite_and_facts(folder: Path, text: str = SUITE) -> tuple:
    from benchmarks.run import plan_suite

    plan = plan_suite(suite(folder, text), Store(folder / "store"))
    return plan.suite, plan.data


def test_a_size_of_an_ensemble_is_its_first_members(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["export", "tiny.toml", "de@2", "--store", "store", "--out", "de2", "--rows", "nowhere"]
    assert dbn_bench(*words, folder=trained, patch=monkeypatch) == 0
    plan = build_plan(*_suite_and_facts(trained))
    cell = next(c for c in plan.cells if c.method.name == "de" and c.size == 2 and c.repetition == 0)
    stored = Store(trained / "store").arrays("predictions", cell.predictions)
    images = to_float(plan.suite.data.for_repetition(0, plan.suite.seed).load().test.images)
    session = onnxruntime.InferenceSession(trained / "de2/model.onnx", providers=["CPUExecutionProvider"])
    raw = session.run(["log_probs"], {"images": images.numpy()})[0]
    np.testing.assert_allclose(raw, mixture_log_probs(stored["test"][:2]), atol=1e-4)
    assert "There were no result rows" in (trained / "de2/README.md").read_text()


def test_times_in_onnxruntime_stand_in_rows_and_report(trained: Path) -> None:
    summary = pd.read_csv(trained / "rows" / "summary.csv")
    for runtime in ("latency", "latency_onnxruntime"):
        for place in ("b1", "batch"):
            assert (summary[f"{runtime}_{place}_p50_ms"] > 0).all()
            assert summary.loc[0, f"{runtime}_{place}_ratio"] == 1.0
    assert summary["latency_compiled_b1_p50_ms"].isna().all()
    page = (trained / "reports/tiny/report.md").read_text()
    assert "onnxruntime, batch 4 (ms)" in page
    assert "compiled, batch" not in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["DBN (fixed)@5"], "has no result 'DBN (fixed)@5': write METHOD@SIZE, here 'DBN (fixed)@3'"),
        (["DE@2", "--repetition", "3"], "has repetitions 1 to 2"),
        (["DE@2", "--store", "empty"], "`dbn-bench run tiny.toml --store empty --only 'DE'` makes them"),
    ],
)
def test_refusals(
    trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    suite(trained, SUITE)
    assert dbn_bench("export", "tiny.toml", "--store", "store", *words, folder=trained, patch=monkeypatch) == 1
    assert said in capsys.readouterr().err


def test_a_network_that_disagrees_and_missing_packages_are_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Wrong(exporting.OnnxNetwork):
        def all(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [output + 0.01 for output in super().all(images)]

    words = ["export", "tiny.toml", "DE@1", "--store", "store", "--out", "wrong"]
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "OnnxNetwork", Wrong)
        assert dbn_bench(*words, folder=trained, patch=patch) == 1
    assert "differ from torch's by up to 0.01 on the" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr("dbn_core.measure.runtimes.importlib.util.find_spec", lambda name: None)
        assert dbn_bench(*words, folder=trained, patch=patch) == 1
    assert "`pip install onnx onnxscript onnxruntime`" in capsys.readouterr().err
    assert not (trained / "wrong").exists()


def test_every_built_in_method_has_a_deployable_form_and_noise_is_refused(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SUITE.replace('["eager", "onnxruntime"]', '["eager"]').replace("repetitions = 2", "repetitions = 1") + OTHERS
    options = Options(trained / "store", trained / "more", trained / "more-reports", jobs=0, device="cpu")
    result = run_suite(suite(trained, text), options, lambda event: None)
    assert not result.failures
    store = Store(trained / "store")
    bench = ArtefactBuilder(result.plan.suite, store, "cpu")
    images, noisy = to_float(bench.data.test.images[:50]), []
    for cell in result.plan.cells:
        plain = bench.predictor(result.plan.nodes[cell.predictions].payload)
        folded = deployable(plain, images[:2])
        assert folded is not plain, cell.title
        assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)], cell.title
        torch.testing.assert_close(folded(images), plain(images), atol=1e-4, rtol=0)
        noisy += [cell] if draws_numbers(plain, images) else []
    assert [cell.spec for cell in noisy] == [c.spec for c in result.plan.cells if "sampler_noise" in c.spec]
    words = ["export", "tiny.toml", f"{noisy[0].label}@3", "--store", "store"]
    assert dbn_bench(*words, folder=trained, patch=monkeypatch) == 1
    assert "draws random numbers when it predicts" in capsys.readouterr().err
