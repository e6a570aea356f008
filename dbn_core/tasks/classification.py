"""Classify images: predictions are log-probabilities, and the reference is the deep ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from dbn_core.errors import PluginError, TrainingDivergedError
from dbn_core.nets.spec import ModuleSpec, NetworkSpec, classifier_spec
from dbn_core.tasks.base import Score, Scores, Task, register_task

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.data.dataset import Dataset
    from dbn_core.metrics.scores import Array
    from dbn_core.nets.network import Network
    from dbn_core.train.recipe import Recipe

_COVERAGE = 0.8  # of the selective risk
_MISSED = 0.05  # share of conformal sets that may miss the label

# Log-probabilities must sum to one within float32 rounding of a softmax over many classes.
_NORMALISED = 1e-3


@register_task("classification")
class Classification(Task):
    """Class probabilities of images, scored raw and after temperature scaling."""

    scores: ClassVar[Mapping[str, Score]] = {
        "acc": Score("ACC", "higher", percent=True, words="accuracy"),
        "nll": Score("NLL"),
        "brier": Score("BS", words="Brier score"),
        "cnll": Score("cNLL", words="calibrated NLL"),
        "cbrier": Score("cBS", words="calibrated Brier score"),
        "kl_to_ensemble": Score("KL to ensemble"),
        "ece": Score("ECE", percent=True),
        "cece": Score("cECE", percent=True, words="calibrated ECE"),
        "ece_debiased": Score("ECE debiased", percent=True, words="debiased ECE"),
        "cece_debiased": Score("cECE debiased", percent=True, words="calibrated debiased ECE"),
        "temperature": Score("temperature", None),
        "augrc": Score(
            "AUGRC",
            percent=True,
            table="uncertainty",
            meaning="area under the generalised risk-coverage curve (Traub et al., 2024): the share of all examples "
            "that are both wrong and accepted, mean over all coverages.",
        ),
        "aurc": Score(
            "AURC",
            percent=True,
            table="uncertainty",
            meaning="area under the risk-coverage curve (Geifman and El-Yaniv, 2017): the share of errors among the "
            "accepted examples, mean over all coverages.",
        ),
        "risk80": Score(
            "risk at 80 % coverage",
            percent=True,
            table="uncertainty",
            meaning="share of errors among the 80 % most confident examples.",
        ),
        "smece": Score(
            "smECE",
            percent=True,
            table="uncertainty",
            words="smooth ECE",
            meaning="smooth ECE (Błasiok and Nakkiran, 2024): without bins.",
        ),
        "csmece": Score("csmECE", percent=True, table="uncertainty", words="calibrated smooth ECE"),
        "mutual_information": Score(
            "MI",
            better=None,
            table="uncertainty",
            words="mutual information",
            meaning="mutual information of class and member in nats: entropy of the mean prediction minus mean entropy "
            "of the members. It grows with their number.",
        ),
        "disagreement": Score(
            "disagreement",
            better=None,
            percent=True,
            table="uncertainty",
            meaning="share of the pairs of members whose top classes differ.",
        ),
        "lac_size": Score(
            "set size",
            table="uncertainty",
            words="size of conformal sets",
            meaning="mean number of classes in conformal sets (LAC; Sadinle et al., 2019), calibrated on validation to "
            "hold the label in 95 %.",
        ),
        "lac_coverage": Score(
            "coverage of sets",
            better=None,
            percent=True,
            table="uncertainty",
            words="coverage of conformal sets",
            meaning="share of these sets that hold the label, on test.",
        ),
    }
    headline: ClassVar[str] = "nll"
    tested_scores: ClassVar[tuple[str, ...]] = (
        *("nll", "cnll", "acc", "ece", "cece"),
        *("augrc", "aurc", "risk80", "smece", "csmece", "lac_size"),
    )
    reference: ClassVar[str] = "de"
    reference_label: ClassVar[str] = "DE"
    curves: ClassVar[Mapping[str, str]] = {"dee_raw": "nll", "dee_cal": "cnll", "dee_augrc": "augrc"}
    networks: ClassVar[Any] = NetworkSpec
    stored_views: ClassVar[bool] = True
    validates: ClassVar[bool] = True

    def network_spec(self, given: Mapping[str, Any]) -> NetworkSpec | ModuleSpec:
        """A built-in ResNet, or a network of timm, torchvision or a plugin."""
        return classifier_spec(given)

    def new_network(
        self, spec: Any, channels: int, image_size: tuple[int, int], classes: int, mean: Sequence[float],
        std: Sequence[float],
    ) -> Network:  # fmt: skip
        """A network that normalises its images itself."""

        if isinstance(spec, ModuleSpec):
            from dbn_core.nets.modules import ModuleNetwork

            return ModuleNetwork(spec, classes, channels, tuple(mean), tuple(std))
        from dbn_core.nets.resnet import Classifier

        return Classifier(spec, classes, channels, tuple(mean), tuple(std))

    def member_step(
        self, network: nn.Module, recipe: Recipe, generator: torch.Generator
    ) -> Callable[[Batch], torch.Tensor]:
        """Cross-entropy, of mixed labels where images are mixed."""
        from torch.nn import functional as F

        def step(batch: Batch) -> torch.Tensor:
            logits = network(batch.images)
            if not recipe.mixup:
                return F.cross_entropy(logits, batch.labels)
            own = F.cross_entropy(logits, batch.labels, reduction="none")
            partner = F.cross_entropy(logits, batch.partner_labels, reduction="none")
            return ((1 - batch.lam[:, 0]) * own + batch.lam[:, 0] * partner).mean()

        return step

    def predict(
        self, predictor: nn.Module, data: Dataset, device: torch.device, generator: torch.Generator, name: str
    ) -> dict[str, torch.Tensor]:
        """Log-probabilities [M, N, K] and labels [N] of validation and test."""
        from dbn_core.methods.evaluation import predict_split

        tensors = {}
        for split in ("validation", "test"):
            examples = data.splits[split]
            terms = predict_split(predictor, examples, device)
            tensors[split] = check_log_probs(terms, len(examples), data.num_classes, name)
            tensors[f"{split}_labels"] = examples.labels
        return tensors

    def is_predictor(self, module: nn.Module) -> bool:
        """Whether it is a classifier of images."""
        from dbn_core.nets.network import Network

        return isinstance(module, Network)

    def evaluate(self, predictor: Any, data: Dataset, device: torch.device) -> tuple[float, float]:
        """Accuracy and NLL of logits or log-probabilities [B, K] on validation."""
        from dbn_core.methods.evaluation import evaluate_split

        return evaluate_split(predictor, data.validation, device)

    def score(self, arrays: Mapping[str, Array], terms: int | None = None) -> ClassScores:
        """See :func:`score_arrays`."""
        return score_arrays(arrays, terms)

    def numbers(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities [B, K] or [B, M, K]."""
        return output.exp().movedim(-2, 0)

    def against(self, scores: Scores, reference: Scores) -> dict[str, Array]:
        """KL of the full deep ensemble to each prediction."""
        from dbn_core.metrics.scores import kl_divergence

        assert isinstance(scores, ClassScores)
        assert isinstance(reference, ClassScores)
        return {"kl_to_ensemble": kl_divergence(reference.log_probs, scores.log_probs)}

    def trial(self) -> tuple[NetworkSpec, Dataset]:
        """As deep as the papers' CIFAR network, so that every default block name exists, and as narrow as possible."""
        import torch

        from dbn_core.data.dataset import Dataset, Split
        from dbn_core.rng import generator

        g = generator(purpose="check-data")

        def split(count: int) -> Split:
            labels = torch.arange(count) % 4
            images = torch.randint(0, 120, (count, 1, 8, 8), generator=g)
            for k in range(4):  # a bright quadrant marks the class
                images[labels == k, :, (k // 2) * 4 : (k // 2) * 4 + 4, (k % 2) * 4 : (k % 2) * 4 + 4] += 100
            return Split(images.to(torch.uint8), labels)

        data = Dataset.build(
            name="check",
            title="Contract check",
            train=split(48),
            validation=split(16),
            test=split(24),
            classes=("a", "b", "c", "d"),
            mean=(0.4,),
            std=(0.2,),
            flip=False,
        )
        return NetworkSpec(name="resnet32", channels=4, width=1.0), data


def check_log_probs(output: Any, examples: int, classes: int, name: str) -> torch.Tensor:
    """A predictor's output as [M, N, K]; raises :class:`PluginError` if it is something else."""
    import torch

    if not isinstance(output, torch.Tensor):
        raise PluginError(f"Method '{name}': the predictor returned {type(output).__name__}, not a tensor.")
    terms = output[None] if output.ndim == 2 else output
    if terms.ndim != 3 or terms.shape[1:] != (examples, classes):
        raise PluginError(
            f"Method '{name}': the predictor returned shape {tuple(output.shape)} for {examples} images; "
            f"return log-probabilities [B, {classes}] or [M, B, {classes}]."
        )
    if torch.isnan(terms).any():
        raise TrainingDivergedError(
            f"Method '{name}': its predictions contain NaN: check its training losses, or lower its learning rate."
        )
    worst = terms.double().logsumexp(-1).abs().max()
    if not worst < _NORMALISED:
        raise PluginError(
            f"Method '{name}': its probabilities sum to {float(worst.exp()):.4g} instead of 1 in the worst case: "
            "end the predictor with log_softmax."
        )
    return terms


@dataclass(kw_only=True)
class ClassScores(Scores):
    """Scores of class probabilities.

    Attributes:
        log_probs: [N, K].
        labels: [N].
        zeros: how many probabilities were exactly zero, and count as ``FLOOR`` (:mod:`dbn_core.metrics.scores`).
        zero_labels: how many of them are a label's.
        determined: whether the validation split determines the temperature.
    """

    log_probs: Array
    labels: Array
    zeros: int = 0
    zero_labels: int = 0
    determined: bool = True

    @property
    def calibrated(self) -> Array | None:
        """``log_probs`` at the fitted temperature, computed anew; None without validation."""
        from dbn_core.metrics.calibration import apply_temperature

        return apply_temperature(self.log_probs, self.split["temperature"]) if "temperature" in self.split else None


def caveats(scores: Sequence[ClassScores]) -> list[str]:
    """Caveats of the scores of one method over its repetitions, in sentences."""
    from dbn_core.metrics.scores import FLOOR

    lines = []
    if zeros := sum(each.zeros for each in scores):
        total, of_labels = sum(each.log_probs.size for each in scores), sum(each.zero_labels for each in scores)
        lines.append(
            f"{zeros:,} of {total:,} test probabilities are exactly 0 and count as {FLOOR:.2g}; {of_labels:,} of them "
            f"are a label's{', and the NLL depends on that' if of_labels else ''}."
        )
    if loose := sum(not each.determined for each in scores):
        where = f" in {loose} of {len(scores)} repetitions" if len(scores) > 1 else ""
        lines.append(
            f"validation does not determine the temperature{where}: the NLL is flat or has no minimum from T = 0.05 to "
            "20, so calibrated scores depend on the search."
        )
    return lines


def score_arrays(arrays: Mapping[str, Array], terms: int | None = None) -> ClassScores:
    """All scores that need no other predictions; the temperature is fitted on validation.

    Args:
        arrays: ``test`` [M, N, K] log-probabilities and ``test_labels`` [N], and the same two of ``validation`` if any;
            ``test_ids`` [N] where each repetition has a test split of its own.
        terms: number of terms to use, from the first; all if None.
    """

    from dbn_core.metrics.calibration import search_temperature
    from dbn_core.metrics.scores import LOG_FLOOR, by_example, mixture_log_probs, negative_log_likelihood
    from dbn_core.metrics.selective import conformal_scores, conformal_threshold, disagreement, mutual_information

    members = arrays["test"][:terms]
    log_probs, labels = mixture_log_probs(members), arrays["test_labels"]
    result = ClassScores(log_probs=log_probs, labels=labels, ids=arrays.get("test_ids"))
    result.zeros = int(by_example(lambda block: (block == LOG_FLOOR).sum(1), log_probs).sum())
    result.zero_labels = int((negative_log_likelihood(log_probs, labels) == -LOG_FLOOR).sum())
    result.examples = _examples(log_probs, labels)
    if len(members) > 1:
        result.examples |= {"mutual_information": mutual_information(members), "disagreement": disagreement(members)}
    if "validation" in arrays:
        validation, known = mixture_log_probs(arrays["validation"][:terms]), arrays["validation_labels"]
        temperature, result.determined = search_temperature(validation, known)
        threshold = conformal_threshold(conformal_scores(validation, known), _MISSED)
        del validation  # no more is needed of it, and the rest needs memory
        result.split = {"temperature": temperature}
        scaled = _examples(log_probs, labels, temperature)
        result.examples |= {f"c{name}": values for name, values in scaled.items() if name != "acc"}
        result.examples |= _sets(log_probs, labels, threshold)
    return result


def _sets(log_probs: Array, labels: Array, threshold: float) -> dict[str, Array]:
    """Sizes of the conformal sets, and whether they hold the label; [N] each, computed in blocks to save memory."""
    import numpy as np

    from dbn_core.metrics.scores import by_example
    from dbn_core.metrics.selective import conformal_sets

    def of_block(log_probs: Array, labels: Array) -> Array:
        sets = conformal_sets(log_probs, threshold)
        return np.stack([sets.sum(1), sets[np.arange(len(labels)), labels]], 1).astype(np.float64)

    size, held = np.ascontiguousarray(by_example(of_block, log_probs, labels).T)
    return {"lac_size": size, "lac_coverage": held}


def _examples(log_probs: Array, labels: Array, temperature: float | None = None) -> dict[str, Array]:
    """Scores of each example, [N], at a temperature if one is given; computed in blocks to save memory."""
    import numpy as np

    from dbn_core.metrics.calibration import apply_temperature, calibration_terms, confidence_and_hit
    from dbn_core.metrics.scores import brier, by_example, negative_log_likelihood
    from dbn_core.metrics.selective import (
        augrc_terms,
        aurc_terms,
        risk_at_coverage_terms,
        smooth_calibration_terms,
    )

    def of_block(log_probs: Array, labels: Array) -> Array:
        block = log_probs if temperature is None else apply_temperature(log_probs, temperature)
        scores = negative_log_likelihood(block, labels), brier(block, labels), *confidence_and_hit(block, labels)
        return np.stack(scores, 1)

    nll, brier_score, confidence, hit = np.ascontiguousarray(by_example(of_block, log_probs, labels).T)
    scores = {
        "acc": hit,
        "nll": nll,
        "brier": brier_score,
        "ece": calibration_terms(confidence, hit),
        "ece_debiased": calibration_terms(confidence, hit, debiased=True),
        "smece": smooth_calibration_terms(confidence, hit),
    }
    if temperature is None:  # which hardly changes the order of confidences
        scores |= {
            "augrc": augrc_terms(confidence, hit),
            "aurc": aurc_terms(confidence, hit),
            "risk80": risk_at_coverage_terms(confidence, hit, _COVERAGE),
        }
    return scores
