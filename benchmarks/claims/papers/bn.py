"""Claims of Yun et al. (2023) on Bridge Networks."""

from __future__ import annotations

from benchmarks.claims.decide import Check, Rows
from benchmarks.claims.paper import Paper

PAPER = Paper(
    "bn",
    "BN",
    "Traversing Between Modes in Function Space for Fast Ensembling (Yun, Lee, Nam, Lee; ICML 2023)",
    "2306.11304",
    "Its NLL and deep-ensemble equivalents are calibrated (after temperature scaling), unlike the DBN paper's, so the "
    "two papers' DEE figures cannot be compared. Its figures here are of type I, where a bridge reads features of the "
    "source network alone.",
)


TINY = "TinyImageNet, ResNet-34; ImageNet, ResNet-50"


@PAPER.claim(
    "one bridge lowers the calibrated NLL",
    ("BN (small)", "BN (medium)"),
    data=TINY,
    why="Any lower NLL counts.",
    published="cNLL 1.478 (small) and 1.446 (medium) against 1.683 on TinyImageNet; 0.914 and 0.889 against 0.936 on "
    "ImageNet [NB]",
)
def bn_one_bridge_helps(rows: Rows, bn: str) -> Check:
    """One bridge of type I makes a network better in calibrated NLL."""
    return rows.gap("cnll", f"{bn}@2", "DE@1").below(0)


@PAPER.claim(
    "a small bridge is worth two members",
    ("BN (small)",),
    data="TinyImageNet, ResNet-34",
    published="DEE 2.28 (calibrated) at 1.050× FLOPs; on ImageNet 1.41 at 1.061× [DER]",
    why="The FLOPs may go up to 1.15×: in a network of few blocks, the same part of it weighs more.",
)
def bn_small_bridge_two_members(rows: Rows, bn: str) -> list[Check]:
    """One small bridge is worth more than two members of a deep ensemble, at a few percent more FLOPs."""
    return [rows.value("dee_cal", f"{bn}@2").above(2), rows.value("macs_rel", f"{bn}@2").below(1.15)]


@PAPER.claim(
    "a second bridge lowers it again",
    ("BN (small)", "BN (medium)"),
    data=TINY,
    why="Any lower NLL counts.",
    published="cNLL 1.478 → 1.421 (small) and 1.446 → 1.388 (medium) on TinyImageNet; 0.914 → 0.907 and 0.889 → 0.876 "
    "on ImageNet [NB]",
)
def bn_second_bridge_helps(rows: Rows, bn: str) -> Check:
    """A second bridge lowers the calibrated NLL again."""
    return rows.gap("cnll", f"{bn}@3", f"{bn}@2").below(0)


@PAPER.claim(
    "a medium bridge is better than a small one",
    ("BN (medium)@2",),
    data=TINY,
    why="Any lower NLL counts.",
    published="cNLL 1.446 at 1.180× against 1.478 at 1.050× on TinyImageNet; 0.889 against 0.914 on ImageNet [NB]",
)
def bn_medium_better_than_small(rows: Rows, bn: str) -> Check:
    """A medium bridge is better than a small one in calibrated NLL: there is quality to be had for FLOPs."""
    return rows.gap("cnll", bn, "BN (small)@2").below(0)


@PAPER.claim(
    "type II is better than its two networks",
    ("BN (type II)@2",),
    data="CIFAR-10, CIFAR-100, TinyImageNet, ImageNet",
    published="tables that could not be recovered [?]",
    why="Any lower NLL counts. Size 2 is two networks and the bridge between them.",
)
def bn_type_two_beyond_two(rows: Rows, bn: str) -> Check:
    """Two networks and a bridge of type II, which reads features of both, are better than the two networks alone."""
    return rows.gap("cnll", bn, "DE@2").below(0)
