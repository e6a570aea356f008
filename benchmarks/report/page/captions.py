"""Captions that explain how to read each figure, and the texts that stand for it where it cannot be seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchmarks.report.figures.overlay import points_caption
from benchmarks.report.figures.ranges import MIN_BIN_COUNT, spans
from benchmarks.report.figures.selection import drawn, selected
from benchmarks.report.load import Results
from benchmarks.report.tables.shift import levels
from benchmarks.report.training import NOT_RECORDED


@dataclass(frozen=True)
class Caption:
    """What a figure shows: a title, how to read it, and the alternative text."""

    title: str
    text: str
    alt: str


FRONT_CAPTION = (
    "The black line is the Pareto front of the methods: no other method is as good at less cost, or better at the "
    "same; the names of the others are grey. Rings mark what is on the front when deep ensembles, the dashed "
    "yardstick, take part as well; dearer ones than the methods are not drawn. The front is one of estimates: bars "
    "are 95 % intervals, and neighbours whose bars overlap may change places."
)


def _unrecorded(results: Results) -> str:
    rows = results.others[results.others["train_member_equivalents"].isna()]
    names = ", ".join(dict.fromkeys(rows["label"]))
    return f" Training cost {NOT_RECORDED}, hence not drawn: {names}." if names else ""


def captions(results: Results) -> Mapping[str, Caption]:
    """Return the caption of each figure, in the order in which the report shows them."""
    chosen = selected(results)
    return {name: replace(one, text=one.text + chosen) for name, one in _captions(drawn(results)).items()}


def _captions(results: Results) -> Mapping[str, Caption]:
    labels = ", ".join(dict.fromkeys(results.main["label"]))
    controls = results.summary["control"].any()
    dots = " Grey dots are the controls that the table lists." if controls else ""
    left_out = " Controls are left out; the tables have them." if controls else ""
    censored = "the grey band at the bottom holds methods whose NLL is worse than one network's (DEE < 1)"
    known = results.others[results.others["macs_rel"].notna()]
    if (known[["dee_raw", "dee_cal"]] == float("inf")).any().any():
        censored += f", the one at the top those better than the largest ensemble (DEE > {results.max_size})"
    enlarged = "; the costs at which most of them crowd are enlarged on the right" if spans(results)[1] else ""
    unknown = results.others[results.others["macs_rel"].isna()]
    absent = ", ".join(dict.fromkeys(unknown["label"]))
    omitted = f" Without a known cost, hence not drawn: {absent}." if absent else ""
    return {
        "dee_vs_flops": Caption(
            "What a method is worth, and what it costs",
            "Deep-ensemble equivalent (how many ensemble members reach the same NLL) against FLOPs relative to one "
            "network; above on raw NLL (filled), below after temperature scaling (hollow). The dashed line is the "
            "deep ensemble itself: above it, a method is worth more than it costs. Every point stands at its cost"
            f"{enlarged}. After a name stands the method's size; bars are 95 % intervals, "
            "of method and ensembles' curve together, a longer one thinner than a shorter one at the same cost; "
            f"{censored}; an arrow says that a value or an interval goes on."
            + dots
            + omitted
            + points_caption(results),
            f"Two scatter plots of deep-ensemble equivalent against relative FLOPs for {labels}.",
        ),
        "pareto_flops": Caption(
            "Quality and what a prediction costs",
            "Test NLL (left, lower is better) and deep-ensemble equivalent (right, higher is better), raw above and "
            f"after temperature scaling below, against FLOPs relative to one network. {FRONT_CAPTION}{dots}{omitted}",
            f"Four scatter plots of NLL and deep-ensemble equivalent against relative FLOPs for {labels}.",
        ),
        "pareto_training": Caption(
            "Quality and what training costs",
            "As above, against training in trainings of one member: the members that a method needs, a third for each "
            "pass of a frozen teacher, and its own training. What the trained network costs is not recorded and is "
            "taken to be what a prediction costs: exact for students, too much for bridges, so every point stands at "
            "most there; the dotted line is the method's own training, and begins where its members and teachers "
            f"end. Front and rings as above.{dots}{_unrecorded(results)}",
            f"Four scatter plots of NLL and deep-ensemble equivalent against training cost for {labels}.",
        ),
        "nll_vs_size": Caption(
            "NLL against ensemble size",
            "Test NLL (lower is better), raw and after temperature scaling, against the number of members that a "
            "method covers. Bars, and the band of the deep ensemble, are 95 % intervals; the small dots are single "
            "repetitions." + left_out,
            f"Two line plots of NLL against ensemble size for {labels}.",
        ),
        "acc_vs_size": Caption(
            "Accuracy against ensemble size",
            "Test accuracy (higher is better), drawn as the NLL above.",
            f"Line plot of accuracy against ensemble size for {labels}.",
        ),
        "reliability": Caption(
            "Where confidence and accuracy part",
            "Accuracy minus confidence in each of the confidence bins, pooled over repetitions: below zero a method "
            "is too sure of itself, above zero not sure enough. Filled markers are raw, hollow ones "
            "temperature-scaled, and ECE is given as raw → scaled. The faint bars count the examples of a bin "
            f"on a logarithmic scale; bins with fewer than {MIN_BIN_COUNT} examples are left out." + left_out,
            f"Reliability diagrams, one panel each for {labels}.",
        ),
        "training_cost": Caption(
            "What training cost",
            "Left: training time by method and size (in parentheses), the number is the total. Grey: the ensemble "
            "members that a method needs as teachers or end points, shared by all methods in practice but charged to "
            "each here. Colour: the method's own training. Right: examples that went through what the method trains "
            "(forward and backward, full colour) and through its teachers (forward alone, pale)." + left_out,
            f"Stacked bars of training time and example-passes for {labels}.",
        ),
        **_shifted(results, labels, left_out),
    }


def _shifted(results: Results, labels: str, left_out: str) -> dict[str, Caption]:
    if not levels(results):
        return {}
    text = (
        "Accuracy, NLL and ECE, raw, on the test images corrupted more and more, each the mean over the corruptions, "
        "and the deep-ensemble equivalent (DEE) on the NLL of the same images: the ensembles are corrupted as well. "
        "Level 0 is the clean test images. Bars are 95 % intervals; an arrow at an edge stands for an "
        "equivalent below one network or above the largest ensemble."
    )
    alt = f"Four line plots of accuracy, NLL, ECE and deep-ensemble equivalent against severity for {labels}."
    return {"severity": Caption("Quality under corruption", text + left_out, alt)}
