"""Weights files of other programs: safetensors, or what ``torch.save`` wrote, read without running code."""

from __future__ import annotations

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from dbn_core.errors import DataError, PluginError, reason
from dbn_core.tensors import check_storable

# Under these keys training scripts keep the weights, next to the epoch and the optimiser's state.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
# Modules of what state dicts are made of.
_READABLE = ("torch", "torch._utils", "torch.storage", "collections")
# Prefixes that DataParallel, torch.compile and Lightning put in front of every name.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Named tensors of a file, on the CPU, without the wrappers and prefixes of training scripts.

    Raises:
        DataError: the file is missing, damaged, holds no weights or no dense real tensors, needs
            code to be read, or has NaN or infinite values.
    """
    if not path.is_file():
        raise DataError(f"There is no weights file {path}: check the path.")
    state = _safetensors(path) if path.suffix == ".safetensors" else _saved(path)
    try:
        check_storable(state)
    except PluginError as error:  # sparse, quantised, without data
        raise DataError(f"{path}: {str(error).partition(':')[0]}: save dense tensors.") from error
    for name, value in state.items():
        if value.is_complex():
            raise DataError(f"{path}: the tensor '{name}' is complex: save weights of real numbers.")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise DataError(f"{path}: the tensor '{name}' has NaN or infinite values: use another checkpoint.")
    return state


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is no safetensors file, or is damaged ({error}): save it again.") from error


def _saved(path: Path) -> dict[str, torch.Tensor]:
    try:
        with warnings.catch_warnings():  # about the protocol of a pickle that is no checkpoint
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            what = f"holds Python objects{_first_object(path)}, which only running code could read: save "
            what += "network.state_dict() instead"
        else:
            what = "is no file of torch.save, or is damaged: save network.state_dict() with torch.save"
        raise DataError(f"{path} {what}.") from error
    except Exception as error:  # the unpickler raises errors of many kinds on damaged bytes, IndexError among them
        first = reason(error).partition(". ")[0].rstrip(".") or type(error).__name__
        raise DataError(f"{path} is no file of torch.save, or is damaged ({first}): save it again.") from error
    return _plain(found, path)


def _first_object(path: Path) -> str:
    """The first object of a file that is no tensor, and its entry, in brackets; nothing where they are not found."""
    strings: list[str] = []
    with suppress(Exception), zipfile.ZipFile(path) as archive:  # other formats, and damaged files
        content = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        for opcode, value, _ in pickletools.genops(content):
            if "UNICODE" in opcode.name:
                strings.append(str(value))
            elif opcode.name == "GLOBAL" and (name := str(value)).split()[0] not in _READABLE:
                return f" ({f'the entry {strings[-1]!r} is ' if strings else ''}{name.replace(' ', '.')})"
    return ""


def _plain(found: Any, path: Path) -> dict[str, torch.Tensor]:
    while isinstance(found, Mapping) and not _is_state(found):
        inner = next((found[key] for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        found = inner
    if not isinstance(found, Mapping) or not _is_state(found):
        raise DataError(f"{path} holds no state dict of a network: save network.state_dict().")
    return {str(name): value for name, value in found.items()}


def _is_state(found: Mapping[Any, Any]) -> bool:
    return (
        bool(found)
        and all(isinstance(name, str) for name in found)
        and all(isinstance(value, torch.Tensor) for value in found.values())
    )


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a weights file into a network; every tensor must fit.

    Prefixes of wrappers (``module.``, ``_orig_mod.``, ...) are removed where the rest then fits.

    Raises:
        DataError: see :func:`read_weights`; or names or shapes differ from the network's.
    """
    state, own = read_weights(path), network.state_dict()
    for _ in range(len(_PREFIXES)):
        prefix = next((p for p in _PREFIXES if all(n.startswith(p) for n in state) and not set(state) & set(own)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    missing, foreign = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or foreign:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for names, what in ((missing, "tensors are missing"), (foreign, "tensors are unknown"))
            if names
        ]
        raise DataError(f"{path} does not fit the network: {' and '.join(parts)}. Name the network it was trained as.")
    others = {name: value for name, value in own.items() if value.shape != state[name].shape}
    for name, value in others.items():
        raise DataError(
            f"{path} does not fit the network: '{name}' has shape {list(state[name].shape)} instead of "
            f"{list(value.shape)}. {_why_other([(state[other].shape, own[other].shape) for other in others])}"
        )
    for name, value in own.items():
        if value.is_floating_point() and not state[name].is_floating_point():
            kind = str(state[name].dtype).removeprefix("torch.")
            raise DataError(f"{path} does not fit the network: '{name}' is of type {kind}: save the weights unrounded.")
    network.load_state_dict(state)


def _why_other(shapes: list[tuple[torch.Size, torch.Size]]) -> str:
    """What it means that a file's tensors have these shapes instead of the network's."""
    counts = {(given[:1], wanted[:1]) for given, wanted in shapes}
    matrix = any(len(given) == len(wanted) == 2 for given, wanted in shapes)
    if matrix and len(counts) == 1 and all(given[1:] == wanted[1:] for given, wanted in shapes):  # the last layer alone
        (given, wanted) = counts.pop()
        return f"It was trained on {given[0]} classes, and the data have {wanted[0]}: give the data of its training."
    return "Check the number of classes, the channels and the width."
