"""The public contract, its documentation, and a package of somebody else."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dbn_core
from benchmarks.contract.check import check_method
from benchmarks.suite.load import load_suite
from dbn_core.methods.registry import load_plugin, parse_method
from tests.support.trial import shallow_networks

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "dbn-bench-tta"
DOCS = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")

# Contract 1.  A line that must change here is a break: raise dbn_core.CONTRACT, or keep what the line says.
# Optional parameters and further names may be added at the end.
CONTRACT_1 = {
    "Method": "config=None",
    "Method.check_size": "self, size",
    "Method.parts": "self, size",
    "Method.members": "self, size",
    "Method.terms": "self, size",
    "Method.fit": "self, part, context",
    "Method.predictor": "self, size, context",
    "Method.cost": "self, size, context, counted",
    "Part": "name, members=(), needs=(), settings=None, teacher_mixup=None",
    "register": "name",
    "parse_method": "spec, options=None",
    "FitContext.generator": "self, purpose",
    "FitContext.new_network": "self, purpose='init', spec=None",
    "FitContext.initialise": "self, module, purpose='init'",
    "FitContext.load": "self, module, part",
    "FitContext.student_recipe": "self, **changes",
    "FitContext.teach": "self, batch",
    "FitContext.teach_images": "self, images",
    "FitContext.train": "self, module, step, recipe=None, *, purpose='train', predict=None, step_generator=None",
    "PredictContext.generator": "self, purpose",
    "PredictContext.new_network": "self, purpose='init', spec=None",
    "PredictContext.initialise": "self, module, purpose='init'",
    "PredictContext.load": "self, module, part",
    "Batch.mixed_labels": "self, classes",
    "Classifier.split": "self, at",
    "NetworkSpec.scaled": "self, width",
    "Mixture": "networks",
    "Tempered": "network, temperature",
    "FeatureMixture": "source, at, heads",
    "Cost": "params, macs",
    "predict_split": "predictor, split, device, batch=500",
}
# Attributes that methods read or set.
ATTRIBUTES_1 = {
    "Method": "name title reference version nested competes Config",
    "FitContext": "data spec device classes recipe student_epochs members parts teacher_passes",
    "PredictContext": "data spec device classes members parts",
    "Batch": "images labels partner_labels lam indices dominant",
    "Dataset": "train validation test classes mean std flip channels image_size num_classes",
    "Split": "images labels",
    "Cost": "params macs flops",
}
OTHERS_1 = {"Config", "Dataset", "Split", "Recipe", "BenchError", "SpecError", "CONTRACT", "__version__"}
OTHERS_1 |= {"Task", "Score", "Scores", "register_task", "register_network", "checked_arrays", "TrainingCost"}


def plain(function: Any) -> str:
    """A signature without its annotations."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)).strip("()")


@pytest.mark.parametrize("name", CONTRACT_1)
def test_a_public_signature_is_as_promised(name: str) -> None:
    assert dbn_core.CONTRACT == 1, "write the table of the new contract"
    owner, _, attribute = name.partition(".")
    found = getattr(dbn_core, owner)
    shown = plain(getattr(found, attribute) if attribute else found)
    assert shown == CONTRACT_1[name] or shown.startswith(CONTRACT_1[name] + ", "), shown


def test_the_public_names_are_those_of_the_contract() -> None:
    names = {name.partition(".")[0] for name in CONTRACT_1} | set(ATTRIBUTES_1) | OTHERS_1
    assert set(dbn_core.__all__) == names
    assert all(getattr(dbn_core, name) is not None for name in names)


@pytest.mark.parametrize("name", ATTRIBUTES_1)
def test_a_public_attribute_is_there(name: str) -> None:
    cls = getattr(dbn_core, name)
    known = set(dir(cls)) | set(getattr(cls, "__dataclass_fields__", ()))
    assert set(ATTRIBUTES_1[name].split()) <= known


