"""What an export is called and what its card says, found without a network."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.commands.export import folder_name
from benchmarks.export.card import Agreement, Card, example_script, model_card
from benchmarks.suite.load import load_suite
from benchmarks.suite.plan import DataFacts, Plan, build_plan
from dbn_core.data.dataset import Dataset, Split
from dbn_core.data.decode import decode_images
from dbn_core.data.digits import DigitsSource

SUITE = """
title = "Tiny"
repetitions = 1
data = { source = "digits" }
network = { name = "resnet8", channels = 8 }
pool = { members = 3 }
recipe = { epochs = 1 }
students = { epochs = 1 }
"""


def plan_of(folder: Path, *labels: str) -> Plan:
    """A deep ensemble, and distilled students of these labels."""
    methods = "".join(
        f"[[methods]]\nuse = 'ed[tau={i + 2}]'\nlabel = '{label}'\nsizes = [2, 3]\n" for i, label in enumerate(labels)
    )
    path = folder / "tiny.toml"
    path.write_text(SUITE + "[[methods]]\nuse = 'de'\nsizes = [1, 2, 3]\n" + methods)
    facts = DataFacts("0", "digits", 1, (8, 8), tuple("0123456789"), {"train": 9, "validation": 9, "test": 9})
    return build_plan(load_suite(str(path)), facts)


def test_labels_that_look_alike_have_folders_of_their_own(tmp_path: Path) -> None:
    cells = plan_of(tmp_path, "ED+", "ED-", "ed", "DBN (fixed)").cells
    names = {(cell.label, cell.size): folder_name(cell, cells) for cell in cells}
    assert len(set(names.values())) == len(names)
    assert {names["DE", 2], names["DBN (fixed)", 3]} == {"de-2", "dbn-fixed-3"}
    assert all(re.fullmatch(r"ed-[0-9a-f]{6}-3", names[label, 3]) for label in ("ED+", "ED-", "ed"))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("none.png", "There is no file {}."),
        ("text.png", "{} is no image that Pillow reads."),
        ("text.npy", "{} is no array that np.save wrote."),
        ("small.npy", "{} is uint8 [2, 3, 8]: save uint8 [B, 1, 8, 8]."),
    ],
)
def test_the_example_refuses_files_in_a_sentence(tmp_path: Path, file: str, message: str) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "small.npy", np.zeros((2, 3, 8), np.uint8))
    script = example_script(DigitsSource().load()).partition("here = ")[0].replace("import onnxruntime", "")
    space: dict[str, Any] = {}
    exec(script, space)
    with pytest.raises(SystemExit) as end:
        space["read"](str(tmp_path / file))
    assert end.value.code == message.format(tmp_path / file)


@pytest.mark.parametrize("size", [(40, 30), (8, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_example_reads_images_as_the_suite_does(tmp_path: Path, size: tuple[int, int], channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    split = Split(torch.zeros(1, channels, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64))
    data = Dataset("d", "D", split, split, split, ("a",), (0.5,) * channels, (0.5,) * channels, True)
    space: dict[str, Any] = {}
    exec(example_script(data).partition("here = ")[0].replace("import onnxruntime", ""), space)
    wanted = decode_images([("photo", tmp_path / "photo.png")], 1, channels, 8)
    assert np.array_equal(space["read"](str(tmp_path / "photo.png")), wanted.numpy())


@pytest.mark.parametrize("label", ["[click](http://example.org)", "<img src=x>", "*ED* `x` _y_"])
def test_a_label_is_shown_literally_in_the_card(tmp_path: Path, label: str) -> None:
    plan = plan_of(tmp_path, label)
    cell = next(cell for cell in plan.cells if cell.label == label)
    data = replace(DigitsSource().load(), title=label)
    rest = model_card(plan, cell, Card("dbn-bench export", ()), data, 1.0, Agreement(10, 1e-6, 1.0))
    assert "```sh\ndbn-bench export\n```" in rest
    assert label not in rest
    shown = {
        "[click](http://example.org)": r"[click\](http://example.org)",
        "<img src=x>": "&lt;img src=x>",
        "*ED* `x` _y_": r"\*ED\* \`x\` \_y\_",
    }
    assert rest.startswith(f"# {shown[label]}, size {cell.size}, on {shown[label]}\n")
    assert f"Data: {shown[label]} (" in rest
