"""Versions and hardware that measurements depend on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    *("dbn-bench", "torch", "torchvision", "fvcore", "numpy", "scipy", "pandas", "scikit-learn", "matplotlib"),
    *("onnx", "onnxruntime"),
)

# Runtimes in which predictions are timed, and the prefixes of their columns in the result rows.
RUNTIME_PREFIXES = {"eager": "latency", "compiled": "latency_compiled", "onnxruntime": "latency_onnxruntime"}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores and memory; the accelerator if one is used."""
    value: dict[str, Any] = {
        "processor": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if device.startswith("cuda"):
        import torch

        value["accelerator"] = torch.cuda.get_device_name()
    return value


def numerics(device: Any) -> dict[str, Any]:
    """What the bits of a training depend on besides its recipe: version and threads of torch, and the processor.

    Args:
        device: a :class:`torch.device`.
    """
    import torch

    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def computes_bf16() -> bool | None:
    """Whether the processor has bf16 products; without them torch emulates bf16.  None: unknown."""
    said = _cpu_info("flags") or _cpu_info("Features")  # the latter on ARM
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(said.split())) if said else None


def _cpu_model() -> str:
    return _cpu_info("model name") or platform.processor() or "unknown"


def _cpu_info(name: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""