def test_the_contract_is_listed_without_torch() -> None:
    code = "import sys, dbn_core; dbn_core.Method, dbn_core.Part, dbn_core.register; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ------------------------------------------------------------------------------------------------- documentation


@pytest.fixture(scope="module")
def shallow() -> Iterator[None]:
    with shallow_networks():
        yield


@pytest.mark.usefixtures("clean_registry", "shallow")
@pytest.mark.parametrize(
    "block", re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL), ids=["none", "several", "outside"]
)
def test_an_example_of_the_documentation_keeps_the_contract(block: str, tmp_path: Path) -> None:
    (name,) = re.findall(r'@register\("(.*?)"\)', block)
    file = tmp_path / f"{name.replace('-', '_')}.py"
    file.write_text(block)
    load_plugin(file)
    assert {result.outcome for result in check_method(parse_method(name))} == {"ok"}


def test_the_documentation_names_what_there_is() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", DOCS):
        assert link.startswith("reference/") or (ROOT / "docs" / link).exists(), link  # that folder is generated
    for name in re.findall(r"`context\.(\w+)", DOCS):
        assert hasattr(dbn_core.FitContext, name) or name in dbn_core.FitContext.__dataclass_fields__, name
    assert f"now {dbn_core.CONTRACT}" in DOCS


# ------------------------------------------------------------------------------------------- an installed package

SUITE = """
title = "Installed"
repetitions = 1
data = { source = "digits", test_fraction = 0.9 }
network = { name = "resnet8", channels = 4, width = 1.0 }
pool = { members = 1 }
recipe = { epochs = 1, batch_size = 32, crop_pad = 1 }
students = { epochs = 1 }
latency = { repeats = 3, batch_repeats = 3 }
methods = [
  { use = "de", sizes = [1] }, { use = "shifts", sizes = [2, 3] }, { use = "cache", sizes = [1] },
]
"""


# One process for all commands: importing torch is what takes the time.
DRIVER = """
import sys
from benchmarks.cli import main
for words in (["list"], ["check", "shifts"], ["run", "mine.toml", "--jobs", "0"]):
    sys.argv = ["dbn-bench", *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.mark.slow
def test_an_installed_package_is_found_checked_and_run(tmp_path: Path) -> None:
    build = f"import hatchling.build; print(hatchling.build.build_wheel({str(tmp_path)!r}))"
    made = subprocess.run([sys.executable, "-c", build], cwd=EXAMPLE, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(tmp_path / made.stdout.split()[-1]) as wheel:
        wheel.extractall(tmp_path / "site")
    (tmp_path / "mine.toml").write_text(SUITE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)]), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "arXiv 2002.06470" in done.stdout
    assert "'shifts' keeps the contract." in done.stdout
    report = (tmp_path / "reports" / "runs" / "mine" / "report.md").read_text(encoding="utf-8")
    assert "TTA (shifts)" in report
    assert "Cache" in report
    costs = [
        json.loads(path.read_text())["value"] for path in (tmp_path / "results" / "store" / "cost").rglob("*.json")
    ]
    stated = [cost for cost in costs if cost["stated"]]
    one = min(cost["macs"] for cost in costs)
    assert len(stated) == 1
    train = load_suite(str(tmp_path / "mine.toml")).data.load().train
    assert stated[0]["macs"] == one + len(train) * 16  # 4 channels, doubled at each of two later stages
    assert sorted(cost["macs"] for cost in costs if not cost["stated"]) == [one, 2 * one, 3 * one]


@pytest.mark.usefixtures("clean_registry", "shallow")
def test_the_suite_and_the_other_method_of_the_package_are_sound() -> None:
    load_plugin(EXAMPLE / "dbn_bench_tta.py")
    names = {method.name for _, method, _ in load_suite(str(EXAMPLE / "tta.toml")).entries()}
    assert names == {"de", "shifts", "cache"}
    assert {result.outcome for result in check_method(parse_method("cache"))} == {"ok"}
