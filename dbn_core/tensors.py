"""Named tensors as safetensors: what several names share is stored once, and found again under each of them.

A file without shared tensors is plain safetensors.  A tensor that several names share is stored under the first of
them, and the metadata map the others to it, as JSON: ``{"shared": {"head.weight": "network.head.weight"}}``.  Tensors
that overlap otherwise (a slice and its whole, a matrix and its transpose) are stored separately, with equal values.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from dbn_core.errors import PluginError

Tensors = dict[str, torch.Tensor]
_SHARED = "shared"


def pack(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Tensors from any device and metadata as the content of a safetensors file.

    Raises:
        PluginError: an entry that cannot be stored; see :func:`check_storable`.
    """
    check_storable(tensors)
    resolved = {name: tensor.detach().resolve_conj().resolve_neg() for name, tensor in tensors.items()}
    aliases, ready = sharing(resolved), Tensors()
    memory: set[int] = set()
    for name, tensor in resolved.items():
        if name in aliases:
            continue
        tensor = tensor.cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        # safetensors takes no two views of one memory.
        ready[name] = tensor.clone() if address in memory else tensor
        memory.add(address)
    notes = dict(metadata or {}) | ({_SHARED: json.dumps(aliases)} if aliases else {})
    return save(ready, notes or None)


def unpack(content: bytes) -> tuple[Tensors, dict[str, str]]:
    """Inverse of :func:`pack`: the tensors under all their names, on the CPU, and the metadata."""
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = dict(header.get("__metadata__", {}))
    for name, first in json.loads(metadata.pop(_SHARED, "{}")).items():
        tensors[name] = tensors[first]
    return tensors, metadata


def sharing(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Each name whose tensor is the very one (memory, shape and strides) of an earlier name, and that name."""
    first: dict[Hashable, str] = {}
    aliases = {}
    for name, tensor in tensors.items():
        if not tensor.numel():
            continue
        place = tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset()
        known = first.setdefault((*place, tensor.shape, tensor.stride(), tensor.dtype), name)
        if known != name:
            aliases[name] = known
    return aliases


def snapshot(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Copies that later changes do not reach, shared as the originals are."""
    aliases = sharing(tensors)
    copies = {name: tensor.clone() for name, tensor in tensors.items() if name not in aliases}
    return {name: copies[aliases.get(name, name)] for name in tensors}


def in_bf16(state: Mapping[str, torch.Tensor]) -> Tensors:
    """Kernels and matrices of a network rounded to bfloat16; everything else as it is.

    ``load_state_dict`` reads them into float32 exactly.  What holds one number a channel (biases, scales, shifts and
    statistics of norms) keeps its precision: it is a few per cent of the bytes, and an error in it moves a whole
    channel, while the errors of the many weights of a kernel mostly cancel.
    """
    return {
        name: tensor.bfloat16() if tensor.dtype == torch.float32 and sum(n > 1 for n in tensor.shape) > 1 else tensor
        for name, tensor in state.items()
    }


def in_fp16(log_probs: torch.Tensor) -> torch.Tensor:
    """Log-probabilities rounded to half precision: by at most 2^-11 of their size, or 2^-25 where they are tiny.

    What is finite stays finite.
    """
    lowest = torch.finfo(torch.float16).min
    return torch.where(log_probs.isinf(), log_probs, log_probs.clamp(min=lowest)).half()


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a storable tensor holds neither NaN nor infinity."""
    eight_bits = tensor.is_floating_point() and tensor.itemsize == 1  # torch has no isfinite for those
    return bool(torch.isfinite(tensor.float() if eight_bits else tensor).all())


def check_storable(state: Mapping[str, Any]) -> None:
    """Raise :class:`PluginError`, one sentence that names the entry, for what a safetensors file cannot hold."""
    for name, value in state.items():
        if what := _obstacle(value):
            raise PluginError(
                f"'{name}' is {what}, which cannot be stored: keep dense tensors of plain number types as parameters "
                "and buffers (or return those from fit()), and make the rest from them."
            )


def _obstacle(value: Any) -> str | None:
    if not isinstance(value, torch.Tensor):
        return f"no tensor but a {type(value).__name__}"
    if value.is_nested:
        return "a nested tensor"
    if value.layout != torch.strided:
        return f"a tensor of the layout {str(value.layout).removeprefix('torch.')}"
    if value.is_quantized:
        return "a quantised tensor"
    if value.is_meta:
        return "a tensor without data (on the meta device)"
    if not _known(value.dtype):
        return f"a tensor of type {str(value.dtype).removeprefix('torch.')}"
    return None


@cache
def _known(dtype: torch.dtype) -> bool:
    """Whether safetensors has this type; its versions differ."""
    try:
        save({"x": torch.empty(0, dtype=dtype)})
    except (KeyError, SafetensorError):
        return False
    return True
