"""Runtimes of a deployed predictor: torch, torch.compile, onnxruntime; the same three for every method."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from typing import Any, Literal

import torch
from torch import nn

from dbn_core.errors import BenchError
from dbn_core.measure.deploy import deployable

Runtime = Literal["eager", "compiled", "onnxruntime"]
Network = Callable[[torch.Tensor], Any]
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INSTALL = f"pip install {' '.join(_ONNX_PACKAGES)}"


class RuntimeMissingError(BenchError):
    """A runtime that this machine lacks, or that cannot run a predictor."""


def why_missing(runtime: Runtime, device: torch.device) -> str:
    """Why nothing can run in ``runtime`` on this machine, as a sentence; empty where it can."""
    if runtime == "onnxruntime":
        if missing := [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]:
            return f"{', '.join(missing)} cannot be imported: `{INSTALL}` installs what it takes."
        if device.type != "cpu":
            return "it is used on the CPU alone, and this run is on another device."
    if runtime == "compiled" and device.type == "cpu":
        compilers = [os.environ.get("CXX", "g++"), "g++", "clang++"]
        if not any(shutil.which(name) for name in compilers):
            return "torch.compile needs a C++ compiler, and there is none."
    return ""


def prepare(
    runtime: Runtime, predictor: nn.Module, example: torch.Tensor, threads: int, trace: bool = False
) -> Network:
    """The deployable form of ``predictor`` in a runtime: images [B, C, H, W] of any B to its log-probabilities.

    Args:
        predictor: frozen, on the device of ``example``.
        example: images [B, C, H, W].
        threads: that onnxruntime may use; torch has a setting of its own.
        trace: whether to use :func:`traced` for onnxruntime, in the place of torch.export.

    Raises:
        RuntimeMissingError: the predictor cannot be exported to onnxruntime, or its trace is wrong.
    """
    folded = deployable(predictor, example)
    if runtime == "onnxruntime":
        if not trace:
            return OnnxNetwork(to_onnx(export_program(folded, example), ["terms"]), threads)
        if (exported := traced(folded, example, threads)) is None:
            raise RuntimeMissingError("a trace of the predictor differs from it.")
        return exported
    return torch.compile(folded, dynamic=False) if runtime == "compiled" else folded


@torch.no_grad()
def traced(network: nn.Module, example: torch.Tensor, threads: int) -> OnnxNetwork | None:
    """``network`` in onnxruntime by TorchScript's tracer, in a twentieth of the time of torch.export; None if it fails.

    Tracing turns what depends on the batch, and random numbers, into constants: the result is compared with torch on
    another batch.
    """
    file, other = io.BytesIO(), example.repeat(2, 1, 1, 1)[: len(example) + 1].contiguous()
    try:
        with _quiet():
            torch.onnx.export(
                network,
                (example.contiguous(),),
                file,  # type: ignore[arg-type]
                dynamo=False,
                input_names=["images"],
                output_names=["terms"],
                dynamic_axes={"images": {0: "batch"}},
            )
        exported = OnnxNetwork(file.getvalue(), threads)
        same = torch.allclose(exported(other), network(other), atol=1e-4, rtol=1e-4)
    except Exception:  # errors of the tracer, and of later versions of torch without it, are of many types
        return None
    return exported if same else None


@torch.no_grad()
def export_program(predictor: nn.Module, example: torch.Tensor) -> torch.export.ExportedProgram:
    """A predictor as a program of torch.export whose batch is free.

    Raises:
        RuntimeMissingError: it does something that such a program cannot hold.
    """
    images = example.repeat(2, 1, 1, 1)[:2].contiguous()  # a batch of one would be taken for a constant
    try:
        with _quiet(), redirect_stderr(io.StringIO()):  # where torch prints the graph of what it could not hold
            return torch.export.export(predictor, (images,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    except Exception as error:  # the tracer's errors are of many types
        raise RuntimeMissingError(f"torch.export cannot hold the predictor ({_first_line(error)}).") from error


def to_archive(program: torch.export.ExportedProgram) -> bytes:
    """An exported program as ``torch.export.load`` reads it."""
    archive = io.BytesIO()
    with _quiet():
        torch.export.save(program, archive)
    return archive.getvalue()


def to_onnx(program: torch.export.ExportedProgram, outputs: Sequence[str]) -> bytes:
    """An exported program as an ONNX model with the input ``images``, its weights inside.

    Raises:
        RuntimeMissingError: an operator has no counterpart in ONNX, or the packages are missing.
    """
    if reason := why_missing("onnxruntime", torch.device("cpu")):
        raise RuntimeMissingError(f"There is no ONNX here: {reason}")
    try:
        with _quiet():
            model = torch.onnx.export(
                program, dynamo=True, input_names=["images"], output_names=list(outputs), verbose=False
            )
    except Exception as error:
        raise RuntimeMissingError(f"ONNX cannot hold the predictor ({_first_line(error)}).") from error
    assert model is not None
    return model.model_proto.SerializeToString()


class OnnxNetwork:
    """An ONNX model in onnxruntime on the CPU.

    Args:
        model: as :func:`to_onnx` gives it.
        threads: that one call may use.
    """

    def __init__(self, model: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4  # errors are raised, too
        # Sessions are timed side by side, where threads that spin for work would take each other's cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] to the first output of the model."""
        return self.all(images)[0]

    def all(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Images [B, C, H, W] to all outputs of the model."""
        return [torch.from_numpy(output) for output in self.session.run(None, {"images": images.numpy()})]


class _quiet(warnings.catch_warnings):
    """Silences warnings and log messages of the exporters, on which no user can act."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        self.level = logging.root.manager.disable
        logging.disable(logging.ERROR)

    def __exit__(self, *reason: Any) -> None:
        logging.disable(self.level)
        super().__exit__(*reason)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
