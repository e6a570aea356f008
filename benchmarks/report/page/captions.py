"""Captions that explain how to read each figure, and the alternative texts of the pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmarks.report.figures.overlay import points_caption
from benchmarks.report.figures.ranges import MIN_BIN_COUNT, spans
from benchmarks.report.figures.selection import drawn, plotted_scores, selection_note
from benchmarks.report.model import Results
from benchmarks.report.tables.shift import levels
from benchmarks.report.training import NOT_RECORDED


@dataclass(frozen=True)
class Caption:
    """What a figure shows: a title, how to read it, and the alternative text."""

    title: str
    text: str
    alt: str


_FRONT = (
    "The black line is the Pareto front of the methods: no other method is as good at less cost, or better at the same "
    "cost. Names of methods that are not on the front are grey. The dashed line is the deep ensemble, the reference; "
    "ensembles that cost more than the methods are not drawn. Rings mark the front of methods and deep ensembles "
    "together. The fronts are estimates: bars are 95 % intervals, and points whose bars overlap may change places."
)


def captions(results: Results) -> dict[str, Caption]:
    """Return the caption of each figure that the report has, in its order."""
    chosen, results = selection_note(results), drawn(results)
    found = _classification(results) if results.classifies else _task(results)
    return {name: replace(one, text=one.text + chosen) for name, one in found.items()}


def _not_drawn(frame: pd.DataFrame, cost: str, why: str) -> str:
    """A sentence, after a space, on the labels whose cost is not known."""
    known = frame["label"][np.isfinite(frame[cost])]
    names = dict.fromkeys(label for label in frame["label"] if label not in set(known))
    return f" Not drawn, since {why}: {', '.join(names)}." if names else ""


def _classification(results: Results) -> dict[str, Caption]:
    labels = ", ".join(dict.fromkeys(results.main["label"]))
    controls = results.summary["control"].any()
    dots = " Grey dots are the controls that the table lists." if controls else ""
    left_out = " Controls are left out; the tables have them." if controls else ""
    censored = "The grey band at the bottom holds methods whose NLL is worse than one network's (DEE < 1)"
    known = results.others[results.others["macs_rel"].notna()]
    if (known[list(results.curves_of("main"))] == float("inf")).any().any():
        censored += f", the one at the top those better than the largest ensemble (DEE > {results.max_size})"
    enlarged = " The right panel enlarges the crowded range of costs." if spans(results)[1] else ""
    unknown = _not_drawn(results.others, "macs_rel", "the cost is not known")
    untold = _not_drawn(results.others, "train_member_equivalents", f"the training cost is {NOT_RECORDED}")
    found = {
        "dee_vs_flops": Caption(
            "What a method is worth, and what it costs",
            "Deep-ensemble equivalent (the number of ensemble members that reach the same NLL) against FLOPs relative "
            "to one network; above on raw NLL (filled), below after temperature scaling (hollow). The dashed line is "
            f"the deep ensemble: a method above it is worth more than it costs.{enlarged} The number after a name is "
            "the method's size; three sizes or more are connected. Bars are 95 % intervals that include the "
            "uncertainty of the ensembles' curve; of bars "
            f"at the same cost, longer ones are thinner. {censored}; arrows mark values and intervals that "
            f"continue.{dots}{unknown}{points_caption(results)}",
            f"Two scatter plots of deep-ensemble equivalent against relative FLOPs for {labels}.",
        ),
        "pareto_flops": Caption(
            "Quality and cost of a prediction",
            "Test NLL (left, lower is better) and deep-ensemble equivalent (right, higher is better), raw above and "
            f"after temperature scaling below, against FLOPs relative to one network. {_FRONT}{dots}{unknown}",
            f"Four scatter plots of NLL and deep-ensemble equivalent against relative FLOPs for {labels}.",
        ),
        "pareto_training": Caption(
            "Quality and cost of training",
            "As above, against training in trainings of one member: the members that a method needs, a third for each "
            "pass of a frozen teacher, and its own training. The cost of the trained network is not recorded, so that "
            "of a prediction counts: exact for students, too much for bridges. Each point is an upper bound. The "
            "dotted line is the method's own training; it starts at the cost of its members and teachers. Front and "
            f"rings as above.{dots}{untold}",
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
            "Calibration",
            "Accuracy minus confidence in each confidence bin, pooled over repetitions: below zero a method is "
            "overconfident, above zero underconfident. Filled markers are raw, hollow ones temperature-scaled; ECE is "
            "given as raw → scaled. The faint bars count the examples of a bin on a logarithmic scale; bins with "
            f"fewer than {MIN_BIN_COUNT} examples are left out." + left_out,
            f"Reliability diagrams, one panel each for {labels}.",
        ),
        "training_cost": Caption(
            "Training cost",
            "Left: training time by method and size (in parentheses); the number is the total. Grey: the ensemble "
            "members that a method needs as teachers or end points. All methods share them, but each is charged for "
            "them here. Colour: the method's own training. The seconds are those of the machine that trained each "
            "part, and parts may come from different machines: compare times only if the protocol names one machine, "
            "and else the examples on the right. Right: examples that passed through what the method trains (forward "
            "and backward, full colour) and through its teachers (forward alone, pale)." + left_out,
            f"Stacked bars of training time and example-passes for {labels}.",
        ),
    }
    if results.risk_coverage is not None:
        found["risk_coverage"] = Caption(
            "Errors that confidence does not catch",
            "Left: the share of errors (lower is better) among the accepted test images, where the most confident ones "
            "are accepted first. Right: the share of all images that are both wrong and accepted, minus that of one "
            "network; the area under this curve is the difference in AUGRC. Means over repetitions; the table has "
            "intervals." + left_out,
            f"Two line plots of errors against coverage for {labels}.",
        )
    if levels(results):
        found["severity"] = Caption(
            "Quality under corruption",
            "Raw accuracy, NLL and ECE on test images of increasing corruption, each the mean over the corruptions, "
            "and the deep-ensemble equivalent (DEE) on the NLL of the same images: the ensembles see the same "
            "corrupted images. Level 0 is the clean test images. Bars are 95 % intervals; an arrow at an edge marks "
            "an equivalent below one network or above the largest ensemble." + left_out,
            f"Four line plots of accuracy, NLL, ECE and deep-ensemble equivalent against severity for {labels}.",
        )
    return found


def _task(results: Results) -> dict[str, Caption]:
    task, found = results.task, {}
    labels = ", ".join(dict.fromkeys(results.main["label"]))
    if scores := plotted_scores(results):
        names = ", ".join(task.scores[name].title for name in scores)
        found["scores_vs_cost"] = Caption(
            "Scores against " + ("size" if task.axis[0] == "size" else "cost"),
            f"Each score against {task.axis[1]}; bars, and the band of the reference, are 95 % intervals. Lines "
            "connect the sizes of a method. Controls are left out."
            + _not_drawn(results.main, task.axis[0], "the cost is not known"),
            f"Line plots of {names} for {labels}.",
        )
        if results.main["size"].nunique() > 1 and task.axis[0] != "size":
            found["scores_vs_size"] = Caption(
                "Scores against size", "As above, against the size of the ensemble.", f"The same by size, {labels}."
            )
    stored = {name for arrays in results.samples.values() for name in arrays}
    for name, exhibit in task.sample_figures.items():
        if name in stored:
            found[name] = Caption(exhibit["title"], exhibit["text"], f"{exhibit['title']}: a panel each.")
    return found
