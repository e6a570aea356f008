"""What one prediction costs: parameters, multiply-adds and FLOPs of a whole predictor.

MACs are those of convolutions, linear layers, matrix products and attention, as fvcore counts them; FLOPs = 2 MACs.
torch's own FlopCounterMode counts the same operations by another route, and the two must agree: an operation that one
of them skipped is an error here, never a zero.  What a prediction does outside torch neither can see: a method that
leaves torch states that cost itself, and the statement is marked as one.
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
# Products that fvcore leaves out and that torch's counter may leave out as well, so that both agree on too little.
_UNCOUNTED = {
    *("_native_multi_head_attention", "_transformer_encoder_layer_fwd"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    *("bilinear", "mv", "addmv", "addbmm", "dot", "vdot", "inner", "cdist", "pdist", "tensordot"),
    *("linalg_multi_dot", "chain_matmul"),
}
# How a tensor's numbers get out of torch: to NumPy and what builds on it, and to other array libraries.
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
    """Notes which ways out of torch a forward pass takes."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _WAYS_OUT:
            self.taken.add(name)
        return func(*args, **(kwargs or {}))


def count_parameters(predictor: nn.Module) -> int:
    """Parameters of a module; one that is used twice counts once."""
    return sum(parameter.numel() for parameter in {id(p): p for p in predictor.parameters()}.values())


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """MACs of softmax(q k^T) v for q [..., L, E], k [..., S, E] and v [..., S, V], for which fvcore has no rule."""
    from fvcore.nn.jit_handles import get_shape

    (*batch, queries, width), keys, values = (get_shape(value) for value in inputs[:3])
    return Counter({"attention": math.prod(batch) * queries * keys[-2] * (width + values[-1])})


@torch.no_grad()
def count_in_torch(predictor: nn.Module, example: torch.Tensor) -> Cost:
    """What torch's own counter sees of a forward pass on ``example`` [1, C, H, W]: all that happens in torch."""
    # As plain products: fused attention on a CPU is not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        predictor.eval()(example)
    return Cost(count_parameters(predictor), int(counter.get_total_flops()) // 2)


def predictor_cost(
    predictor: nn.Module, example: torch.Tensor, state: Callable[[Cost], Any], name: str
) -> tuple[Cost, bool]:
    """Cost of a method's predictor on ``example`` [1, C, H, W], and whether the method states it itself.

    A stated cost is taken as it is, but never below what torch's counter saw.

    Args:
        state: what the method states, given what torch's counter saw; None where it leaves it at that.
        name: of the method, for messages.

    Raises:
        CostError: as :func:`measure_cost`, or the stated cost is none or too low.
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
                f"Method '{name}': cost() states {field} = {value!r} where torch alone has {least:,}: return "
                "`counted` plus whole numbers for what happens outside torch."
            )
    return stated, True


def measure_cost(predictor: nn.Module, example: torch.Tensor, counted: Cost | None = None) -> Cost:
    """Count a forward pass on ``example`` [1, C, H, W].

    Args:
        counted: what :func:`count_in_torch` says of it, where that is known already; a sampler takes seconds.

    Raises:
        CostError: fvcore and torch disagree by more than 0.1 %, so that one of them skipped an operation, or the
            forward pass has a product that neither counts, leaves torch, or cannot be traced.
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
            "and what happens there is not seen: state the whole cost in Method.cost()."
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
            f"{', '.join(uncounted or skipped) or 'nothing it knows of'}. Write the predictor with convolutions, "
            "linear layers and plain matrix products, or state its cost in Method.cost()."
        )
    return Cost(count_parameters(predictor), int(macs))
