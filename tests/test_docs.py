"""The documentation: its first example runs, and the pages are built without a warning."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_example_trains_an_ensemble_a_student_and_a_bridge(capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "examples" / "train_dbn.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 150
    spec = importlib.util.spec_from_file_location("train_dbn", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main()
    rows = [line.rsplit(maxsplit=2) for line in capsys.readouterr().out.splitlines()[1:]]
    accuracy = {name: float(value) for name, value, _ in rows}
    nll = {name: float(value) for name, _, value in rows}
    members = [nll[f"member {number}"] for number in (1, 2, 3)]
    assert nll["DE-3"] < min(members)
    assert nll["DBN, 1 step"] < max(members)
    assert abs(nll["DBN, 1 step"] - nll["DBN, 5 steps"]) < 0.05
    assert min(accuracy.values()) > 85
