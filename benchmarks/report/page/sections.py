"""The content of a report, the same for the HTML and the Markdown page: sections of texts, figures and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.report.model import Results
from benchmarks.report.page.captions import Caption
from benchmarks.report.page.summary import selection_summary, summary
from benchmarks.report.tables import main, shift
from benchmarks.report.tables.budget import budget_note, budget_table
from benchmarks.report.tables.formatting import ReportTable
from benchmarks.report.tables.published import published_notes, published_table
from benchmarks.report.tables.records import recorded_tables
from benchmarks.report.tables.runtimes import runtimes_table, slower_than_flops
from benchmarks.report.tables.uncertainty import uncertainty_table


@dataclass(frozen=True)
class PagePart:
    """One of a text, a list of lines, a figure by its name, and a table.

    Attributes:
        kind: "text", "lines", "figure", "table" or "explorer".
        text: of a text; or the note under a table.
        name: of a figure; or of a table, for screen readers.
        files: the files of `tables/` that hold a table, without their folder.
    """

    kind: str
    text: str = ""
    lines: tuple[str, ...] = ()
    name: str = ""
    table: ReportTable | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    title: str
    parts: list[PagePart]

    @property
    def anchor(self) -> str:
        """Target of links to the section."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


def _text(*sentences: str) -> PagePart:
    return PagePart("text", " ".join(filter(None, sentences)))


def _lines(lines: Iterable[str]) -> PagePart:
    return PagePart("lines", lines=tuple(lines))


def _figures(*names: str) -> list[PagePart]:
    return [PagePart("figure", name=name) for name in names]


def _table(table: ReportTable, name: str, note: str = "", files: str = "") -> PagePart:
    return PagePart("table", note, name=name, table=table, files=tuple(files.split()))


def sections(results: Results, budgets: pd.DataFrame, captions: Mapping[str, Caption]) -> list[Section]:
    """Return the sections that the results have something for."""
    found = [
        Section("Summary", [_text(*summary(results)), *_summary_figures(results, captions)]),
        Section("Explore", [PagePart("explorer")]),
        _scores(results),
        _times(results),
        _equal_cost(results, budgets),
        _sizes(results),
        _uncertainty(results),
        _differences(results),
        *_shifted(results),
        _published(results),
        _recorded(results),
    ]
    return [section for section in found if section.parts]


def _summary_figures(results: Results, captions: Mapping[str, Caption]) -> list[PagePart]:
    return _figures("dee_vs_flops") if results.classifies else _figures(*captions)


def _scores(results: Results) -> Section:
    frame = results.summary
    noisy = bool(frame["latency_noisy"].any() or (results.meta.get("latency") or {}).get("noisy"))
    ranking = (
        f"Bold: best mean among the methods that are not the reference. Underlined: not significantly different from "
        f"it ({results.test})."
    )
    note = [
        "Nothing is ranked." if results.lite else ranking,
        "↑ higher is better, ↓ lower is better; “rel.” is relative to one network of the reference.",
        "A tilde (~) marks a latency whose measurement was noisy: read it as an order of magnitude." if noisy else "",
        "An asterisk marks a cost that was stated, not counted." if frame["cost_stated"].any() else "",
        "Each control answers one question about another method." if frame["control"].any() else "",
        "Seconds are those of the machine that trained the part.",
        main.fewer_repetitions(results),
    ]
    parts = [
        _table(
            main.main_table(results),
            "Scores and cost of every method",
            " ".join(filter(None, note)),
            "main.csv main.tex",
        )
    ]
    if tuning := main.tuning_table(results):
        parts += [_text("How the settings of each method were chosen, counting the one that is shown:")]
        parts += [_table(tuning, "How settings were chosen")]
    return Section("Scores and cost", parts)


def _times(results: Results) -> Section:
    table = runtimes_table(results) if results.classifies else None
    if table is None:
        return Section("", [])
    note = (
        "Median times on the machine named below, of the deployable form of each method: BatchNorms folded into "
        "convolutions, constants precomputed. The best runtime is the one in which the method is fastest; the ratio is "
        "to one network in the same runtime."
    )
    if (results.meta.get("latency") or {}).get("other_machines"):
        note += (
            " What was timed on another machine is named there, too, and its ratio is to one network on that machine."
        )
    parts = [_table(table, "Time of one prediction in each runtime", note), _lines(slower_than_flops(results))]
    return Section("Time of one prediction", parts)


