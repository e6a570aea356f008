"""One-file checkpoints: tensors and JSON in safetensors, written to a temporary file and renamed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dbn_core.files import atomic_write
from dbn_core.tensors import Tensors, pack, unpack


def write_checkpoint(path: Path, groups: Mapping[str, Mapping[str, torch.Tensor]], meta: Mapping[str, Any]) -> None:
    """Store named groups of tensors and a JSON value; raises PluginError for an entry that cannot be stored."""
    tensors = {f"{group}/{name}": tensor for group, members in groups.items() for name, tensor in members.items()}
    atomic_write(path, pack(tensors, {"meta": json.dumps(meta)}))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]] | None:
    """Groups and JSON value, or ``None`` when there is no readable checkpoint (training then starts afresh)."""
    if not path.is_file():
        return None
    try:
        groups: dict[str, Tensors] = {}
        tensors, metadata = unpack(path.read_bytes())
        meta = json.loads(metadata["meta"])
        for key, tensor in tensors.items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = tensor
    except Exception:  # a checkpoint only saves time: a damaged one is worth no more than none
        return None
    return groups, meta


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """The per-parameter state of an optimiser, flat: ``"3/momentum_buffer"``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}/{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Inverse of :func:`optimizer_tensors`."""
    full = optimizer.state_dict()
    for key, value in tensors.items():
        index, _, name = key.partition("/")
        full["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(full)
