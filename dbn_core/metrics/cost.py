"""What one prediction costs: parameters, multiply-adds and FLOPs of a whole predictor.

MACs are those of convolutions, linear layers, matrix products and attention, as fvcore counts them; FLOPs = 2 MACs.
torch's own FlopCounterMode counts the same operations by another route, and the two must agree: an operation that one
of them skipped is an error here, never a zero.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dbn_core.errors import BenchError

# fvcore's operators that multiply and add; its counts for norms, pooling and upsampling are left out.
_MAC_OPERATORS = {"conv", "addmm", "linear", "mm", "bmm", "matmul", "einsum", "baddbmm"}
# Products that fvcore leaves out and that torch's counter may leave out as well, so that both agree on too little.
_UNCOUNTED = {
    *("_native_multi_head_attention", "_transformer_encoder_layer_fwd", "scaled_dot_product_attention"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    *("bilinear", "mv", "addmv", "addbmm", "dot", "vdot", "inner", "cdist", "pdist", "tensordot"),
    *("linalg_multi_dot", "chain_matmul"),
}


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


def measure_cost(predictor: nn.Module, example: torch.Tensor) -> Cost:
    """Count a forward pass on ``example`` [1, C, H, W].

    Raises:
        CostError: fvcore and torch disagree by more than 0.1 %, so that one of them skipped an operation, or the
            forward pass has a product that neither counts.
    """
    with warnings.catch_warnings():  # its import calls a deprecated part of torch
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis
    predictor = predictor.eval()
    params = sum(parameter.numel() for parameter in {id(p): p for p in predictor.parameters()}.values())
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fvcore_log = logging.getLogger("fvcore")
        level = fvcore_log.level
        fvcore_log.setLevel(logging.ERROR)
        try:
            analysis = FlopCountAnalysis(predictor, example)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            macs = sum(count for name, count in analysis.by_operator().items() if name in _MAC_OPERATORS)
            skipped = sorted(name.removeprefix("aten::") for name in analysis.unsupported_ops())
        finally:
            fvcore_log.setLevel(level)
        with FlopCounterMode(display=False) as counter:
            predictor(example)
    total = counter.get_total_flops()
    uncounted = sorted(_UNCOUNTED & set(skipped))
    if uncounted or abs(total - 2 * macs) > 1e-3 * max(total, 1):
        raise CostError(
            f"FLOPs cannot be counted: fvcore counts 2 x {macs:,.0f}, torch counts {total:,}; fvcore skipped "
            f"{', '.join(uncounted or skipped) or 'nothing it knows of'}. Write the predictor with convolutions, "
            "linear layers and plain matrix products."
        )
    return Cost(params, int(macs))
