"""The model card of an exported network, and the script that shows how it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.environment import versions
from benchmarks.report.load import read_results
from benchmarks.report.page.pages import environment
from benchmarks.report.tables.formatting import ReportTable, TableBlock, to_markdown
from benchmarks.report.tables.main import main_table
from benchmarks.suite.plan import Cell, Plan
from dbn_core.methods.registry import canonical

if TYPE_CHECKING:
    from dbn_core.data.dataset import Dataset

_EXAMPLE = '''\
"""Predict with model.onnx: `python example.py FILE...`, PNG or JPEG files (needs Pillow), or uint8 arrays (.npy)."""
import json, sys
from pathlib import Path
import numpy as np
import onnxruntime

channels, height, width = {channels}, {height}, {width}


def read(file):
    """uint8 [B, {channels}, {height}, {width}]: an array as it is, an image resized and cropped as in training."""
    if not Path(file).is_file():
        sys.exit(f"There is no file {{file}}.")
    if not file.endswith(".npy"):
        try:
            from PIL import Image, ImageOps
        except ImportError:
            sys.exit("Image files need Pillow: pip install pillow.")
        try:
            image = Image.open(file).convert("{mode}")
        except OSError:
            sys.exit(f"{{file}} is no image that Pillow reads.")
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(1, height, width, channels).transpose(0, 3, 1, 2)
    try:
        images = np.load(file)
    except (ValueError, OSError, EOFError):
        sys.exit(f"{{file}} is no array that np.save wrote.")
    if images.dtype != np.uint8 or images.shape[1:] != (channels, height, width):
        found = f"{{images.dtype}} {{list(images.shape)}}"
        sys.exit(f"{{file}} is {{found}}: save uint8 [B, {{channels}}, {{height}}, {{width}}].")
    return images


here = Path(__file__).parent
noise = [np.random.randint(0, 256, (2, channels, height, width), dtype=np.uint8)]
images = np.concatenate([read(file) for file in sys.argv[1:]] or noise)
session = onnxruntime.InferenceSession(here / "model.onnx", providers=["CPUExecutionProvider"])
log_probs, calibrated = session.run(None, {{"images": images.astype(np.float32) / 255}})
labels = json.loads((here / "labels.json").read_text(encoding="utf-8"))
for best in calibrated.argmax(1):
    print(labels[best])
'''


TOLERANCE = 1e-3  # largest difference of log-probabilities between the exported network and torch


@dataclass(frozen=True)
class Card:
    """Facts of the card that the network does not hold: the command, and the folders of result rows."""

    command: str
    rows: tuple[Path, ...]


@dataclass(frozen=True)
class Agreement:
    """The exported network compared with torch on the test split: largest difference, and share of equal classes.

    ``member`` says in sentences how it compares with one member; empty where that was not measured.
    """

    examples: int
    difference: float
    equal_classes: float
    member: tuple[str, ...] = ()


def example_script(data: Dataset) -> str:
    """A script that needs only onnxruntime and numpy, and Pillow for image files."""
    height, width = data.image_size
    mode = "RGB" if data.channels == 3 else "L"
    return _EXAMPLE.format(channels=data.channels, height=height, width=width, mode=mode)


def model_card(plan: Plan, cell: Cell, card: Card, data: Dataset, temperature: float, agreement: Agreement) -> str:
    """The README of an exported network, in Markdown.

    Args:
        temperature: of the calibrated output.
        agreement: of the exported network with torch.
    """
    height, width = data.image_size
    row, folder = _row(cell, card)
    text = (
        environment(Path(__file__).parent)
        .get_template("card.md.j2")
        .render(
            label=cell.label,
            size=cell.size,
            summary=cell.method.summary().rstrip("."),
            reference=cell.method.reference,
            spec=canonical(cell.method),
            network=plan.suite.network.label,
            suite=plan.suite.name,
            repetition=cell.repetition + 1,
            data=data.title,
            fingerprint=data.fingerprint[:12],
            shape=f"[B, {data.channels}, {height}, {width}]",
            classes=data.num_classes,
            validation=len(data.validation),
            temperature=temperature,
            agreement=agreement,
            tolerance=f"{TOLERANCE:g}",
            row=row,
            rows=folder,
            command=card.command,
            versions=", ".join(f"{name} {version}" for name, version in versions().items()),
        )
    )
    return text + "\n"


def _row(cell: Cell, card: Card) -> tuple[str, str]:
    """The rows of the report's table for one network and for the cell, and their folder; empty if there are none."""
    for folder in card.rows:
        if not (folder / "meta.json").is_file():
            continue
        results = read_results(folder)
        table, ensemble = main_table(results), set(results.reference["label"])
        rows = [row for block in table.blocks for row in block.rows]
        names = [(row[0].text, row[1].text) for row in rows]
        mine = (cell.label, str(cell.size))
        if mine in names:
            shown = [row for row, name in zip(rows, names, strict=True) if name == mine or _is_one(name, ensemble)]
            return to_markdown(ReportTable(table.header, [TableBlock("", shown)])), str(folder)
    return "", ""


def _is_one(name: tuple[str, str], ensemble: set[str]) -> bool:
    return name[0] in ensemble and name[1] == "1"
