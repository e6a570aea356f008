"""Cost of one prediction: parameters, multiply-adds and FLOPs of a whole predictor.

MACs are those of convolutions, linear layers, matrix products and attention, as fvcore counts them; FLOPs = 2 MACs.
torch's FlopCounterMode counts the same operations independently, and both must agree: an operation that one of them
skips raises an error.  Neither sees work outside torch: a method that leaves torch states its cost itself, and results
mark that cost as stated.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from dbn_core.errors import BenchError

# fvcore's operators that multiply and add; its counts for norms, pooling and upsampling are left out.
_MAC_OPERATORS = {"conv", "addmm", "linear", "mm", "bmm", "matmul", "einsum", "baddbmm", "attention"}
# Products that fvcore skips and torch's counter may skip as well, so that both would agree on too little.
_UNCOUNTED = {
    *("_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    *("bilinear", "mv", "addmv", "addbmm", "dot", "vdot", "inner", "cdist", "pdist", "tensordot"),
    *("linalg_multi_dot", "chain_matmul"),
}
# Calls by which a tensor leaves torch: to NumPy and to other array libraries.
_WAYS_OUT = {"numpy", "__array__", "__dlpack__"}


class CostError(BenchError):
    """The FLOPs of a predictor cannot be counted."""


@dataclass(frozen=True)
class Cost:
    """Cost of one example: stored parameters, multiply-adds, FLOPs (= 2 MACs)."""

    params: int
    macs: int

    @property
    def flops(self) -> int:
        """Floating-point operations of convolutions and matrix products."""
        return 2 * self.macs

    def __add__(self, other: Cost) -> Cost:
        """The cost of doing both."""
        return Cost(self.params + other.params, self.macs + other.macs)


class _WaysOut(TorchFunctionMode):
    """Records by which calls a forward pass leaves torch."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _WAYS_OUT:
            self.taken.add(name)
        return func(*args, **(kwargs or {}))


def count_parameters(predictor: nn.Module) -> int:
    """Parameters of a module; shared ones count once."""
    return sum(parameter.numel() for parameter in {id(p): p for p in predictor.parameters()}.values())


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """MACs of softmax(q k^T) v for q [..., L, E], k [..., S, E] and v [..., S, V], for which fvcore has no rule."""
    from fvcore.nn.jit_handles import get_shape

    (*batch, queries, width), keys, values = (get_shape(value) for value in inputs[:3])
    return Counter({"attention": math.prod(batch) * queries * keys[-2] * (width + values[-1])})


@torch.no_grad()
def count_in_torch(predictor: nn.Module, example: torch.Tensor) -> Cost:
    """Cost of a forward pass on ``example`` [1, C, H, W] by torch's counter: all work inside torch."""
    # As plain products: fused attention on a CPU is not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        predictor.eval()(example)
    return Cost(count_parameters(predictor), int(counter.get_total_flops()) // 2)


def predictor_cost(
    predictor: nn.Module, example: torch.Tensor, state: Callable[[Cost], Any], name: str
) -> tuple[Cost, bool]:
    """Cost of a method's predictor on ``example`` [1, C, H, W], and whether the method states it itself.

    A stated cost must be at least what torch's counter found.

    Args:
        state: the method's ``cost``: from the count in torch to a stated cost, or None to accept the count.
        name: of the method, for error messages.

    Raises:
        CostError: as :func:`measure_cost`, or the stated cost is no :class:`Cost`, or too low.
    """
    counted = count_in_torch(predictor, example)
    stated = state(counted)
    if stated is None:
        return measure_cost(predictor, example, counted), False
    if not isinstance(stated, Cost):
        raise CostError(f"Method '{name}': cost() returned {type(stated).__name__}: return a Cost, or None.")
    for field in ("params", "macs"):
        value, least = getattr(stated, field), getattr(counted, field)
        if not isinstance(value, int) or value < least:
            raise CostError(
                f"Method '{name}': cost() states {field} = {value!r}, less than the {least:,} in torch alone: return "
                "`counted` plus whole numbers for the work outside torch."
            )
    return stated, True


def measure_cost(predictor: nn.Module, example: torch.Tensor, counted: Cost | None = None) -> Cost:
    """Count a forward pass on ``example`` [1, C, H, W].

    Args:
        counted: the result of :func:`count_in_torch`, if known; counting a sampler takes seconds.

    Raises:
        CostError: fvcore and torch disagree by more than 0.1 %, so that one of them skipped an operation, or the
            forward pass contains a product that neither counts, leaves torch, or cannot be traced.
    """
    with warnings.catch_warnings():  # its import calls a deprecated part of torch
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis
    predictor = predictor.eval()
    with torch.no_grad(), _WaysOut() as ways_out:
        predictor(example)
    if ways_out.taken:
        raise CostError(
            f"FLOPs cannot be counted: the forward pass leaves torch through {', '.join(sorted(ways_out.taken))}(), "
            "where operations are not counted: state the whole cost in Method.cost()."
        )
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fvcore_log = logging.getLogger("fvcore")
        level = fvcore_log.level
        fvcore_log.setLevel(logging.ERROR)
        try:
            analysis = FlopCountAnalysis(predictor, example)
            analysis.set_op_handle("aten::scaled_dot_product_attention", _attention)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            macs = sum(count for name, count in analysis.by_operator().items() if name in _MAC_OPERATORS)
            skipped = sorted(name.removeprefix("aten::") for name in analysis.unsupported_ops())
        except Exception as error:  # the tracer's errors are of many types
            raise CostError(
                f"FLOPs cannot be counted: the predictor cannot be traced ({type(error).__name__}: "
                f"{str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}): write it with plain "
                "tensors in and out, or state the cost in Method.cost()."
            ) from error
        finally:
            fvcore_log.setLevel(level)
    total = 2 * (counted or count_in_torch(predictor, example)).macs
    uncounted = sorted(_UNCOUNTED & set(skipped))
    if uncounted or abs(total - 2 * macs) > 1e-3 * max(total, 1):
        raise CostError(
            f"FLOPs cannot be counted: fvcore counts 2 x {macs:,.0f}, torch counts {total:,}; fvcore skipped "
            f"{', '.join(uncounted or skipped) or 'no operation'}. Write the predictor with convolutions, "
            "linear layers and plain matrix products, or state its cost in Method.cost()."
        )
    return Cost(count_parameters(predictor), int(macs))