def _equal_cost(results: Results, budgets: pd.DataFrame) -> Section:
    if not results.classifies or results.lite:
        return Section("", [])
    parts = _figures("pareto_flops", "pareto_training")
    if table := budget_table(results, budgets):
        parts += [_text("The best row within a budget of training and a budget of prediction:")]
        parts += [_table(table, "Best within a budget", budget_note(results), "budgets.csv budgets.tex")]
    return Section("Equal cost", parts)


def _sizes(results: Results) -> Section:
    if not results.classifies:
        return Section("", [])
    parts = _figures("nll_vs_size", "acc_vs_size", "reliability", "training_cost")
    note = "Bold and underlined as above."
    parts += [_table(main.sizes_table(results), "Scores by ensemble size", note, "sizes.csv sizes.tex")]
    return Section("Ensemble size, calibration and training", parts)


def _uncertainty(results: Results) -> Section:
    title = "Selective prediction and uncertainty"
    if not results.classifies:
        return Section(title, [])
    table = uncertainty_table(results)
    if table is None:
        return Section(title, [_text("Not computed: the predictions behind these rows are not stored.")])
    note = (
        "AUGRC, AURC and risk rate the order of confidences together with accuracy; a temperature hardly changes them, "
        "so the DEE on AUGRC cannot be earned by calibration. smECE is a smooth ECE, csmECE that after temperature "
        "scaling. MI and disagreement are between the members of a prediction, and empty for one; compare MI at equal "
        "size. Smaller sets are better where their coverage is near 95 %. Bold and underlined as above; definitions "
        "are below."
    )
    parts = [_text(selection_summary(results)), *_figures(*["risk_coverage"] * (results.risk_coverage is not None))]
    parts += [_table(table, title, note, "uncertainty.csv uncertainty.tex")]
    return Section(title, parts)


def _differences(results: Results) -> Section:
    table = main.comparisons_table(results)
    note = (
        f"Method minus reference, with a 95 % interval and p-value ({results.test}). Bold: significantly better than "
        "the reference; underlined: not significantly different; plain: significantly worse."
    )
    part = _table(table, "Paired differences to the references", note, "comparisons.csv")
    return Section("Differences", [part if table.blocks else _text("No paired differences were computed.")])


def shift_tables(results: Results) -> dict[str, ReportTable]:
    """The tables of shifted images that there are, by the name of their file."""
    found = {
        "severity": shift.severity_table(results),
        "corruptions": shift.corruptions_table(results),
        "outside": shift.detection_table(results),
    }
    return {name: table for name, table in found.items() if table is not None}


def _shifted(results: Results) -> list[Section]:
    tables = shift_tables(results)
    if not tables:
        return []
    images = (results.meta.get("shift") or {}).get("images", "all")
    parts = [_text(*shift.sentences(results))]
    if "severity" in tables:
        note = (
            f"The first {images} test images, clean and corrupted (noise, blur, contrast, JPEG: formulas and constants "
            "of CIFAR-10-C, Hendrycks and Dietterich, 2019; docs/shift.md). The values of a level are means over the "
            "corruptions. The temperatures of cNLL and cECE are fitted on clean validation images. DEE compares with "
            "deep ensembles on the same images. The last column is the share of the gain in NLL that a deep ensemble "
            "of the method's size has over one network, with an interval by Fieller's method; the interval is infinite "
            "if the gain itself is uncertain."
        )
        parts += [*_figures("severity"), _table(tables["severity"], "Quality against severity", note)]
        parts += [_text("By corruption:"), _table(tables["corruptions"], "Quality under each corruption")]
    if "outside" in tables:
        blocks = tables["outside"].blocks
        only = f" ({blocks[0].title})" if len(blocks) == 1 else ""
        by = ["by the largest probability", "by the predictive entropy"]
        by += ["of several members by their mutual information"] * any("mutual" in x for x in tables["outside"].header)
        note = (
            "Detection of as many out-of-distribution images as there are test images, "
            f"{', '.join(by[:-1])} and {by[-1]}. Clean test images are the "
            "positive class; FPR95 is the share of the others that pass at the threshold that 95 % of the test images "
            "pass. The scores are of whole sets, so their intervals cover other trainings and not other images."
        )
        if results.shifts is not None and pd.isna(results.shifts["low"])[results.shifts["metric"] == "auroc_mi"].any():
            note += (
                " Repetitions share a pool, and a member alone has no mutual information, so how detection by it "
                "varies with the pool cannot be estimated: it has no interval."
            )
        parts += [_text(f"Out-of-distribution images{only}:")]
        parts += [_table(tables["outside"], "Detection of out-of-distribution images", note)]
    parts.append(PagePart("text", "All of it, at every level and for every set:", files=("shifts.csv",)))
    return [Section("Under shift", parts)]


