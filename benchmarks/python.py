"""A suite's results, networks and what-if ensembles from Python, in a few lines.

>>> from benchmarks import evaluate, load_predictions, load_results, mix
>>> results = load_results("cifar10-cpu")
>>> bool((results["n"] >= 1).all())
True
>>> predictions = load_predictions("cifar10-cpu", "DE@8")
>>> predictions.log_probs.shape, predictions.labels.shape
((8, 10000, 10), (10000,))
>>> row = evaluate(predictions.log_probs[:2], "cifar10-cpu")
>>> 1.5 < row.dee < 2.5
True
>>> two = mix("cifar10-cpu", {"DE@1": 0.5, "DE@3": 0.5})
>>> 1 < two.dee_raw.value < 3
True

A suite is a name or the path of a file.  Names of results are those of ``dbn-bench export`` and ``compare``:
METHOD@SIZE, by label, spec or name of the method.  ``plugins`` are the files that the run got by ``--plugin``.
Predictions and networks come from the store of the working folder, and from the released results where it lacks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.commands.common import REFERENCE, RUNS, STORE, load_plan, suite_name
from benchmarks.store.artefacts import Store
from benchmarks.suite.names import cells_of_result
from benchmarks.suite.plan import Cell, Plan
from dbn_core.errors import DataError, SpecError
from dbn_core.metrics.scores import Array

if TYPE_CHECKING:
    from torch import nn

    from benchmarks.results.mixtures import ScoredMixture

Plugins = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Predictions:
    """Log-probabilities of one result of one repetition.

    Attributes:
        log_probs: [M, N, K] on the test split, one for each term.
        labels: [N].
        validation_log_probs: [M, V, K].
        validation_labels: [V].
    """

    log_probs: Array
    labels: Array
    validation_log_probs: Array
    validation_labels: Array


@dataclass(frozen=True)
class Evaluation:
    """Scores of one set of predictions on a suite's test split, and its deep-ensemble equivalents.

    Attributes:
        acc, nll, ece: accuracy and expected calibration error as fractions, negative log-likelihood in nats.
        cnll: NLL after temperature scaling on validation; None without validation predictions.
        dee: deep-ensemble equivalent on NLL, in members of this suite.
        dee_interval: its 95 % interval, for these predictions on other test examples.
        calibrated_dee: the equivalent on NLL after temperature scaling; None without validation predictions.
        augrc: area under the generalised risk-coverage curve, a fraction.
        augrc_dee: the equivalent on it, which a temperature hardly changes.
        macs: multiply-adds of one prediction; None where only predictions were given.
    """

    acc: float
    nll: float
    ece: float
    cnll: float | None
    dee: float
    dee_interval: tuple[float, float]
    calibrated_dee: float | None
    augrc: float
    augrc_dee: float
    macs: float | None = None


def load_results(suite: str) -> pd.DataFrame:
    """The summary rows of a suite: one row for each method and size, with means, intervals, equivalents and costs.

    Rows of your own run come first, the committed ones second.

    Args:
        suite: its name, or the path of its file.

    Raises:
        SpecError: neither exists.
    """
    name = suite_name(str(suite))
    for folder in (RUNS, REFERENCE, Path(__file__).resolve().parents[1] / REFERENCE):
        path = folder / name / "summary.csv"
        if path.is_file():
            return pd.read_csv(path)
    raise SpecError(f"There are no result rows of '{suite}': `dbn-bench run {suite}` makes them.")


def load_predictions(
    suite: str, result: str, repetition: int = 0, store: Path = STORE, plugins: Plugins = ()
) -> Predictions:
    """The stored predictions of a result of one repetition, from 0.

    Raises:
        SpecError: there is no such suite, result or repetition.
        ArtefactError: neither the store nor the released results have them.
    """
    plan, the_store = _plan(suite, store, plugins)
    cell = _cell(plan, result, repetition)
    arrays = the_store.arrays("predictions", cell.predictions)
    terms = cell.terms
    return Predictions(
        arrays["test"][:terms], arrays["test_labels"], arrays["validation"][:terms], arrays["validation_labels"]
    )


def load_member(
    suite: str, position: int = 0, repetition: int = 0, store: Path = STORE, plugins: Plugins = ()
) -> nn.Module:
    """A trained member: a network from images [B, C, H, W] in [0, 1] to logits [B, K]; position 0 is the source.

    Raises:
        SpecError: the pool has no such position, or the plan does not use it.
        ArtefactError: the member has not been trained or released.
    """
    plan, the_store = _plan(suite, store, plugins)
    key = plan.members.get((repetition, position))
    if key is None:
        known = sorted(place for at, place in plan.members if at == repetition)
        raise SpecError(f"'{suite}' has no member {position} in repetition {repetition} (members: {known}).")
    return _builder(plan, the_store, repetition).member(key)


def load_method(suite: str, result: str, repetition: int = 0, store: Path = STORE, plugins: Plugins = ()) -> nn.Module:
    """The predictor of a result: images [B, C, H, W] in [0, 1] to log-probabilities [M, B, K] or [B, K].

    Raises:
        SpecError: there is no such result, or its trained parts are neither stored nor released.
    """
    from benchmarks.export.folder import predictor_payload

    plan, the_store = _plan(suite, store, plugins)
    payload = predictor_payload(plan, the_store, _cell(plan, result, repetition))
    return _builder(plan, the_store, repetition).predictor(payload)


def evaluate(
    what: Array | Mapping[str, Array] | nn.Module,
    suite: str,
    repetition: int = 0,
    store: Path = STORE,
    plugins: Plugins = (),
) -> Evaluation:
    """Score predictions or a network on a suite's test split, against its deep ensembles of one repetition.

    Args:
        what: log-probabilities [N, K] or [M, N, K] of the test split; or a mapping with ``test`` and ``validation``;
            or a module from images in [0, 1] to logits or log-probabilities, which is run on both splits.

    Raises:
        SpecError: the suite has no stored deep ensembles of this repetition.
        DataError: the predictions are of another number of examples or classes.
    """
    from benchmarks.results.external.comparing import score_against_ensembles
    from dbn_core.tasks.class_scores import score_arrays

    plan, the_store = _plan(suite, store, plugins)
    reference = load_predictions(suite, _smallest_ensemble(plan), repetition, store, plugins)
    arrays, macs = _arrays(what, plan, repetition, the_store)
    full = {"test": arrays["test"], "test_labels": reference.labels}
    if "validation" in arrays:
        full |= {"validation": arrays["validation"], "validation_labels": reference.validation_labels}
    for split in ("test", "validation"):
        if split in full and full[split].shape[1:] != (len(full[f"{split}_labels"]), len(plan.data.classes)):
            raise DataError(
                f"The {split} predictions have shape {full[split].shape}: give [M, "
                f"{len(full[f'{split}_labels'])}, {len(plan.data.classes)}]."
            )
    found = score_against_ensembles(plan, the_store, {repetition: full}, "these predictions")
    scores, raw = score_arrays(full), found["dee_raw"]

    def value(name: str) -> float | None:
        return found[name].value if name in found else None

    return Evaluation(
        found["acc"].value,
        found["nll"].value,
        float(scores.values("ece").mean()),
        value("cnll"),
        raw.value,
        (raw.low, raw.high),
        value("dee_cal"),
        float(scores.values("augrc").mean()),
        found["dee_augrc"].value,
        macs,
    )


def mix(suite: str, weights: Mapping[str, float], store: Path = STORE, plugins: Plugins = ()) -> ScoredMixture:
    """Score a weighted mean of stored predictions' probabilities: an ensemble that nobody has to train.

    Args:
        weights: of results, such as ``{"ED@8": 0.5, "DE@2": 0.5}``; positive, and normalised to a sum of 1.

    Returns:
        Its scores over the repetitions that all results have; ``macs`` is the sum of their costs.

    Raises:
        SpecError: no result is named, one does not exist, or a weight is not positive.
        ArtefactError: the predictions of a result are not stored.
    """
    from benchmarks.results.mixtures import MixtureSelection

    return MixtureSelection(*_plan(suite, store, plugins)).score(weights)


def _plan(suite: str, store: Path, plugins: Plugins) -> tuple[Plan, Store]:
    files = [plugins] if isinstance(plugins, str | Path) else plugins
    plan, the_store = load_plan(str(suite), store, None, None, [str(file) for file in files])
    if plan.suite.task.name != "classification":
        raise SpecError(f"'{suite}' is a suite of {plan.suite.task.name}: only classification has log-probabilities.")
    return plan, the_store


def _cell(plan: Plan, result: str, repetition: int) -> Cell:
    cells = {cell.repetition: cell for cell in cells_of_result(plan.cells, result, plan.suite.name)}
    if repetition not in cells:
        raise SpecError(f"'{result}' has the repetitions {', '.join(map(str, sorted(cells)))}, counted from 0.")
    return cells[repetition]


def _smallest_ensemble(plan: Plan) -> str:
    cell = min((cell for cell in plan.cells if cell.is_reference), key=lambda cell: cell.size)
    return f"{cell.label}@{cell.size}"


def _builder(plan: Plan, store: Store, repetition: int) -> Any:
    from benchmarks.work.worker import ArtefactBuilder

    return ArtefactBuilder(plan.suite, store, "cpu", repetition if plan.suite.data.resplits else 0)


def _arrays(what: Any, plan: Plan, repetition: int, store: Store) -> tuple[dict[str, Array], float | None]:
    if isinstance(what, Mapping):
        return {name: _terms(value) for name, value in what.items()}, None
    if isinstance(what, np.ndarray):
        return {"test": _terms(what)}, None
    import torch

    from dbn_core.measure.cost import measure_cost
    from dbn_core.methods.context import freeze
    from dbn_core.methods.evaluation import predict_split

    data, network = _builder(plan, store, repetition).data, freeze(what)
    arrays = {}
    for split in ("validation", "test"):
        terms = predict_split(network, data.splits[split], torch.device("cpu"))
        arrays[split] = _terms(terms.log_softmax(-1).numpy())
    example = torch.zeros(1, data.channels, *data.image_size)
    return arrays, float(measure_cost(network, example).macs)


def _terms(log_probs: Array) -> Array:
    return log_probs[None] if log_probs.ndim == 2 else log_probs
