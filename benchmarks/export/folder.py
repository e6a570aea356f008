"""Export the network of one cell to a folder, checked against torch on the test split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.export.card import TOLERANCE, Agreement, Card, example_script, model_card
from benchmarks.store.artefacts import Store
from benchmarks.suite.names import cells_of_result
from benchmarks.suite.plan import Cell, Plan
from benchmarks.work.worker import ArtefactBuilder
from dbn_core.data.augment import to_float
from dbn_core.data.dataset import Dataset
from dbn_core.errors import BenchError, SpecError
from dbn_core.files import atomic_write
from dbn_core.measure.deploy import deployable, draws_numbers
from dbn_core.measure.runtimes import OnnxNetwork, export_program, to_archive, to_onnx, why_missing
from dbn_core.methods.context import freeze
from dbn_core.methods.evaluation import predict_split
from dbn_core.methods.predictors import Averaged
from dbn_core.metrics.calibration import fit_temperature
from dbn_core.metrics.scores import mixture_log_probs
from dbn_core.nets.spec import NetworkOptions

_OUTPUTS = ("log_probs", "calibrated_log_probs")


class ExportError(BenchError):
    """A method that cannot be exported, or whose exported network predicts something else."""


def find_cell(plan: Plan, name: str, repetition: int) -> Cell:
    """The cell of one repetition, from 0, of the result ``METHOD@SIZE`` (:mod:`benchmarks.suite.names`).

    Raises:
        SpecError: there is no such result, there are several, or the repetition does not exist.
    """
    cells = cells_of_result(plan.cells, name, plan.suite.name)
    for cell in cells:
        if cell.repetition == repetition:
            return cell
    raise SpecError(f"'{name}' has repetitions 1 to {len(cells)}: choose one of them with --repetition.")


def export_cell(plan: Plan, store: Store, cell: Cell, out: Path, card: Card, say: Callable[[str], None]) -> Agreement:
    """Write the deployable form of a cell's predictor to ``out``: networks, labels, preprocessing, example and card.

    Nothing is written unless the network agrees with torch on the whole test split.

    Raises:
        SpecError: the cell has not been trained.
        ExportError: its predictor draws random numbers, or its exported network disagrees with it.
        RuntimeMissingError: ONNX packages are missing, or ONNX cannot hold the predictor.
    """
    if reason := why_missing("onnxruntime", torch.device("cpu")):
        raise ExportError(f"Nothing can be exported: {reason}")
    payload = predictor_payload(plan, store, cell)
    builder = ArtefactBuilder(plan.suite, store, "cpu", cell.repetition if plan.suite.data.resplits else 0)
    data, predictor = builder.data, builder.predictor(payload)
    example = to_float(data.test.images[:2])
    if draws_numbers(predictor, example):
        raise ExportError(
            f"{cell.title} draws random numbers when it predicts, so no exported network has its predictions: export a "
            "method, or options of it, that predict without noise."
        )
    say("Predicting validation and test with torch")
    cpu = torch.device("cpu")
    validation = mixture_log_probs(_terms(predict_split(predictor, data.validation, cpu)).numpy())
    temperature = float(fit_temperature(validation, data.validation.labels.numpy()))
    plain = freeze(Averaged(predictor, temperature))
    say("Exporting")
    program = export_program(freeze(Averaged(deployable(predictor, example), temperature)), example)
    model = to_onnx(program, _OUTPUTS)
    agreement, scores = _compare(plain, OnnxNetwork(model, threads=1), data)
    if not agreement.difference <= TOLERANCE:
        raise ExportError(
            f"{cell.title}: the exported network's log-probabilities differ from torch's by up to "
            f"{agreement.difference:.2g} on the {agreement.examples} test images; at most "
            f"{TOLERANCE:g} is rounding, so nothing is written."
        )
    agreement = replace(agreement, member=_against_member(plan, store, cell, scores))
    files = {
        "model.onnx": model,
        "model.pt2": to_archive(program),
        "labels.json": _json(list(data.classes)),
        "preprocessing.json": _json(_preprocessing(data, plan.suite.network, temperature)),
        "example.py": example_script(data).encode(),
        "README.md": model_card(plan, cell, card, data, temperature, agreement).encode(),
    }
    for name, content in files.items():
        atomic_write(out / name, content)
    return agreement


def predictor_payload(plan: Plan, store: Store, cell: Cell) -> dict[str, Any]:
    """The payload that builds a cell's predictor; for a nested method at the cell's own size.

    Raises:
        SpecError: the cell has not been trained.
    """
    whole, method, size = plan.nodes[cell.predictions].payload, cell.method, cell.size
    payload = {
        "spec": whole["spec"],
        "size": size,
        "members": {str(position): whole["members"][str(position)] for position in method.members(size)},
        "parts": {part.name: whole["parts"][part.name] for part in method.parts(size)},
    }
    needed = [("member", key) for key in payload["members"].values()]
    needed += [("part", key) for key in payload["parts"].values()]
    if missing := [plan.nodes[key].title for kind, key in needed if not store.has(kind, key)]:
        only = f" --only '{cell.label}'"
        lacks = (
            f"The store '{store.root.resolve()}' lacks {len(missing)} of the {len(needed)} trainings of {cell.title}, "
            f"first of all {missing[0]}"
        )
        if any(layer.described("predictions", cell.predictions) for layer in store.released):
            raise SpecError(
                f"{lacks}: its predictions are released without these weights. `DBN_RELEASED= {plan.command}{only}` "
                "ignores what is released and trains everything."
            )
        raise SpecError(f"{lacks}: {plan.remedy(options=only)}")
    return payload


def _terms(log_probs: torch.Tensor) -> torch.Tensor:
    return log_probs[None] if log_probs.ndim == 2 else log_probs


@torch.no_grad()
def _compare(plain: torch.nn.Module, network: OnnxNetwork, data: Dataset) -> tuple[Agreement, dict[str, float]]:
    """Raw and calibrated log-probabilities of both on the whole test split, and the scores of ``plain``."""
    difference, equal, outputs = 0.0, 0, []
    for images in to_float(data.test.images).split(500):
        expected, found = plain(images), network.all(images)
        outputs.append(torch.stack(tuple(expected)))
        for one, other in zip(expected, found, strict=True):
            gap = float((one - other).abs().nan_to_num(torch.inf).max())
            difference = max(difference, gap)
        equal += int((expected[0].argmax(1) == found[0].argmax(1)).sum())
    log_probs, labels = torch.cat(outputs, 1).double(), data.test.labels
    raw, scaled = -log_probs.gather(2, labels.expand(2, -1)[..., None]).mean((1, 2))
    scores = {
        "acc": float((log_probs[0].argmax(1) == labels).double().mean()),
        "nll": float(raw),
        "cnll": float(scaled),
    }
    return Agreement(len(data.test), difference, equal / len(data.test)), scores


def _against_member(plan: Plan, store: Store, cell: Cell, scores: Mapping[str, float]) -> tuple[str, ...]:
    """Test scores of an exported network and of one member of its repetition; nothing where that was not predicted."""
    ones = (other for other in plan.cells if other.is_reference and other.size == 1)
    one = next((other for other in ones if other.repetition == cell.repetition), None)
    if one is None or one is cell or not store.has("predictions", one.predictions):
        return ()
    found = plan.suite.task.score(store.arrays("predictions", one.predictions), one.terms)
    member = {name: float(found.values(name).mean()) for name in scores}
    text = "accuracy {:.4f}, NLL {:.4f}, after temperature scaling {:.4f}"
    mine, theirs = text.format(*scores.values()), text.format(*member.values())
    lines = [f"On the test images this network has {mine}; one member has {theirs}."]
    gap = {name: round(scores[name] - member[name], 4) for name in scores}  # as precise as shown
    if worse := ["accuracy"] * (gap["acc"] < 0) + ["temperature-scaled NLL"] * (gap["cnll"] > 0):
        lines.append(f"Warning: its {' and '.join(worse)} {'are' if worse[1:] else 'is'} worse than one member's.")
    return tuple(lines)


def _preprocessing(data: Dataset, network: NetworkOptions, temperature: float) -> dict[str, Any]:
    height, width = data.image_size
    mean, std = (getattr(network, name, None) or getattr(data, name) for name in ("mean", "std"))
    return {
        "input": {
            "name": "images",
            "layout": "NCHW",
            "dtype": "float32",
            "range": [0, 1],
            "from_uint8": "divide by 255",
            "from_file": {
                "mode": "RGB" if data.channels == 3 else "L",
                "resize": "ImageOps.fit of Pillow, bilinear: resized to cover height x width, cropped at the centre",
            },
            "channels": data.channels,
            "height": height,
            "width": width,
            "batch": "any",
        },
        "normalisation": {"where": "inside the network", "mean": list(mean), "std": list(std)},
        "outputs": {
            "log_probs": "log-probabilities [B, K] of the mean of all terms",
            "calibrated_log_probs": "the same divided by the temperature and normalised again",
        },
        "temperature": temperature,
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