def _published(results: Results) -> Section:
    table = published_table(results)
    if table is None or results.published is None:
        return Section("", [])
    parts = [
        _text(
            f"What the papers' artefacts and reviews say for {results.published.data}, under our rows of the same "
            "method family and size. Published methods and sizes that this suite does not measure are left out."
        ),
        _table(table, "Published figures", files="published.csv published.tex"),
    ]
    if results.published.differences:
        parts += [_text("How the protocols differ:"), _lines(results.published.differences)]
    return Section("Published figures", [*parts, _text("How to read it:"), _lines(published_notes(results))])


def _recorded(results: Results) -> Section:
    parts = []
    for one in recorded_tables(results):
        parts += [_table(one.table, f"Recorded by {one.method}"), _lines(one.meanings)]
    if parts:
        first = _text(
            "Numbers that methods recorded in training; no score depends on them. Means over repetitions ± half of a "
            "95 % t interval. A training that several methods share has one row."
        )
        parts = [first, *parts, PagePart("text", "All of them, by repetition:", files=("records.csv",))]
    return Section("Recorded in training", parts)


def gaps(meta: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What failed, with its reason, and what this run did not make."""
    failures = [failure for failure in meta.get("failures") or [] if isinstance(failure, Mapping)]
    failed, left = [], []
    for failure in failures:
        cell, reason = failure.get("cell", "a cell"), str(failure.get("reason", "no reason was recorded"))
        if reason.startswith("not made"):
            left.append(str(cell))
        else:
            failed.append(f"{cell}: {reason}")
    return failed, left


def commands(meta: Mapping[str, Any]) -> list[str]:
    """The commands that make the rows and this report, as a reader runs them, without the places of committed files."""
    given = (str(meta.get(name) or "") for name in ("command", "report_command"))
    return [re.sub(r" --publish| --rows results/reference/\S+", "", command) for command in given if command]


def conventions(results: Results) -> list[str]:
    """How numbers are made and shown, a sentence or some each."""
    lines = [
        "A value is the mean over repetitions ± half of its 95 % interval; square brackets hold a 95 % interval. "
        "With one repetition there is no interval.",
        *results.statistics,
        *(f"{score.title}: {score.meaning}" for score in results.scores.values() if score.meaning),
    ]
    if not results.classifies:
        return lines
    return [
        *lines,
        "ACC: top-1 accuracy. NLL: mean negative log-likelihood. BS: Brier score summed over the classes, from 0 to 2. "
        "ECE: expected calibration error of the top label with 15 equal-width bins, a fraction shown in %. "
        "A leading c marks a score after temperature scaling, fitted on the validation split.",
        "KL to ensemble: mean Kullback-Leibler divergence from the full ensemble's prediction to the method's.",
        "DEE (deep-ensemble equivalent): the number of members, linearly interpolated, at which a deep ensemble of "
        "this suite has the method's NLL; (calibrated) uses NLL after temperature "
        f"scaling{', (AUGRC) the AUGRC' if results.curves_of('uncertainty') else ''}. It is censored outside the "
        f"measured curve: < 1 is worse than one network, > {results.max_size or 'M'} is better than the largest "
        "ensemble. Its interval includes the uncertainty of the curve. Fitted: on the curve that least squares, "
        "weighted by M², fit to the ensembles of M members, where the measured curve is censored.",
        "FLOPs = 2 multiply-adds, per example, for the whole predictor with every member and every sampler step; "
        "relative values and latency ratios are to one member.",
        "Own training: seconds of the method's own training, without the members that it needs.",
        "Training in members: the examples that pass through the members that a method needs, plus a third of those "
        "that pass through frozen teachers (a backward pass takes twice a forward pass), plus those that pass through "
        "what it trains times the relative FLOPs of its predictor, over the passes of one member. The last part is "
        "exact if the trained network is the predictor, and an upper bound otherwise. The choice of settings is not "
        "counted.",
    ]
