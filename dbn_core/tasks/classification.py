"""Classify images: predictions are log-probabilities, and the reference is the deep ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from dbn_core.errors import PluginError, TrainingDivergedError
from dbn_core.nets.spec import ModuleSpec, NetworkSpec, classifier_spec
from dbn_core.tasks.base import Score, Scores, Task, register_task
from dbn_core.tasks.class_scores import SCORES, ClassScores, score_arrays

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dbn_core.data.batch import Batch
    from dbn_core.data.dataset import Dataset
    from dbn_core.metrics.scores import Array
    from dbn_core.nets.network import Network
    from dbn_core.train.recipe import Recipe

# Log-probabilities must sum to one within float32 rounding of a softmax over many classes.
_NORMALISED = 1e-3


@register_task("classification")
class Classification(Task):
    """Class probabilities of images, scored raw and after temperature scaling."""

    scores: ClassVar[Mapping[str, Score]] = SCORES
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
            if not (recipe.mixup or recipe.cutmix):
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
        """See :func:`dbn_core.tasks.class_scores.score_arrays`."""
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

        data = Dataset(
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
